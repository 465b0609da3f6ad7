"""What it costs to decide on a request when the answer is known: ``python -m tests.bench.authorise SECONDS``.

The whole door from the ASGI scope to the moment at which the request would go on to its server: the head's fields, the
address, the cookie, the cache, the origin. That it asks nobody and never gives way to another task is checked for each
request that is timed: a coroutine that would wait does not end at its first step.
"""

from __future__ import annotations

import asyncio
import gc
import json
import statistics
import sys
import time

from launcher.proxy.access import AccessCache
from launcher.proxy.access_types import Access
from launcher.proxy.app import Proxy
from launcher.proxy.dial import TCPDial
from launcher.proxy.sites import Site
from launcher.proxy.upstream import UpstreamPool
from launcher.proxy.visit import Message, Receive, Scope, Send, Visit
from portal.garbage import look_seldom
from tests.bench.client import head
from tests.bench.site import Lookup
from tests.integration.proxy_peers import CLUSTER, LABEL

AT_ONCE = 200


class Door(Proxy):
    """Decides, and lets the request go nowhere."""

    passed = 0

    async def _pass(self, visit: Visit, receive: Receive, send: Send, **_: object) -> None:
        self.passed += 1


class Asked(Lookup):
    """Counts how often the database would have been asked."""

    count = 0

    async def look_up(self, *, label: str, cookie_value: str) -> Access:
        self.count += 1
        return await super().look_up(label=label, cookie_value=cookie_value)


def scope_of(lines: bytes) -> Scope:
    """What an ASGI server makes of a request's head."""
    first, *rest = lines.decode().split("\r\n")[:-2]
    fields = [tuple(part.encode() for part in line.split(": ", 1)) for line in rest]
    method, path, _ = first.split(" ")
    found = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b""}
    return {**found, "headers": [(name.lower(), value) for name, value in fields], "client": ("127.0.0.1", 5000)}


async def _receive() -> Message:
    raise AssertionError("it waits for the browser")


async def _send(message: Message) -> None:
    raise AssertionError(f"it is refused: {message}")


async def measure(seconds: float) -> dict[str, float]:
    """The median over short batches, in µs of the clock on the wall."""
    lookup = Asked(CLUSTER, "alice", port=1)
    access, upstreams = AccessCache(lookup.look_up, clock=lambda: 0.0), UpstreamPool(TCPDial())
    site = Site(portal_url="http://localhost:8000", sessions_domain="localhost")
    door = Door(site=site, access=access, upstreams=upstreams, redeem=lookup.redeem, denied=lookup.deny)
    agent = "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
    accepts = ("Accept: */*", "Accept-Language: en", "Accept-Encoding: gzip, deflate")
    fields = (agent, *accepts, "Sec-Fetch-Site: same-origin")
    scope = scope_of(head("GET", "/api/contents?content=1", f"{LABEL}.localhost:8000", *fields))
    await door(scope, _receive, _send)
    warm = lookup.count
    gc.collect()
    took, end = [], time.perf_counter() + seconds
    while (begin := time.perf_counter()) < end:
        for _ in range(AT_ONCE):
            try:
                door(scope, _receive, _send).send(None)  # type: ignore[attr-defined]  # a coroutine, called as awaitable
            except StopIteration:
                continue
            raise AssertionError("it gives way to another task")
        took.append((time.perf_counter() - begin) / AT_ONCE * 1e6)
    if lookup.count != warm or door.passed != 1 + len(took) * AT_ONCE:
        raise AssertionError("it asks the database, or refuses")
    await door.aclose()
    return {"authorisation µs": statistics.median(took), "count": len(took) * AT_ONCE}


if __name__ == "__main__":
    look_seldom()  # as the web processes do
    sys.stdout.write(json.dumps(asyncio.run(measure(float(sys.argv[1])))))
