"""The conformance list as data: every item, and the columns (lane, transport, address) in which it is tested.

``test_table`` compares the list with the tests that were found: a test belongs to the items that its name begins with
(``test_c23_…``, ``test_b01_b04_…``). A gap that is meant has its reason here.
"""

from __future__ import annotations

import itertools
import os
import re
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Column:
    """One way through the proxy."""

    lane: str  # how bytes are carried: "portable" by ASGI events, "fast" from socket to socket
    transport: str  # "direct": TCP; "ssh": an SSH channel to a port; "socket": an SSH channel to a Unix socket
    address: str  # "host": a session's own origin; "path": below the portal's

    def __str__(self) -> str:
        return f"{self.lane}-{self.transport}-{self.address}"


LANES = ("portable", "fast")
TRANSPORTS = ("direct", "ssh", "socket")
ADDRESSES = ("host", "path")
COLUMNS = tuple(Column(*each) for each in itertools.product(LANES, TRANSPORTS, ADDRESSES))

IS_FULL = os.environ.get("CONFORMANCE") == "full"
"""All columns and the long bodies, as ``make conformance`` runs them."""

USUAL_COLUMNS = tuple(
    column
    for column in COLUMNS
    if str(column) in ("portable-direct-host", "portable-socket-path", "fast-direct-path", "fast-ssh-host")
)
"""What runs with all other tests, for the sake of time: every lane, transport and address, and both lanes at both
addresses."""


@dataclass(frozen=True, slots=True)
class Item:
    """One line of the list. ``gaps``: for a lane, transport or address, why it is not tested there."""

    text: str
    gaps: dict[str, str] = field(default_factory=dict)
    elsewhere: str = ""  # the test that shows it, where it is no matter of lanes, transports and addresses

    def gap(self, column: Column) -> str:
        """Why there is no test of this item in ``column``; empty when there must be one."""
        reasons = (self.gaps.get(part) for part in (column.lane, column.transport, column.address))
        return next((reason for reason in reasons if reason), "")


ITEMS = {
    "c01": Item("every legal byte of a path and query arrives unchanged"),
    "c02": Item("%23 in a path"),
    "c03": Item("%2F and %252F"),
    "c04": Item("@ and %40"),
    "c06": Item("?a=%2F&b=+&c"),
    "c07": Item("//a///b"),
    "c09": Item("a prefix is kept"),
    "c10": Item("a prefix without its slash redirects"),
    "c11": Item("a foreign prefix is not found"),
    "c15": Item("bad targets are never proxied and never echoed"),
    "c20": Item("all methods"),
    "c21": Item("no body, no chunked coding"),
    "c22": Item("statuses, with 204 and 304"),
    "c23": Item("gzip passes byte for byte"),
    "c25": Item("hop-by-hop fields, both ways"),
    "c26": Item("trailers do not hang"),
    "c27": Item("repeated Set-Cookie"),
    "c28": Item("Location"),
    "c29": Item("cookies stay with the session"),
    "c30": Item("claims of identity are dropped"),
    "c31": Item("our own fields are set"),
    "c34": Item("server-sent events one by one"),
    "c35": Item("connections are used again"),
    "c36": Item("HTTP/1.0"),
    "c38": Item("IPv6", {"socket": "a Unix socket has no IP address"}),
    "c39": Item("a silent server: an idle timeout, no total one"),
    "c40": Item("a refused server: 503"),
    "c42": Item("a Unix socket", {"ssh": "this transport is a port; a socket behind SSH is the transport 'socket'"}),
    "b01": Item("a long download at constant memory"),
    "b02": Item("a long upload at constant memory"),
    "b03": Item("a browser that leaves ends the server's work"),
    "b04": Item("a slow reader holds the other side back"),
    "b05": Item("Expect: 100-continue"),
    "b06": Item("Range"),
    "b07": Item("HEAD"),
    "c50": Item("text, binary, empty, fragmented messages"),
    "c51": Item("a message of 20 MB"),
    "c52": Item("subprotocols"),
    "c54": Item("not allowed: 403 to the handshake"),
    "c55": Item("an HTTP answer to a handshake"),
    "c56": Item("the server closes before the upgrade"),
    "c57": Item("Set-Cookie on 101"),
    "c58": Item("an upgrade to something else is dropped"),
    "c60": Item("after a burst nothing is left"),
    "c61": Item("close code and reason, both ways"),
    "w01": Item("a slow reader of messages holds the other side back"),
    "w02": Item("ping and pong"),
    "w03": Item("half a connection closed"),
    "c70": Item(
        "errors are not activity",
        elsewhere="tests/integration/test_idle.py::test_no_hostile_server_changes_anything",
    ),
    "c73": Item("addresses survive a restart"),
    "r01": Item("a revocation closes open WebSockets within two seconds"),
    "r02": Item("a revocation cuts off what is being carried"),
    "r03": Item("a revocation whose news was lost"),
}

_NAMED = re.compile(r"test((?:_[cbwr]\d\d)+)_")


def items_of(test_name: str) -> list[str]:
    """The items that a test is about, by its name."""
    found = _NAMED.match(test_name)
    return found[1].lstrip("_").split("_") if found else []
