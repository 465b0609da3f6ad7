"""Drives a server's protocol class in memory, split by split, and compares what it hands on with the reference.

Only in memory are millions of splits possible; ``test_real_sockets`` tries a sample over real ones. A protocol class
is right when it hands on exactly the requests of the reference, whatever the split. It may be stricter, but only by
refusing: an answer of 4xx or 5xx of its own and a closed connection, and nothing handed on after it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

from uvicorn.config import Config
from uvicorn.server import ServerState

from launcher.proxy.repeats import Blocks
from tests.fuzz.loop import MemoryLoop, Pipe
from tests.fuzz.reference import End, Reading

logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)

Request = tuple[bytes, bytes, tuple[tuple[bytes, bytes], ...], bytes]


@dataclass
class Outcome:
    """What a server made of a stream."""

    requests: list[Request] = field(default_factory=list)  # handed on, with the whole body
    begun: int = 0  # handed on at all
    statuses: list[int] = field(default_factory=list)  # of all answers, in order
    closed: bool = False
    raw: bytes | None = None  # what came behind a handshake
    handshake: bytes = b""
    problems: list[str] = field(default_factory=list)


class _Socket:
    """Takes the place of the WebSocket protocol: keeps the handshake and what comes behind it."""

    outcome: Outcome

    def __init__(self, **_: Any) -> None:
        self.got: list[bytes] = []

    def connection_made(self, transport: Pipe) -> None:
        transport.protocol = self

    def data_received(self, data: bytes) -> None:
        outcome = _Socket.outcome
        if outcome.raw is None:
            head, _, rest = bytes(data).partition(b"\r\n\r\n")
            outcome.handshake, outcome.raw = head, rest
        else:
            outcome.raw += data

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is left."""


class Driver:
    """Runs one protocol class. Use inside ``with loop``.

    ``at_once``: requests whose fields came before, in any run of this driver, are answered without a task.
    """

    def __init__(
        self,
        protocol_class: type,
        loop: MemoryLoop,
        *,
        answers_early: bool = False,
        pumps: bool = False,
        at_once: bool = False,
    ) -> None:
        self._class = protocol_class
        self._loop = loop
        self._answers_early = answers_early
        self._pumps = pumps
        self._blocks = Blocks()
        self._outcome = Outcome()
        app = _Prompt(self) if at_once else self.app
        self._config = Config(
            app,
            http=protocol_class,
            ws=_Socket,
            lifespan="off",
            log_config=None,
            proxy_headers=False,  # type: ignore[arg-type]  # a class of ours
        )
        self._config.load()
        self._config.loaded_app = app  # type: ignore[assignment]  # without the layers around it

    def run(self, pieces: list[bytes], *, half_close: bool = True) -> Outcome:
        """Feed the pieces, then the end of the stream."""
        outcome = self._outcome = _Socket.outcome = Outcome()
        loop, pipe = self._loop, Pipe()
        protocol = self._class(config=self._config, server_state=ServerState(), app_state={}, _loop=loop)
        pipe.protocol = protocol
        if hasattr(protocol, "_blocks"):
            protocol._blocks = self._blocks
        protocol.connection_made(pipe)
        for piece in pieces:
            if pipe.is_closed:
                break
            pipe.protocol.data_received(piece)
            loop.settle()
            if pipe.is_paused:
                outcome.problems.append("stuck")
        if half_close and not pipe.is_closed and outcome.raw is None:
            pipe.protocol.eof_received()
            loop.settle()
        outcome.closed = pipe.is_closed
        outcome.statuses = _statuses(b"".join(pipe.written), outcome)
        pipe.protocol.connection_lost(None)
        loop.settle()
        if loop.errors:
            outcome.problems.append(f"errors: {loop.errors!r}")
            loop.errors.clear()
        return outcome

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        outcome = self._outcome
        outcome.begun += 1
        fields = tuple(scope["headers"])
        target = _asked(scope)
        if self._answers_early:
            outcome.requests.append((scope["method"].encode(), target, fields, b""))
            if not self._pumps:
                await _answer(send)
        if self._pumps:
            await self._pump(scope, fields, target)
            return
        body = b""
        while True:
            event = await receive()
            if event["type"] == "http.disconnect":
                return
            body += event["body"]
            if not event["more_body"]:
                break
        if fields != tuple(scope["headers"]):
            outcome.problems.append("the head changed while the body was read")
        if not self._answers_early:
            outcome.requests.append((scope["method"].encode(), target, fields, body))
            await _answer(send)

    def at_once(self, scope: Any, offer: Any) -> bool:
        """The application's way without a task."""
        outcome = self._outcome
        outcome.begun += 1
        relay = _Relay(self._loop.create_future())
        offer.attach(relay)
        if not relay.done.done() or relay.pieces:
            outcome.problems.append("a body of a request without one")
        outcome.requests.append((scope["method"].encode(), _asked(scope), tuple(scope["headers"]), b""))
        offer.answer(200, b"content-length: 0\r\n", keep_alive=True)
        offer.finish()
        return True

    async def _pump(self, scope: Any, fields: tuple[tuple[bytes, bytes], ...], target: bytes) -> None:
        """The same by the fast lane's extension: bodies come without events."""
        offer = scope["extensions"]["footbridge.pump"]
        relay = _Relay(self._loop.create_future())
        offer.attach(relay)
        if not self._answers_early:
            await relay.done
            if relay.is_broken:
                offer.detach()
                return
            self._outcome.requests.append((scope["method"].encode(), target, fields, b"".join(relay.pieces)))
        if fields != tuple(scope["headers"]):
            self._outcome.problems.append("the head changed while the body was read")
        offer.answer(200, b"content-length: 0\r\n", keep_alive=True)
        offer.finish()


class _Prompt:
    """An application that answers at once where it may."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.at_once = driver.at_once

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._driver.app(scope, receive, send)


class _Relay:
    """Takes a body as the fast lane's own does, and keeps it."""

    is_congested = False

    def __init__(self, done: Any) -> None:
        self.connection = self
        self.done = done
        self.pieces: list[bytes] = []
        self.is_broken = False

    def pause_reading(self) -> None:
        """Nothing is read."""

    def resume_reading(self) -> None:
        """Nor here."""

    def take_request(self, data: bytes) -> None:
        """A piece of the body."""
        self.pieces.append(bytes(data))

    def end_request(self) -> None:
        """It is complete."""
        if not self.done.done():
            self.done.set_result(None)

    def fail(self, error: Exception) -> None:
        """It will not be."""
        if not self.done.done():
            self.is_broken = True
            self.done.set_result(None)


async def _answer(send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def _statuses(written: bytes, outcome: Outcome) -> list[int]:
    """The statuses of the answers, each of which must be whole: an answer inside another one is a problem."""
    statuses = []
    while written:
        head, separator, written = written.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        if not separator or not lines[0].startswith(b"HTTP/1.1 "):
            outcome.problems.append(f"no proper answer: {head[:80]!r}")
            break
        status = int(lines[0][9:12])
        if status == 100:
            continue
        statuses.append(status)
        lengths = [int(line[15:]) for line in lines[1:] if line.lower().startswith(b"content-length:")]
        written = written[sum(lengths) :]
    return statuses


def disagreement_early(reading: Reading, outcome: Outcome) -> str:
    """The same for an application that answers before it reads: heads are compared, and that no answer is too many."""
    if outcome.problems:
        return outcome.problems[0]
    got = [(method, target, fields) for method, target, fields, _ in outcome.requests]
    wanted = [(m.start[0], _target(m.start[1]), m.fields) for m in reading.messages]
    if got[: len(wanted)] != wanted[: len(got)]:
        return "another request than the reference's"
    if len(got) > len(wanted) + (reading.end in (End.REFUSE, End.PARTIAL)):  # the one whose body is not right
        return "more requests"
    refused = outcome.closed and bool(outcome.statuses) and outcome.statuses[-1] >= 400
    own = outcome.statuses[:-1] if refused else outcome.statuses
    if own != [200] * len(own) or len(own) not in (len(got), len(got) - refused):
        return f"answers {outcome.statuses} to {len(got)} requests"
    if reading.end is End.REFUSE and not outcome.closed:
        return "not refused"
    if len(got) < len(wanted) - (reading.end is End.UPGRADED) and not outcome.closed:
        return "fewer requests, and no refusal"
    return ""


def disagreement(reading: Reading, outcome: Outcome) -> str:
    """What is wrong with an outcome; empty when it agrees."""
    if outcome.problems:
        return outcome.problems[0]
    expected = list(reading.messages)
    handshake = expected.pop() if reading.end is End.UPGRADED else None
    wanted = [(m.start[0], _target(m.start[1]), m.fields, m.body) for m in expected]
    got = outcome.requests
    if got != wanted[: len(got)]:
        return "another request than the reference's" if len(got) <= len(wanted) else "more requests"
    refused = outcome.closed and bool(outcome.statuses) and outcome.statuses[-1] >= 400
    own = outcome.statuses[:-1] if refused else outcome.statuses
    if own != [200] * len(got):
        return f"answers {outcome.statuses} to {len(got)} requests"
    if len(got) < len(wanted):
        return "" if refused and outcome.raw is None else "fewer requests, and no refusal"
    if outcome.raw is not None:
        if handshake is None:
            return "an upgrade that is none"
        lines = outcome.handshake.split(b"\r\n")
        fields = tuple(tuple(line.split(b": ", 1)) for line in lines[1:])
        return "" if fields == handshake.fields else "another handshake"
    if refused:
        return ""
    if reading.end is End.REFUSE:
        return "not refused"
    if handshake is not None:
        return "a handshake that is not taken"
    if reading.end is End.CLOSED and not outcome.closed:
        return "not closed"
    if reading.end is End.CLEAN and outcome.begun != len(got):
        return "a request too many has begun"
    return ""


def _asked(scope: Any) -> bytes:
    query: bytes = scope["query_string"]
    target: bytes = scope["raw_path"]
    return target + b"?" + query if query else target


def _target(target: bytes) -> bytes:
    path, mark, query = target.partition(b"?")
    return path + (mark + query if query else b"")
