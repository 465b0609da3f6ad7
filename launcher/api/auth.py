"""Who asks: somebody signed in with a browser, or a program with a personal token. One or the other, never a
mixture.

A request with an Authorization header is a program's, whatever cookies come along. A browser's unsafe request
must carry the CSRF token; a program's need not, since no other site can make a browser send that header.
"""

from __future__ import annotations

from dataclasses import dataclass

from django.http import HttpRequest
from django.utils.translation import gettext as _
from ninja.security import HttpBearer, SessionAuth

from launcher.api.answers import ApiError
from launcher.api.rate import take_turn
from portal.accounts.models import TokenScope, User
from portal.accounts.tokens import authenticate_token
from portal.addresses import address_of


@dataclass(frozen=True, slots=True)
class Caller:
    """The user behind a request, and whether this way in may change anything."""

    user: User
    may_write: bool


class TokenAuth(HttpBearer):
    """``Authorization: Bearer fbp_…``."""

    def authenticate(self, request: HttpRequest, token: str) -> Caller | None:
        """The caller, if the token may be used now. Raises TooOften."""
        address = address_of(request)
        known = authenticate_token(token.strip(), address=address)
        take_turn(f"person:{known.user.pk}" if known else f"address:{address}")
        return Caller(known.user, may_write=known.scope == TokenScope.WRITE) if known else None


class BrowserAuth(SessionAuth):
    """The portal's own session cookie. Raises the framework's 403 when the CSRF token is missing or wrong."""

    def __call__(self, request: HttpRequest) -> Caller | None:
        """The caller, if this is a browser in which somebody is signed in. Raises TooOften."""
        if "Authorization" in request.headers or not request.user.is_authenticated:
            return None
        take_turn(f"person:{request.user.pk}")
        user = super().__call__(request)
        return Caller(user, may_write=True) if isinstance(user, User) and user.is_active else None


def caller_of(request: HttpRequest) -> Caller:
    """Who asks. Only behind the API's authentication."""
    caller = getattr(request, "auth", None)
    if not isinstance(caller, Caller):
        raise TypeError("this endpoint must require authentication")
    return caller


def writer_of(request: HttpRequest) -> User:
    """Who asks for a change. Raises ApiError (403) for a token that may only read."""
    caller = caller_of(request)
    if not caller.may_write:
        raise ApiError(403, "token.read_only", _("This token may only read. Make one that may write."))
    return caller.user
