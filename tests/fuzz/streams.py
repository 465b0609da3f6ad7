"""Streams of bytes to try: the seed corpus, and what a seeded random generator makes of it."""

from __future__ import annotations

import ast
import random
from collections.abc import Iterator
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
MOST_BYTES = 420
"""Longer streams find little more and take their time: every byte is a place to split."""

_BYTES = (
    b"\r",
    b"\n",
    b"\r\n",
    b"\0",
    b" ",
    b"\t",
    b":",
    b",",
    b";",
    b"0",
    b"1",
    b"a",
    b"\x7f",
    b"\x80",
    b"\xff",
    b"\x0b",
    b'"',
)
_REQUEST_LINES = (
    b"Content-Length: 3",
    b"Content-Length: 0",
    b"content-length:3 ",
    b"Content-Length: +3",
    b"Content-Length: 3, 3",
    b"Content-Length: 0x3",
    b"Transfer-Encoding: chunked",
    b"transfer-encoding:\tCHUNKED",
    b"Transfer-Encoding: chunked, identity",
    b"Transfer-Encoding: xchunked",
    b"Transfer-Encoding: identity",
    b"Transfer-Encoding : chunked",
    b"Transfer-Encoding: \x0bchunked",
    b"Connection: close",
    b"Connection: keep-alive, Upgrade",
    b"Connection: Upgrade",
    b"Connection: Transfer-Encoding",
    b"Upgrade: websocket",
    b"Upgrade: h2c",
    b"Upgrade: websocket, h2c",
    b"Expect: 100-continue",
    b"Host: y",
    b" folded",
    b"\tfolded",
    b"X-Empty:",
    b"X_Y: \xe4 ",
    b"",
)
_BODIES = (
    b"abc",
    b"0\r\n\r\n",
    b"3\r\nabc\r\n0\r\n\r\n",
    b"1;a=b\r\nx\r\n00\r\nX: y\r\n\r\n",
    b"a\r\n0123456789\r\n0\r\n\r\n",
    b"3\r\nabc0\r\n\r\n",
    b"2\r\nab\r\n0\r\nConnection: close\r\nContent-Length: 9\r\nTransfer-Encoding: gzip\r\n\r\n",
    b"0\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"GET /in HTTP/1.1\r\nHost: x\r\n\r\n",
)


def corpus(name: str) -> list[bytes]:
    """``requests`` or ``responses``."""
    lines = (CORPUS / f"{name}.txt").read_text(encoding="ascii").splitlines()
    return [ast.literal_eval(line) for line in lines if not line.startswith("#")]


def endless(name: str, seed: int) -> Iterator[bytes]:
    """Changed and joined seeds, without end; the same ones for the same ``seed``."""
    rng = random.Random(seed)
    seeds = corpus(name)
    while True:
        stream = b"".join(rng.choice(seeds) for _ in range(rng.choice((1, 1, 1, 2, 2, 3)) if name == "requests" else 1))
        for _ in range(rng.choice((0, 1, 1, 1, 2, 2, 3, 5))):
            stream = _changed(stream, rng, seeds)
        if stream:
            yield stream[:MOST_BYTES]


def _changed(stream: bytes, rng: random.Random, seeds: list[bytes]) -> bytes:
    at = rng.randrange(len(stream) + 1)
    choice = rng.randrange(10)
    if choice < 4:  # another field
        lines = stream.split(b"\r\n")
        lines.insert(rng.randrange(1, len(lines) + 1), rng.choice(_REQUEST_LINES))
        return b"\r\n".join(lines)
    if choice == 4:
        return stream[:at] + rng.choice(_BYTES) + stream[at:]
    if choice == 5:
        return stream[:at] + rng.choice(_BYTES) + stream[at + 1 :]
    if choice == 6:
        return stream[:at] + stream[at + rng.choice((1, 1, 2, 5)) :]
    if choice == 7:
        return stream + rng.choice(_BODIES)
    if choice == 8:  # a line twice, or gone
        lines = stream.split(b"\r\n")
        place = rng.randrange(len(lines))
        lines[place : place + 1] = [lines[place]] * rng.choice((0, 2))
        return b"\r\n".join(lines)
    other = rng.choice(seeds)
    return stream[:at] + other[rng.randrange(len(other)) :]
