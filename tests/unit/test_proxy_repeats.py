"""What is kept of heads that come again: under exactly their bytes, within limits, and only what is plain."""

from __future__ import annotations

import pytest

from launcher.proxy import answers, reading, repeats
from launcher.proxy.answers import Answers
from launcher.proxy.cycle import OwnLines
from launcher.proxy.exchange import Head
from launcher.proxy.headers import Origin
from launcher.proxy.reading import Reading, Readings
from launcher.proxy.repeats import Blocks
from launcher.proxy.sites import Place

FIELDS = b"Host: x\r\nCookie: footbridge=alice\r\n\r\n"


def known() -> Blocks:
    blocks = Blocks()
    blocks.keep(FIELDS, [(b"host", b"x"), (b"cookie", b"footbridge=alice")])
    return blocks


@pytest.mark.parametrize("line", [b"GET / HTTP/1.1\r\n", b"HEAD /a?b=%2F&c HTTP/1.1\r\n"])
def test_the_same_fields_are_found_behind_another_request_line(line: bytes) -> None:
    found = known().find(line + FIELDS)
    assert found is not None
    assert found[1].fields == ((b"host", b"x"), (b"cookie", b"footbridge=alice"))


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n" + FIELDS.replace(b"alice", b"alicf"),
        b"GET / HTTP/1.1\r\n" + FIELDS.replace(b"Host", b"host"),
        b"GET / HTTP/1.1\r\n" + FIELDS + b"G",
        b"GET / HTTP/1.1\r\n" + FIELDS + b"GET / HTTP/1.1\r\n" + FIELDS,
        b"GET / HTTP/1.1\r\n" + FIELDS[:-1],
        b"\r\nGET / HTTP/1.1\r\n" + FIELDS,
        b"POST / HTTP/1.1\r\n" + FIELDS,
        b"OPTIONS * HTTP/1.1\r\n" + FIELDS,
        b"GET / HTTP/1.0\r\n" + FIELDS,
        b"GET  / HTTP/1.1\r\n" + FIELDS,
        b"GET http://y/ HTTP/1.1\r\n" + FIELDS,
        b"GET /# HTTP/1.1\r\n" + FIELDS,
        b"GET / HTTP/1.1\n" + FIELDS,
        b"GET /" + b"a" * 17_000 + b" HTTP/1.1\r\n" + FIELDS,
        FIELDS,
        b"",
    ],
)
def test_anything_else_goes_the_strict_way(data: bytes) -> None:
    assert known().find(data) is None


def test_a_connection_keeps_some_blocks_and_forgets_the_oldest() -> None:
    blocks = Blocks()
    heads = [b"Host: x\r\nX-N: %d\r\n\r\n" % number for number in range(repeats.MOST_BLOCKS + 1)]
    for head in heads:
        blocks.keep(head, [])
    kept = [blocks.find(b"GET / HTTP/1.1\r\n" + head) is not None for head in heads]
    assert kept == [False] + [True] * repeats.MOST_BLOCKS


def test_a_long_block_is_not_kept() -> None:
    blocks = Blocks()
    head = b"Host: " + b"x" * repeats.MOST_BYTES + b"\r\n\r\n"
    blocks.keep(head, [])
    assert blocks.find(b"GET / HTTP/1.1\r\n" + head) is None


@pytest.mark.parametrize(
    ("head", "is_kept"),
    [
        (Head(200, [], length=3), True),
        (Head(304, []), True),
        (Head(200, [], chunked=True), False),
        (Head(200, []), False),
    ],
)
def test_only_answers_whose_end_needs_no_parser_are_kept(head: Head, is_kept: bool) -> None:
    kept = Answers()
    kept.keep(b"head", head, stays=True)
    assert (kept.find(b"head") == (head, True)) is is_kept
    assert kept.find(b"Head") is None


def test_answers_are_kept_within_limits() -> None:
    kept = Answers()
    for number in range(answers.MOST_HEADS + 1):
        kept.keep(b"%d" % number, Head(200, [], length=3), stays=True)
    assert kept.find(b"0") is None
    assert kept.find(b"%d" % answers.MOST_HEADS) is not None
    kept.keep(b"x" * (answers.MOST_BYTES + 1), Head(200, [], length=3), stays=True)
    assert kept.find(b"x" * (answers.MOST_BYTES + 1)) is None


def test_readings_are_kept_within_limits_and_never_where_the_path_has_a_say() -> None:
    readings = Readings()
    own, shared = Place("label", Origin("http", b"h")), Place("label", Origin("http", b"h", b"/s/label/"))
    for number in range(reading.MOST_READINGS + 1):
        readings.keep((str(number), ()), Reading({}, own, "", ""))
    assert len(readings) == 1
    readings.keep(("shared", ()), Reading({}, shared, "", ""))
    readings.keep(("long", ((b"x", b"y" * reading.MOST_BYTES),)), Reading({}, own, "", ""))
    assert len(readings) == 1
    readings.clear()
    assert len(readings) == 0


def test_the_web_servers_own_lines_are_those_of_the_present_second() -> None:
    own = OwnLines()
    for second in (b"one", b"two", b"two", b"one"):
        fields = [(b"date", second), (b"server", b"x")]
        assert own.of(fields) == own.of(fields) == b"date: " + second + b"\r\nserver: x\r\n"
    assert own.of([]) == b""
