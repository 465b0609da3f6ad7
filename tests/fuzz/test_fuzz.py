"""The short version of ``make fuzz``: corpus, a fixed seed, requests built by hypothesis, a sample over sockets."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from launcher.proxy.guard import GuardedProtocol
from tests.fuzz import server_side
from tests.fuzz.loop import MemoryLoop
from tests.fuzz.reference import End, read_requests, read_response
from tests.fuzz.run import PROTOCOLS, Disagreement, fuzz, gate_checks, try_stream
from tests.fuzz.streams import corpus
from tests.waiting import until

SEED = 20_261_123


def test_the_corpus_and_a_fixed_seed_show_no_disagreement() -> None:
    assert fuzz(seed=SEED, most_splits=100_000, seconds=8) > 60_000


def test_the_comparison_notices_a_server_that_forgives() -> None:
    forgiven = (
        b"GET  /a HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /a\r\nHost: x\r\n\r\n",
        b"GET /a HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Evil: 1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 3\r\n\r\nabc",
    )
    with MemoryLoop() as loop:
        for stream in forgiven:
            with pytest.raises(Disagreement):
                try_stream(gate_checks(stream, loop, HttpToolsProtocol), stream, random.Random(SEED))


@pytest.mark.parametrize(
    ("stream", "count", "end"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 2, 2, End.CLEAN),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nab", 0, End.PARTIAL),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 0, End.REFUSE),
        (
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nA;x\r\n0123456789\r\n0\r\n\r\n",
            1,
            End.CLEAN,
        ),
        (b"GET / HTTP/1.0\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", 1, End.CLOSED),
        (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nraw", 1, End.UPGRADED),
    ],
)
def test_the_reference_reads_as_the_rfc_says(stream: bytes, count: int, end: End) -> None:
    reading = read_requests(stream)
    assert (len(reading.messages), reading.end) == (count, end)


def test_the_reference_reads_a_body_to_the_end_of_the_connection() -> None:
    answer = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\nabc"
    assert read_response(answer, method=b"GET", at_end=True).messages[0].body == b"abc"
    assert read_response(answer, method=b"GET", at_end=False).end is End.PARTIAL
    assert read_response(answer, method=b"HEAD", at_end=True).end is End.REFUSE


_NAMES = st.sampled_from(
    [
        b"Host",
        b"Content-Length",
        b"Transfer-Encoding",
        b"Connection",
        b"Upgrade",
        b"X-A",
        b"x_b",
        b"Expect",
        b"Bad Name",
    ]
)
_VALUES = st.one_of(
    st.sampled_from([b"x", b"3", b"03", b"+3", b"3, 3", b"chunked", b"Chunked ", b"identity", b"close", b"upgrade"]),
    st.sampled_from([b"websocket", b"h2c", b"100-continue", b"", b"a\tb", b"a\r\n b"]),
    st.binary(max_size=4),
)
_FIELD = st.builds(
    lambda name, colon, value: name + colon + value, _NAMES, st.sampled_from([b": ", b":", b" :"]), _VALUES
)
_CHUNK = st.builds(
    lambda size, extension, data: size + extension + b"\r\n" + data + b"\r\n",
    st.sampled_from([b"3", b"03", b"A", b"0", b"", b"+3", b"3 "]),
    st.sampled_from([b"", b";a=b", b";", b' ; a="b"']),
    st.sampled_from([b"abc", b"0123456789", b"", b"ab", b"abcd"]),
)
_REQUEST = st.builds(
    lambda method, target, version, fields, body: b"\r\n".join(
        (method + b" " + target + b" " + version, b"Host: x", *fields, b"", b"".join(body))
    ),
    st.sampled_from([b"GET", b"POST", b"PUT", b"HEAD", b"OPTIONS", b"CONNECT", b"get", b"M-SEARCH"]),
    st.sampled_from([b"/", b"/a?b=%2F&c", b"*", b"//x", b"http://y/", b"/#f", b"/ a", b"x:1"]),
    st.sampled_from([b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/1.2"]),
    st.lists(_FIELD, max_size=3),
    st.lists(_CHUNK, max_size=3),
)


@settings(max_examples=50, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(PROTOCOLS), st.lists(_REQUEST, min_size=1, max_size=2).map(b"".join))
def test_built_requests_show_no_disagreement(protocol_class: type, stream: bytes) -> None:
    with MemoryLoop() as loop:
        try_stream(gate_checks(stream, loop, protocol_class), stream, random.Random(SEED))


@pytest.mark.parametrize("protocol_class", PROTOCOLS)
async def test_a_sample_over_real_sockets_shows_none_either(protocol_class: type[GuardedProtocol]) -> None:
    handed_on: list[bytes] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            event = await receive()
            if event["type"] == "http.disconnect":
                return
            body, more = body + event["body"], event["more_body"]
        handed_on.append(body)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    taken: list[bytes] = []

    class Counting(protocol_class):  # type: ignore[misc, valid-type]  # whichever it is
        def data_received(self, data: bytes) -> None:
            taken.append(data)
            super().data_received(data)

    config = Config(app, http=Counting, ws="websockets-sansio", lifespan="off", log_config=None)
    config.load()
    state = ServerState()
    server = await asyncio.get_running_loop().create_server(
        lambda: Counting(config=config, server_state=state, app_state={}), "127.0.0.1", 0
    )
    port = server.sockets[0].getsockname()[1]
    rng = random.Random(SEED)
    last = b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    tried = 0
    for stream in corpus("requests"):
        reading = read_requests(stream + last)
        if reading.end in (End.PARTIAL, End.UPGRADED):
            continue
        tried += 1
        handed_on.clear()
        taken.clear()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        at = rng.randrange(len(stream))
        writer.write((stream + last)[:at])
        await until(lambda cut=at: taken or not cut, "the first part to be read alone")  # type: ignore[misc]  # mypy cannot infer it
        writer.write((stream + last)[at:])
        async with asyncio.timeout(60):
            answers = await reader.read()
        writer.close()
        wanted = [message.body for message in reading.messages]
        was_refused = b"HTTP/1.1 4" in answers or b"HTTP/1.1 5" in answers
        assert handed_on == wanted or (was_refused and handed_on == wanted[: len(handed_on)]), stream
    server.close()
    assert tried > 50


def test_an_answer_inside_another_one_is_noticed() -> None:
    outcome = server_side.Outcome()
    server_side._statuses(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabcHTTP/1.1 400 Bad\r\n\r\n", outcome)
    assert outcome.problems
