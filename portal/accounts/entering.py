"""From the right first factor to being signed in: is a second step wanted, and then the web session itself.

Every way to sign in ends here. Until the second step is made the browser is nobody; its web session only remembers, for
ten minutes, who may make it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.contrib.auth import login
from django.http import HttpRequest

from launcher import dispatch
from portal.accounts import factors, passkeys, reauthentication, services, web_sessions
from portal.accounts.models import User
from portal.addresses import address_of
from portal.clock import now

_BACKEND = "portal.accounts.backends.PortalBackend"
_PENDING = "second_step"
_PASSKEY_STATE = "passkey_state"
_WAY = "way"
PENDING_SECONDS = 600


@dataclass(frozen=True, slots=True)
class Pending:
    """Somebody whose first factor was right: by which way, and where they wanted to go."""

    user: User
    way: str
    target: str


def wants_second_step(request: HttpRequest, first: services.FirstFactor, *, target: str) -> bool:
    """The first factor was right just now: signs in at once unless a second step is due before."""
    user, way = first.user, first.way
    if first.has_new_role:
        dispatch.drop_access(user_id=user.pk)  # what is open may be more than the role allows now
    if not factors.has_any(user):
        _enter(request, user, way=way, is_fresh=first.is_fresh)
        return False
    request.session.flush()  # nobody else's half of a sign-in goes on in this one
    request.session[_PENDING] = {"user": user.pk, "way": way, "target": target, "at": now().timestamp()}
    return True


def pending(request: HttpRequest) -> Pending | None:
    """Whose second step this browser waits for."""
    value: dict[str, Any] = request.session.get(_PENDING) or {}
    if not 0 <= now().timestamp() - value.get("at", 0) <= PENDING_SECONDS:
        return None
    user = User.objects.filter(pk=value["user"], is_active=True).first()
    return Pending(user, value["way"], value["target"]) if user is not None else None


def second_step(request: HttpRequest, waiting: Pending, *, code: str, passkey: str) -> None:
    """Make the second step and sign in. Raises FactorRefused."""
    kind = prove(request, waiting.user, code=code, passkey=passkey)
    del request.session[_PENDING]
    _enter(request, waiting.user, way=f"{waiting.way}+{kind}", is_fresh=True)


def prove(request: HttpRequest, user: User, *, code: str, passkey: str) -> str:
    """The kind of second step that ``user`` made. Raises FactorRefused. A passkey's challenge counts once."""
    state = request.session.pop(_PASSKEY_STATE, None)
    proof = factors.Proof(code=code, passkey=passkey, passkey_state=state)
    return factors.prove(user=user, proof=proof, address=address_of(request))


def way_of(request: HttpRequest) -> str:
    """The way by which this browser was signed in, without the second step; empty where it is not known."""
    return str(request.session.get(_WAY, "")).partition("+")[0]


def passkey_question(request: HttpRequest, user: User) -> str:
    """What the browser is to be asked for one of the passkeys of ``user``; empty where there is none."""
    known = factors.public_halves(factors.known_passkeys(user))
    if not known:
        return ""
    question = passkeys.ask_to_use(known)
    request.session[_PASSKEY_STATE] = question.state
    return question.options


def _enter(request: HttpRequest, user: User, *, way: str, is_fresh: bool) -> None:
    login(request, user, backend=_BACKEND)
    web_sessions.begin(
        session=request.session,
        user=user,
        user_agent=request.headers.get("User-Agent", ""),
        address=address_of(request),
    )
    request.session[_WAY] = way
    if is_fresh:
        reauthentication.note_proof(request.session)
    else:  # the provider remembered them; who sits there now has proved nothing
        reauthentication.forget_proof(request.session)
    services.record_signed_in(user=user, way=way, address=address_of(request))
