"""Our own side as a site runs it: the real Proxy behind the real web server, with a look-up that knows one visitor.

Used by name: ``uvicorn --factory tests.bench.site:make``. The environment says the rest: BENCH_PORT (its own),
BENCH_ORIGIN (the upstream's port), BENCH_LANE (fast or portable), BENCH_SOCKETS (how many WebSockets may
be open at a time, if not as many as usual), and for the way through SSH BENCH_SSH, a file of JSON with the cluster of
sshd, the user and the folder of the CA.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

from launcher.clusters import Cluster
from launcher.proxy.access import AccessCache
from launcher.proxy.access_types import Access, Target, Verdict
from launcher.proxy.app import Proxy
from launcher.proxy.dial import SSHDial, TCPDial
from launcher.proxy.limits import Ceilings
from launcher.proxy.sites import Site
from launcher.proxy.upstream import Dial, Limits, UpstreamPool
from launcher.ssh.ca import load_user_ca
from launcher.ssh.pool import Pool
from portal.garbage import look_seldom
from tests.bench.client import COOKIE, SECRET
from tests.integration.proxy_peers import CLUSTER, LABEL
from tests.integration.ssh_server import credential


class Lookup:
    """One visitor with one session; the same answer as from the database, once."""

    def __init__(self, cluster: Cluster, username: str, port: int) -> None:
        target = Target(
            cluster=cluster,
            username=username,
            host="127.0.0.1",
            port=port,
            base_url="/",
            flavor="identity",
            secret=SECRET,
        )
        self.access = Access(
            Verdict.OPEN, session_id="session-1", username=username, user_id=1, state="ready", target=target
        )

    async def look_up(self, *, label: str, cookie_value: str) -> Access:
        """Who may pass."""
        is_known = label == LABEL and cookie_value == COOKIE
        return self.access if is_known else Access(Verdict.UNKNOWN)

    async def redeem(self, *, label: str, code: str, nonce: str) -> None:
        """No codes here."""

    async def deny(self, **what: str) -> None:
        """Nothing is audited here."""


def make() -> Proxy:
    """The application that the environment describes."""
    cluster, username = CLUSTER, "alice"
    dial: Dial = TCPDial()
    if path := os.environ.get("BENCH_SSH"):
        told = json.loads(Path(path).read_text())
        username = told["username"]
        cluster = Cluster.model_validate(told["cluster"])
        ca = load_user_ca(Path(told["ca"]))
        dial = SSHDial(Pool(lambda cluster: credential(ca)))
    lookup = Lookup(cluster, username, int(os.environ["BENCH_ORIGIN"]))
    limits, ceilings = Limits(), Ceilings()
    if sockets := int(os.environ.get("BENCH_SOCKETS", "0")):
        limits = replace(limits, sockets=sockets)
        ceilings = replace(ceilings, sockets_per_session=sockets, sockets_per_person=sockets)
    look_seldom()
    return Proxy(
        site=Site(portal_url=f"http://localhost:{os.environ['BENCH_PORT']}", sessions_domain="localhost"),
        access=AccessCache(lookup.look_up),
        upstreams=UpstreamPool(dial, limits=limits),
        redeem=lookup.redeem,
        denied=lookup.deny,
        ceilings=ceilings,
        uses_fast_lane=os.environ.get("BENCH_LANE", "fast") == "fast",
    )
