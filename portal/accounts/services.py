"""What changes people's records: signing in and preferences. The only writer of users."""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Collection
from dataclasses import dataclass

from django.conf import settings
from django.db import transaction

from launcher.keyring import record_host_key_rejected
from launcher.parts import sign_in_cluster
from launcher.ssh.errors import HostKeyChanged
from portal.accounts import policy, throttle
from portal.accounts.models import User
from portal.accounts.ways import WAYS, Identity
from portal.audit import events
from portal.audit.services import record
from portal.errors import FootbridgeError

_USERNAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")

_AFTER_A_RIGHT_PASSWORD = {
    "ssh.password_expired": "sign_in.password_expired",
    "ssh.no_shell": "sign_in.no_shell",
}


class SignInRefused(FootbridgeError):
    """Somebody could not sign in. ``code`` says why, in terms that do not tell whether the account exists."""

    code = "sign_in.refused"


@dataclass(frozen=True, slots=True)
class FirstFactor:
    """Somebody who has proved the first factor, by the ``way`` named. Not signed in yet."""

    user: User
    way: str
    has_new_role: bool = False


def sign_in(*, username: str, password: str, address: str) -> FirstFactor:
    """Whose password this is. Raises SignInRefused, with the attempt audited unless there are too many."""
    way, identity = _proved(username, password, address)
    if not policy.may_sign_in(settings.CONF, identity.groups):
        raise _refused(username, address, way=way, cause="policy", code="sign_in.not_allowed")
    has_new_role = False
    with transaction.atomic():
        user, _ = User.objects.select_for_update().get_or_create(username=identity.username, defaults={"password": "!"})
        if user.is_active:
            role = policy.role_of(settings.CONF, user.username, identity.groups)
            has_new_role = role != user.role
            if has_new_role:
                record(
                    events.UserRoleChanged(username=user.username, before=user.role, role=role),
                    actor=user.username,
                    address=address,
                )
            user.groups_on_cluster = list(identity.groups)
            user.display_name = identity.display_name or user.display_name
            user.role = role
            user.full_clean(exclude=["password"])
            user.save()
    if not user.is_active:
        raise _refused(username, address, way=way, cause="disabled", code="sign_in.not_allowed")
    return FirstFactor(user, way, has_new_role)


def record_signed_in(*, user: User, way: str, address: str) -> None:
    """Keep that ``user`` is signed in, all steps of it done."""
    with transaction.atomic():
        record(events.UserSignedIn(way=way), actor=user.username, address=address)


def confirm_password(*, user: User, password: str, address: str) -> None:
    """Somebody signed in proves again who they are, by the same ways. Raises SignInRefused."""
    way, identity = _proved(user.username, password, address)
    if identity.username != user.username:
        raise _refused(user.username, address, way=way, cause="other_account", code="sign_in.wrong")
    record_confirmed(user=user, way=way, address=address)


def record_confirmed(*, user: User, way: str, address: str) -> None:
    """Keep that ``user`` has proved again who they are."""
    with transaction.atomic():
        record(events.UserConfirmed(way=way), actor=user.username, address=address)


def _proved(username: str, password: str, address: str) -> tuple[str, Identity]:
    """The way that knows this password, and whose it says it is. Raises SignInRefused."""
    username = username.strip()
    if not username or not password:
        raise SignInRefused(code="sign_in.empty")
    turn = throttle.take_attempt(username, address, settings.CONF.sign_in_attempts)
    if not turn.granted:
        if turn.is_first_refusal:
            raise _refused(username, address, way="", cause="throttled", code="sign_in.throttled")
        raise SignInRefused(code="sign_in.throttled")
    if not _USERNAME.fullmatch(username):
        raise _refused(username, address, way="", cause="name", code="sign_in.wrong")
    way, identity = _identify(username, password, address)
    throttle.forget_attempts(username, address)
    return way, identity


def _identify(username: str, password: str, address: str) -> tuple[str, Identity]:
    unknown: FootbridgeError | None = None
    for name in settings.CONF.auth:
        try:
            identity = WAYS[name](settings.CONF).check(username, password)
        except FootbridgeError as error:
            unknown = error
            if isinstance(error, HostKeyChanged):
                record_host_key_rejected(sign_in_cluster().id, error)
            continue
        if identity is not None:
            return name, identity
    if unknown is not None:
        code = _AFTER_A_RIGHT_PASSWORD.get(unknown.code, "sign_in.cluster_away")
        raise _refused(username, address, way="", cause=unknown.code, code=code) from unknown
    raise _refused(username, address, way="", cause="password", code="sign_in.wrong")


def _refused(username: str, address: str, *, way: str, cause: str, code: str) -> SignInRefused:
    with transaction.atomic():
        record(events.UserSignInRefused(way=way, cause=cause), actor=username[:64], address=address)
    return SignInRefused(code=code)


def set_notices(*, user: User, email: str, mail_notices: bool, warn_minutes: Collection[int]) -> None:
    """Keep where mail goes (empty: nowhere), whether it is wanted, and when to warn of an end (minutes; empty: never).

    Raises ValidationError for an address that is none.
    """
    user.email, user.mail_notices = email, mail_notices
    user.warn_minutes = sorted(set(warn_minutes), reverse=True)
    user.full_clean(exclude=["password"])
    user.save(update_fields=["email", "mail_notices", "warn_minutes"])


def set_preferences(*, user: User, language: str, time_zone: str) -> None:
    """Keep the language (empty: the browser's) and the time zone (empty: the browser's)."""
    user.language = language if language in dict(settings.LANGUAGES) else ""
    user.time_zone = time_zone if time_zone in zoneinfo.available_timezones() else ""
    user.save(update_fields=["language", "time_zone"])
