"""``make fuzz``: tries streams split at every byte until the number or the time is reached, or two readings differ.

    python -m tests.fuzz.run [--splits N] [--seconds N] [--seed N] [--only gate|answers] [--protocol MODULE:CLASS]

A disagreement is printed as a line for ``corpus/``, with the split that shows it, and ends the run with exit code 1.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")

import django

django.setup()

from uvicorn.importer import import_from_string

from launcher.proxy.fast.protocol import FastProtocol
from launcher.proxy.guard import GuardedProtocol
from tests.fuzz import client_side, server_side
from tests.fuzz.loop import MemoryLoop
from tests.fuzz.reference import read_requests, read_response
from tests.fuzz.streams import corpus, endless

PROTOCOLS = (GuardedProtocol, FastProtocol)
"""The portable lane's server, and the fast lane's."""

Check = Callable[[list[bytes]], str]
"""Tries one split; says what is wrong with it, or nothing."""


@dataclass
class Disagreement(Exception):
    """Two readings of the same bytes."""

    side: str
    pieces: list[bytes]
    what: str

    def __str__(self) -> str:
        return f"{self.side}: {self.what}\n  pieces {self.pieces!r}\n  corpus {b''.join(self.pieces)!r}"


def splits(stream: bytes, rng: random.Random) -> Iterator[list[bytes]]:
    """Whole, in two pieces at every byte, in some pieces, and byte by byte."""
    yield [stream]
    for at in range(1, len(stream)):
        yield [stream[:at], stream[at:]]
    places = sorted(rng.sample(range(len(stream)), min(len(stream), 5)))
    yield [piece for piece in (stream[a:b] for a, b in zip([0, *places], [*places, None], strict=True)) if piece]
    yield [stream[at : at + 1] for at in range(len(stream))]


def gate_checks(stream: bytes, loop: MemoryLoop, protocol_class: type) -> Iterator[tuple[str, Check]]:
    """The server's side, with an application that reads first and one that answers first."""
    reading = read_requests(stream)
    late = server_side.Driver(protocol_class, loop)
    early = server_side.Driver(protocol_class, loop, answers_early=True)
    yield "gate", lambda pieces: server_side.disagreement(reading, late.run(pieces))
    yield "gate, early answer", lambda pieces: server_side.disagreement_early(reading, early.run(pieces))
    if issubclass(protocol_class, FastProtocol):
        pump = server_side.Driver(protocol_class, loop, pumps=True)
        hasty = server_side.Driver(protocol_class, loop, pumps=True, answers_early=True)
        yield "pump", lambda pieces: server_side.disagreement(reading, pump.run(pieces))
        prompt = server_side.Driver(protocol_class, loop, pumps=True, at_once=True)
        yield "at once", lambda pieces: server_side.disagreement(reading, prompt.run(pieces))
        yield "pump, early answer", lambda pieces: server_side.disagreement_early(reading, hasty.run(pieces))


def answer_checks(stream: bytes, loop: MemoryLoop) -> Iterator[tuple[str, Check]]:
    """The server in the job's side, for GET and HEAD, with the connection open and closed at the end."""
    drivers = {"": client_side.ClientDriver(loop), "raw ": client_side.ClientDriver(loop, raw=True)}

    def check(driver: client_side.ClientDriver, method: str, at_end: bool) -> Check:
        reading = read_response(stream, method=method.encode(), at_end=at_end)
        return lambda pieces: client_side.disagreement(
            reading, driver.run(pieces, method=method, at_end=at_end), at_end=at_end
        )

    for kind, driver in drivers.items():
        for method in ("GET", "HEAD"):
            for at_end in (False, True):
                yield f"{kind}answer to {method}, {'closed' if at_end else 'open'}", check(driver, method, at_end)


def try_stream(checks: Iterator[tuple[str, Check]], stream: bytes, rng: random.Random) -> int:
    """Try all splits. Returns how many. Raises Disagreement."""
    count = 0
    for side, check in checks:
        for pieces in splits(stream, rng):
            count += 1
            what = check(pieces)
            if what:
                raise Disagreement(side, pieces, what)
    return count


def fuzz(
    *,
    seed: int,
    most_splits: int,
    seconds: float,
    only: str = "",
    protocols: Sequence[type] = PROTOCOLS,
    say: Callable[[str], None] = lambda text: None,
) -> int:
    """The corpus first, then changes of it, in turns. Returns the number of splits. Raises Disagreement."""
    rng = random.Random(seed)
    end = time.monotonic() + seconds
    told_at = time.monotonic()
    count = 0
    with MemoryLoop() as loop:
        for stream in corpus("requests") if only != "answers" else ():
            for protocol_class in protocols:
                count += try_stream(gate_checks(stream, loop, protocol_class), stream, rng)
        for stream in corpus("responses") if only != "gate" else ():
            count += try_stream(answer_checks(stream, loop), stream, rng)
        requests, responses = endless("requests", seed), endless("responses", seed)
        turns = itertools.cycle(protocols)
        while count < most_splits and time.monotonic() < end:
            if only != "answers":
                stream = next(requests)
                count += try_stream(gate_checks(stream, loop, next(turns)), stream, rng)
            if only != "gate":
                stream = next(responses)
                count += try_stream(answer_checks(stream, loop), stream, rng)
            if time.monotonic() > told_at + 10:
                told_at = time.monotonic()
                say(f"{count:,} splits, {end - told_at:.0f} s left at most")
    return count


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--splits", type=int, default=24_000_000)
    parser.add_argument("--seconds", type=float, default=1200)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--only", choices=["gate", "answers"], default="")
    parser.add_argument("--protocol", type=import_from_string, metavar="MODULE:CLASS", help="only this one")
    asked = parser.parse_args()
    logging.disable(logging.CRITICAL)

    def say(text: str) -> None:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    say(f"seed {asked.seed}")
    begun = time.monotonic()
    try:
        count = fuzz(
            seed=asked.seed,
            most_splits=asked.splits,
            seconds=asked.seconds,
            only=asked.only,
            protocols=(asked.protocol,) if asked.protocol else PROTOCOLS,
            say=say,
        )
    except Disagreement as found:
        say(f"DISAGREEMENT (seed {asked.seed})\n{found}")
        return 1
    say(f"{count:,} splits in {time.monotonic() - begun:.0f} s without a disagreement")
    return 0


if __name__ == "__main__":
    sys.exit(main())
