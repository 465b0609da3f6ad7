"""Where a chunked body ends, whatever the split."""

from __future__ import annotations

import pytest

from launcher.proxy.framing import MAX_CHUNK_LINE_BYTES, REQUEST_LINE, STATUS_LINE, BadFraming, ChunkScanner

BODY = b"4;a=b\r\nwiki\r\n00A\r\n0123456789\r\n0\r\nX-Trailer: 1\r\nConnection: close\r\n\r\n"
PASSING = b"4;a=b\r\nwiki\r\n00A\r\n0123456789\r\n0\r\n\r\n"


def feed_all(scanner: ChunkScanner, *pieces: bytes) -> None:
    """Feed them all."""
    for piece in pieces:
        scanner.feed(piece)


def test_the_end_is_found_and_trailers_are_kept_back_at_every_split() -> None:
    for at in range(1, len(BODY)):
        scanner = ChunkScanner()
        passed = b""
        for piece in (BODY[:at], BODY[at:] + b"GET / HTTP"):
            assert not scanner.is_over
            count = scanner.feed(piece)
            passed += scanner.passing(piece)
        assert scanner.is_over
        assert (count, passed) == (len(BODY) - at, PASSING)


@pytest.mark.parametrize(
    "body",
    [
        b"\r\n",
        b"+4\r\nwiki\r\n",
        b"0x4\r\nwiki\r\n",
        b"4 \r\nwiki\r\n",
        b"4\nwiki\r\n",
        b"4\rXwiki\r\n",
        b"4\r\nwiki0\r\n\r\n",
        b"4\r\nwikiXX",
        b"4;a\x00\r\nwiki\r\n",
        b"FFFFFFFFFFFFFFFFF\r\n",
        b"0\r\nno trailer\r\n\r\n",
        b"0\r\n\n",
        b"0;" + b"x" * MAX_CHUNK_LINE_BYTES,
        b"0\r\n" + b"X-Trailer: 123456789\r\n" * 1000,
    ],
)
def test_what_is_no_chunked_body_is_refused_at_every_split(body: bytes) -> None:
    for at in range(0, len(body), max(1, len(body) // 60)):
        with pytest.raises(BadFraming):
            feed_all(ChunkScanner(), body[:at], body[at:])


@pytest.mark.parametrize(
    "line", [b"GET  / HTTP/1.1", b"GET / HTTP/2.0", b"GET /#a HTTP/1.1", b"GET http://x/ HTTP/1.1"]
)
def test_a_first_line_that_could_be_read_in_two_ways_is_none(line: bytes) -> None:
    assert REQUEST_LINE.match(line + b"\r\n") is None
    assert REQUEST_LINE.match(b"GET /a?b HTTP/1.1\r\n")


def test_an_answers_first_line_may_leave_the_reason_out() -> None:
    assert STATUS_LINE.match(b"HTTP/1.1 200\r\n")
    assert STATUS_LINE.match(b"HTTP/1.0 404 Not Found\r\n")
    assert not STATUS_LINE.match(b"HTTP/1.1 999 X\r\n")
