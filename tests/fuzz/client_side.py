"""Drives our reader of servers' answers (``launcher.proxy.connection``) in memory and compares it with the reference.

It is right when it hands on exactly the answer of the reference, whatever the split, and keeps a connection only after
an answer that ended exactly where its bytes did. It may be stricter by breaking the exchange off.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from launcher.proxy.answers import Answers
from launcher.proxy.connection import Connection
from launcher.proxy.errors import UpstreamError
from launcher.proxy.exchange import Exchange, Head
from tests.fuzz.loop import MemoryLoop, Pipe
from tests.fuzz.reference import End, Reading, Refused, read_chunks


@dataclass
class Answer:
    """What the proxy made of a server's bytes."""

    status: int = 0
    fields: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""
    is_complete: bool = False
    is_broken: bool = False
    is_kept: bool = False  # the connection would carry another request
    problems: list[str] = field(default_factory=list)


class _Home:
    def forget(self, connection: Connection) -> None:
        """Nobody keeps it."""


class _Raw(Exchange):
    """An exchange as the fast lane has it: the body goes on as it came, chunks and all."""

    def take_head(self, head: Head) -> None:
        has_body = not self.head_only and head.status not in (204, 304)
        self.takes_raw = has_body and (head.chunked or head.length is not None)
        super().take_head(head)


class ClientDriver:
    """Runs one exchange at a time; ``raw`` as the fast lane does. Use inside ``with loop``."""

    def __init__(self, loop: MemoryLoop, *, raw: bool = False) -> None:
        self._loop = loop
        self._raw = raw
        self._answers = Answers()  # heads that came in an earlier run are known, as they are in a pool

    def run(self, pieces: list[bytes], *, method: str, at_end: bool) -> Answer:
        """Feed the pieces and, with ``at_end``, the end of the stream."""
        answer, loop, pipe = Answer(), self._loop, Pipe()
        connection = Connection(_Home(), self._answers)
        connection.connection_made(pipe)
        raw = _Raw(connection, head_only=method == "HEAD") if self._raw else None
        exchange = connection.start(method, b"", exchange=raw)
        exchange.request_sent = True
        task = loop.create_task(_read(exchange, answer))
        loop.settle()
        for piece in pieces:
            if pipe.is_closed:
                break
            connection.data_received(piece)
            loop.settle()
        answer.is_kept = connection.is_usable and exchange.complete
        if at_end and not pipe.is_closed:
            connection.eof_received()
            loop.settle()
        if pipe.is_closed or at_end:
            connection.connection_lost(None)
            loop.settle()
        if not task.done():
            task.cancel()
            loop.settle()
        if loop.errors:
            answer.problems.append(f"errors: {loop.errors!r}")
            loop.errors.clear()
        return answer


async def _read(exchange: Any, answer: Answer) -> None:
    try:
        head = await exchange.head()
        answer.status = head.status
        answer.fields = tuple((name.lower(), value) for name, value in head.fields)
        while piece := await exchange.read():
            answer.body += piece
        if head.chunked and exchange.takes_raw:
            answer.body = read_chunks(answer.body)
        answer.is_complete = True
    except Refused:
        answer.problems.append("chunks that go on are none")
    except UpstreamError:
        answer.is_broken = True


def disagreement(reading: Reading, answer: Answer, *, at_end: bool) -> str:
    """What is wrong with an answer; empty when it agrees."""
    if answer.problems:
        return answer.problems[0]
    if reading.messages:
        message = reading.messages[0]
        if not answer.is_complete:
            return "" if answer.is_broken else "an answer that does not end"
        got = (answer.status, answer.fields, answer.body)
        if got != (int(message.start[1]), message.fields, message.body):
            return "another answer than the reference's"
    elif answer.is_complete:
        return "an answer that is none"
    elif reading.end is End.REFUSE and not answer.is_broken:
        return "not refused"
    if answer.is_kept and (reading.end is not End.CLEAN or not reading.messages):
        return "a connection that must not be kept"
    if answer.is_kept and b"close" in reading.messages[0].options(b"connection"):
        return "a connection that the server closes is kept"
    return ""
