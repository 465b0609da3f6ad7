"""What is known about one browser at one session's address. Pure values: the selectors make them, the proxy obeys.

A selector looks a (label, cookie) pair up and answers with an ``Access``. The proxy decides nothing by itself: it lets
through what is ``OPEN`` and shows a page for everything else.
"""

from __future__ import annotations

import datetime as dt
import enum
from dataclasses import dataclass, field
from typing import Literal

from launcher.clusters import Cluster


class Verdict(enum.StrEnum):
    """What a request to a session's own address may do. The first three are for somebody who is entitled."""

    OPEN = "open"  # go through to ``Access.target``
    NOT_READY = "not_ready"  # the session lives, its server does not answer yet
    ENDED = "ended"  # the session is over
    SIGN_IN = "sign_in"  # the address exists; the cookie is missing, expired or revoked
    FORBIDDEN = "forbidden"  # the cookie is somebody's, and that person may not come here (any more)
    UNKNOWN = "unknown"  # no session has this address


@dataclass(frozen=True, slots=True)
class Target:
    """Where the server inside a job listens, and how to reach it. Everything comes from the database."""

    cluster: Cluster
    username: str  # the account to connect as
    host: str  # the execution host, an IP address, or the absolute path of a Unix socket
    port: int
    base_url: str  # begins and ends with "/"
    flavor: Literal["identity", "token"]  # how the server takes the secret
    secret: str = field(repr=False)
    socket: str = ""  # the Unix socket on the execution host, where it listens on one; the port is 0 then


@dataclass(frozen=True, slots=True)
class Access:
    """The answer for one (label, cookie) pair. Empty fields are unknown, or none of the visitor's business."""

    verdict: Verdict
    session_id: str = ""
    username: str = ""
    user_id: int | None = None
    state: str = ""  # a SessionState
    target: Target | None = None  # set when the verdict is OPEN
    end_code: str = ""  # why the session ended; for the page about the end
    cause: str = ""  # why the verdict is SIGN_IN: no_cookie, unknown_cookie, expired, signed_out or visit_over
    expires_at: dt.datetime | None = None  # when the cookie's grant runs out
