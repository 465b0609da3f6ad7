"""Proving who one is with a password, by the ways that the site uses, and the refusal that every way ends in.

A wrong password, an unknown account and a name that no account can have read the same.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence

import structlog
from django.conf import settings
from django.db import transaction

from launcher.parts import clusters
from portal.accounts import quoting, throttle, waiting
from portal.accounts.models import User
from portal.accounts.ways import password_ways
from portal.accounts.ways.base import MoreAsked, PasswordWay, Proved, Superuser
from portal.accounts.ways.cluster import ClusterPassword
from portal.audit import events
from portal.audit.services import record
from portal.errors import FootbridgeError

log = structlog.get_logger(__name__)

_USERNAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")

CONNECTING = "connect"
"""In the audit log, the way of an attempt that was made to connect an account, not to sign in."""

AFTER_A_RIGHT_PASSWORD = {
    "ssh.password_expired": "sign_in.password_expired",
    "ssh.no_shell": "sign_in.no_shell",
    "ssh.other_spelling": "sign_in.other_spelling",
    "pam.password_expired": "sign_in.password_expired",
    "pam.closed": "sign_in.closed",
    "sign_in.superuser": "sign_in.superuser",
}
"""What a way may say of an account whose password is right, and what the person is told."""

HANDED_OVER = frozenset({"ssh.interrupted", "ldap.interrupted", "pam.interrupted"})
"""A way was told the password, and what it made of it is not known: a try all the same."""

UNTOLD = {"ssh.host_key_changed": "sign_in.host_key_changed"}
"""Why a password was not handed over, where it is more than that nobody answers."""


class SignInRefused(FootbridgeError):
    """Somebody could not sign in. ``code`` says why, in terms that do not tell whether the account exists."""

    code = "sign_in.refused"


class _Guessed(FootbridgeError):
    """Nobody can tell, and one way said no or was told the password: this was a guess, and counts as one."""


def is_account_name(name: str) -> bool:
    """Whether an account of an ordinary person can be called so. Never true of root, nor of an option of a command."""
    return bool(_USERNAME.fullmatch(name)) and name.casefold() != "root"


def refused(username: str, address: str, *, way: str, cause: str, code: str) -> SignInRefused:
    """The refusal to raise, kept in the audit log: ``cause`` says there what ``code`` does not tell the person."""
    with transaction.atomic():
        record(events.UserSignInRefused(way=way, cause=cause), actor=username[:64], address=address)
    return SignInRefused(code=code, params={"username": username[:64]})


class AnswersWanted(FootbridgeError):
    """The cluster asks for more; ``key`` finds what waits (``portal.accounts.waiting``)."""

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key = key


def prove_password(
    *,
    username: str,
    password: str,
    address: str,
    target: str | None = None,
    connects: waiting.Connects | None = None,
) -> Proved:
    """Whose password this is. Raises SignInRefused, with the attempt audited unless there are too many.

    Where the cluster asks for more and there is a ``target``, an address to go to afterwards, raises AnswersWanted.
    ``connects``: that cluster alone judges, whatever the ways to sign in are; nobody is signed in by it.
    """
    way = CONNECTING if connects else ""
    username = username.strip()
    if not username or not password:
        raise SignInRefused(code="sign_in.empty")
    try:
        attempt = throttle.take_sign_in(username, address, settings.CONF.sign_in_attempts)
    except throttle.ThrottleAway as error:
        raise SignInRefused(error.detail, code=error.code) from error
    if not attempt.granted:
        if attempt.is_first_refusal:
            raise refused(username, address, way=way, cause="throttled", code="sign_in.throttled")
        raise SignInRefused(code="sign_in.throttled")
    if not is_account_name(username):
        raise refused(username, address, way=way, cause="name", code="sign_in.wrong")
    ways = _ways(connects)
    try:
        proved = _first_that_knows(ways, username, password)
    except MoreAsked as more:
        if target is None:
            more.waiting.give_up()
            raise refused(username, address, way=way, cause="asks_more", code=more.code) from None
        held = waiting.Held(more.waiting, way or "cluster", username, attempt, target, connects)
        raise AnswersWanted(waiting.keep(held)) from None
    except FootbridgeError as error:
        code = AFTER_A_RIGHT_PASSWORD.get(error.code)
        if code is None and not isinstance(error, _Guessed):
            attempt.give_back()  # nobody was told the password
        code = code or UNTOLD.get(error.code, "sign_in.cluster_away")
        raise refused(username, address, way=way, cause=error.code, code=code) from error
    if proved is None:
        raise refused(username, address, way=way, cause="password", code="sign_in.wrong")
    attempt.was_right()
    return proved


def _ways(connects: waiting.Connects | None) -> list[PasswordWay]:
    if connects is None:
        return password_ways(settings.CONF)
    return [ClusterPassword(settings.CONF, connects_to=clusters()[connects.cluster_id])]


def answer(
    *, key: str, answers: Sequence[str], address: str, connects: waiting.Connects | None = None
) -> tuple[Proved, str]:
    """Go on with what waits under ``key`` for this purpose: who it is, and where they wanted to go.

    Raises SignInRefused, and AnswersWanted where the cluster asks on.
    """
    held = waiting.take(key, connects)
    if held is None:
        raise SignInRefused(code="sign_in.begin_again")
    try:
        identity = held.waiting.answer(answers)
    except MoreAsked as more:
        raise AnswersWanted(waiting.keep(dataclasses.replace(held, waiting=more.waiting))) from None
    except FootbridgeError as error:
        _log_not_judged(held.way, error, *answers)
        code = AFTER_A_RIGHT_PASSWORD.get(error.code, "sign_in.begin_again")
        raise refused(held.username, address, way=held.way, cause=error.code, code=code) from error
    if identity is None:
        raise refused(held.username, address, way=held.way, cause="answer", code="sign_in.wrong_answer")
    held.attempt.was_right()
    return Proved(held.way, identity), held.target


def confirm_password(*, user: User, password: str, address: str) -> None:
    """Somebody signed in proves again who they are, by the same ways. Raises SignInRefused."""
    proved = prove_password(username=user.username, password=password, address=address)
    confirm(user=user, proved=proved, address=address)


def confirm(*, user: User, proved: Proved, address: str) -> None:
    """Keep that ``user`` has proved again who they are, by any way. Raises SignInRefused if it was somebody else."""
    if proved.identity.username != user.username:
        raise refused(user.username, address, way=proved.way, cause="other_account", code="sign_in.wrong")
    record_confirmed(user=user, way=proved.way, address=address)


def record_confirmed(*, user: User, way: str, address: str) -> None:
    """Keep that ``user`` has proved again who they are."""
    with transaction.atomic():
        record(events.UserConfirmed(way=way), actor=user.username, address=address)


def _first_that_knows(ways: Iterable[PasswordWay], username: str, password: str) -> Proved | None:
    """Ask each in turn. A way that cannot tell stops nobody whom a later one knows; else its error is raised.

    Superuser stops at once.
    """
    unknown: FootbridgeError | None = None
    was_told = False
    for way in ways:
        try:
            identity = way.check(username, password)
        except MoreAsked:
            raise
        except FootbridgeError as error:
            _log_not_judged(way.name, error, password)
            if isinstance(error, Superuser):
                raise
            unknown = error
            was_told = was_told or error.code in HANDED_OVER
            continue
        if identity is not None:
            return Proved(way.name, identity)
        was_told = True
    if unknown is not None and was_told:
        raise _Guessed(unknown.detail, code=unknown.code) from unknown
    if unknown is not None:
        raise unknown
    return None


def _log_not_judged(way: str, error: FootbridgeError, *typed: str) -> None:
    """Keep for the administrators what the other side said; the audit log has no more than the code."""
    log.warning("sign_in_not_judged", way=way, code=error.code, words=quoting.quoted(error.detail, without=typed))
