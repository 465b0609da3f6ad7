"""Short messages of a browser take a way of their own into the portable lane: it makes no difference but time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from uvicorn import Config
from uvicorn.server import ServerState

from launcher.proxy.fast.socket import MOST_WAITING, FastSocket
from tests.integration.proxy_peers import client_frame
from tests.waiting import until

HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
TEXT = st.one_of(st.text(max_size=40).map(str.encode), st.binary(max_size=6))  # not all of it is text
FRAME = st.one_of(
    st.builds(lambda data: client_frame(2, data), st.binary(max_size=130)),
    st.builds(lambda data: client_frame(1, data), TEXT),
    st.builds(
        lambda opcode, data, final: client_frame(opcode, data, final=final),
        st.sampled_from((0, 1, 2)),
        TEXT,
        st.booleans(),
    ),
    st.builds(lambda data: client_frame(9, data), st.binary(max_size=5)),
    st.just(client_frame(10, b"")),
    st.just(client_frame(8, b"\x03\xe8")),
    st.just(b"\x82\x0512345"),  # no mask
    st.just(b"\xc2\x80\0\0\0\0"),  # a reserved bit
)


class Line(asyncio.Transport):
    """A connection that keeps what was written."""

    def __init__(self) -> None:
        super().__init__({"socket": None, "peername": ("192.0.2.1", 5), "sockname": ("192.0.2.2", 80)})
        self.written = bytearray()
        self.is_open = self.is_read = True

    def write(self, data: Any) -> None:
        self.written += data

    def close(self) -> None:
        self.is_open = False

    def is_closing(self) -> bool:
        return not self.is_open

    def pause_reading(self) -> None:
        self.is_read = False

    def resume_reading(self) -> None:
        self.is_read = True


class Unhurried(FastSocket):
    """All messages through the parser of websockets."""

    def _take_small(self, data: bytes) -> bool:
        return False


async def opened(kind: type[FastSocket], app: Any) -> tuple[FastSocket, Line]:
    """A connection whose application has accepted it and takes nothing yet."""
    line = Line()
    config = Config(app, lifespan="off", log_config=None)
    config.load()
    server = kind(config=config, server_state=ServerState(), app_state={})
    server.connection_made(line)
    server.data_received(HANDSHAKE)
    await until(lambda: server.handshake_complete, what="the handshake's answer")
    line.written.clear()
    return server, line


async def accept(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    await asyncio.get_running_loop().create_future()


async def taken(kind: type[FastSocket], pieces: list[bytes]) -> tuple[list[Any], bytes, bool]:
    """What the application would get, what the browser is answered, and whether the connection stays open."""
    server, line = await opened(kind, accept)
    for piece in pieces:
        if line.is_open:
            server.data_received(piece)
    events = [server.queue.get_nowait() for _ in range(server.queue.qsize())]
    for task in server.tasks:
        task.cancel()
    return events, bytes(line.written), line.is_open


@settings(max_examples=150)
@given(frames=st.lists(FRAME, max_size=8), cuts=st.lists(st.integers(1, 400), max_size=12), whole=st.booleans())
def test_the_quick_way_takes_what_the_parser_takes(frames: list[bytes], cuts: list[int], whole: bool) -> None:
    pieces = frames
    if not whole:  # cut anywhere: frames in parts, and several in one piece
        data = b"".join(frames)
        places = sorted({cut for cut in cuts if cut < len(data)})
        pieces = [data[begin:end] for begin, end in zip([0, *places], [*places, len(data)], strict=True)]
    assert asyncio.run(taken(FastSocket, pieces)) == asyncio.run(taken(Unhurried, pieces))


@pytest.mark.parametrize("behind", [b"", client_frame(8, b"\x03\xe8"), client_frame(1, b"\x80"), client_frame(2, b"x")])
async def test_a_text_that_is_none_ends_the_connection_and_fills_no_log(
    caplog: pytest.LogCaptureFixture, behind: bytes
) -> None:
    server, line = await opened(FastSocket, accept)
    server.data_received(client_frame(1, b"\x80") + behind)
    assert not line.is_open
    assert server.queue.get_nowait()["type"] == "websocket.disconnect"
    assert bytes(line.written[:1]) == b"\x88"
    assert not caplog.records
    for task in server.tasks:
        task.cancel()


async def test_a_short_message_goes_past_the_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    server, _ = await opened(FastSocket, accept)
    monkeypatch.setattr(server.conn, "receive_data", lambda data: pytest.fail("it was parsed"))
    server.data_received(client_frame(2, bytes(125)))
    server.data_received(client_frame(1, "å".encode()))
    assert [server.queue.get_nowait() for _ in range(2)] == [
        {"type": "websocket.receive", "bytes": bytes(125)},
        {"type": "websocket.receive", "text": "å"},
    ]
    for task in server.tasks:
        task.cancel()


async def test_short_messages_that_nobody_takes_stop_the_browser() -> None:
    server, line = await opened(FastSocket, accept)
    for _ in range(MOST_WAITING):
        assert line.is_read
        server.data_received(client_frame(2, b"x"))
    assert not line.is_read
    for task in server.tasks:
        task.cancel()
