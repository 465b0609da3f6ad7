"""Why a request does not go on.

    UpstreamError         the server in the job could not be reached or did not answer properly
    ├── UpstreamRefused   no connection could be made (transient)
    ├── UpstreamSilent    no answer in time (transient)
    ├── UpstreamBroken    the answer broke off, or is no HTTP
    └── UpstreamBusy      too many requests of this session are waiting (transient)

``ClientGone`` and ``AccessEnded`` are no faults: they end what is under way. A head that must not pass is ``BadHead``
in ``headers``.
"""

from __future__ import annotations

from portal.errors import FootbridgeError


class UpstreamError(FootbridgeError):
    """The server in the job could not be reached or did not answer properly."""

    code = "upstream.error"


class UpstreamRefused(UpstreamError):
    """No connection could be made."""

    code = "upstream.refused"
    transient = True


class UpstreamSilent(UpstreamError):
    """No answer in time."""

    code = "upstream.silent"
    transient = True


class UpstreamBroken(UpstreamError):
    """The answer broke off, or is no HTTP."""

    code = "upstream.broken"


class UpstreamBusy(UpstreamError):
    """Too many requests of this session are waiting."""

    code = "upstream.busy"
    transient = True


class ClientGone(Exception):
    """The browser has left; nobody is there to answer to."""


class AccessEnded(Exception):
    """The browser may not stay: stop, revoke or sign-out."""
