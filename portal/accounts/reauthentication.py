"""Asks again who somebody is before they administer: a web session may lie open on a desk.

The unit of truth is one time in the web session: when its person proved last who they are. A view that wants a fresh
proof calls ``require`` after it has checked the right; the middleware turns the interruption into the page that asks.
Nothing that was sent is kept or repeated: the person is told to press again.
"""

from __future__ import annotations

from django.conf import settings
from django.contrib.sessions.backends.base import SessionBase
from django.http import HttpRequest

from portal.clock import now
from portal.errors import FootbridgeError

KEY = "proved_at"
"""Where the web session keeps the time, in seconds since 1970."""


class AskAgain(FootbridgeError):
    """The proof is too old for what was asked. Not an error: the page asks, and leads back."""

    code = "confirm.wanted"


def note_proof(session: SessionBase) -> None:
    """This session's person has just proved who they are."""
    session[KEY] = now().timestamp()


def forget_proof(session: SessionBase) -> None:
    """Ask at the next occasion."""
    session.pop(KEY, None)


def is_recent(session: SessionBase) -> bool:
    """Whether the last proof is fresh enough."""
    at = session.get(KEY)
    minutes = settings.CONF.minutes_before_asking_again
    return isinstance(at, float) and 0 <= now().timestamp() - at <= 60 * minutes


def require(request: HttpRequest) -> None:
    """Raises AskAgain unless the proof is fresh. Not for programs: a personal token has no page to be asked on."""
    if not is_recent(request.session):
        raise AskAgain
