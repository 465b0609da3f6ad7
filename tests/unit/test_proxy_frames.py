"""Frames, however they are split, are the same events; and what is against RFC 6455 ends with its close code."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame
from websockets.streams import StreamReader

from launcher.proxy.frames import (
    BINARY,
    CLOSE,
    PING,
    TEXT,
    Event,
    FrameError,
    FrameReader,
    close_payload,
    frame,
    read_close,
    server_head,
)


def unmasked(opcode: int, data: bytes, *, final: bool = True) -> bytes:
    """A frame as a server writes it."""
    first = bytes([opcode | (0x80 if final else 0)])
    if len(data) < 126:
        return first + bytes([len(data)]) + data
    if len(data) < 65536:
        return first + b"\x7e" + len(data).to_bytes(2, "big") + data
    return first + b"\x7f" + len(data).to_bytes(8, "big") + data


messages = st.lists(
    st.tuples(st.sampled_from([TEXT, BINARY, PING]), st.binary(max_size=300), st.integers(1, 4)), max_size=6
)


@given(messages, st.lists(st.integers(1, 40), max_size=60))
def test_every_split_of_the_bytes_gives_the_same_events(sent: list[tuple[int, bytes, int]], sizes: list[int]) -> None:
    expected, raw = [], b""
    for opcode, data, pieces in sent:
        data = data[:125] if opcode == PING else data
        expected.append(Event(opcode, data))
        if opcode == PING or pieces == 1:
            raw += unmasked(opcode, data)
            continue
        step = len(data) // pieces + 1
        parts = [data[at : at + step] for at in range(0, step * pieces, step)]
        for number, part in enumerate(parts):
            raw += unmasked(opcode if number == 0 else 0, part, final=number == len(parts) - 1)
    reader, got, position = FrameReader(max_bytes=10_000), [], 0
    for size in [*sizes, len(raw)]:
        got += reader.feed(raw[position : position + size])
        position += size
    assert got == expected


@given(st.binary(max_size=200))
def test_arbitrary_bytes_give_events_or_a_frame_error(data: bytes) -> None:
    reader = FrameReader(max_bytes=1000)
    code, events = 0, []
    try:
        events = reader.feed(data)
    except FrameError as error:
        code = error.code
    assert code in (0, 1002, 1009)
    assert sum(len(event.data) for event in events) <= len(data)


def test_a_message_over_the_limit_is_refused_before_it_is_here() -> None:
    with pytest.raises(FrameError) as caught:
        FrameReader(max_bytes=1000).feed(unmasked(BINARY, b"x" * 1001)[:4])
    assert caught.value.code == 1009


def test_fragments_without_end_are_refused_even_when_they_are_empty() -> None:
    reader = FrameReader(max_bytes=1000)
    reader.feed(unmasked(BINARY, b"", final=False))
    with pytest.raises(FrameError):
        reader.feed(unmasked(0, b"", final=False) * 1000)


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
def test_our_frames_are_masked_and_of_the_shortest_form(size: int) -> None:
    data = b"\xa5" * size
    raw = frame(BINARY, data)
    assert raw[0] == 0x80 | BINARY
    head = 2 if size < 126 else 4 if size < 65536 else 10
    assert raw[1] & 0x80
    mask, body = raw[head : head + 4], raw[head + 4 :]
    assert bytes(byte ^ mask[at % 4] for at, byte in enumerate(body)) == data


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1000, "done"), (4999, "你好"), (3000, "x" * 123)])
def test_a_close_code_and_its_reason_survive(code: int, reason: str) -> None:
    assert read_close(close_payload(code, reason)) == (code, reason)


def test_a_long_reason_is_cut_between_characters() -> None:
    payload = close_payload(1000, "你" * 100)
    assert len(payload) <= 125
    assert read_close(payload) == (1000, "你" * 41)


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535])
def test_a_close_code_that_may_not_travel_is_refused(code: int) -> None:
    with pytest.raises(FrameError):
        read_close(code.to_bytes(2, "big"))


def test_half_a_code_and_a_reason_that_is_no_text_are_refused() -> None:
    for payload, code in ((b"\x03", 1002), (b"\x03\xe8\xff", 1007)):
        with pytest.raises(FrameError) as caught:
            read_close(payload)
        assert caught.value.code == code


def test_no_code_is_an_empty_payload() -> None:
    assert close_payload(1005) == b""
    assert read_close(b"") == (1005, "")


def test_a_close_frame_is_an_event() -> None:
    assert FrameReader(max_bytes=10).feed(unmasked(CLOSE, b"\x03\xe8")) == [Event(CLOSE, b"\x03\xe8")]


@pytest.mark.parametrize("length", [0, 1, 125, 126, 65535, 65536, 200_000])
def test_a_head_towards_a_browser_is_what_a_server_writes(length: int) -> None:
    assert server_head(TEXT, length) + bytes(length) == unmasked(TEXT, bytes(length))


@pytest.mark.parametrize("length", [0, 1, 125, 126, 65535, 65536])
def test_a_frame_towards_a_server_is_read_by_another_implementation(length: int) -> None:
    data = bytes(range(256)) * (length // 256 + 1)
    reader = StreamReader()
    reader.feed_data(frame(BINARY, data[:length]))
    parsing = Frame.parse(reader.read_exact, mask=True)
    with pytest.raises(StopIteration) as done:
        next(parsing)
    assert (done.value.value.opcode, bytes(done.value.value.data)) == (BINARY, data[:length])


def test_masks_do_not_come_again() -> None:
    masks = [frame(TEXT, b"")[2:6] for _ in range(5000)]
    assert len(set(masks)) > 4990
