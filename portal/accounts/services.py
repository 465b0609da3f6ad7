"""What changes people's records: being let in, and preferences. The only writer of users."""

from __future__ import annotations

import zoneinfo
from collections.abc import Collection
from dataclasses import dataclass

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import IntegrityError, transaction

from portal.accounts import policy
from portal.accounts.models import User
from portal.accounts.proving import is_account_name, refused
from portal.accounts.ways.base import Proved
from portal.audit import events
from portal.audit.services import record

_LONGEST_ADDRESS = 254


@dataclass(frozen=True, slots=True)
class FirstFactor:
    """Somebody who has proved the first factor, by the ``way`` named, and may enter. Not signed in yet."""

    user: User
    way: str
    is_fresh: bool  # as of ``Proved``
    has_new_role: bool = False


def admit(*, proved: Proved, address: str) -> FirstFactor:
    """Let somebody in who has proved who they are, if the site's policy does. Every way to sign in comes by here.

    Raises SignInRefused: a name that the portal acts for nobody under, or that somebody has in other letters, the
    policy, a person who is disabled.
    """
    who, way = proved.identity, proved.way
    if not is_account_name(who.username):
        raise refused(who.username, address, way=way, cause="name", code="sign_in.not_allowed")
    if not policy.may_enter(settings.CONF, who):
        raise refused(who.username, address, way=way, cause="policy", code="sign_in.not_allowed")
    try:
        User.objects.get_or_create(username=who.username, defaults={"password": "!"})
    except IntegrityError as error:  # a way that ignores case, or an account whose shell spells its name as it likes
        raise refused(who.username, address, way=way, cause="other_spelling", code="sign_in.not_allowed") from error
    has_new_role = False
    with transaction.atomic():
        user = User.objects.select_for_update(no_key=True).get(username=who.username)
        if user.is_active:
            role = policy.role_of(settings.CONF, who)
            has_new_role = role != user.role
            if has_new_role:
                record(
                    events.UserRoleChanged(username=user.username, before=user.role, role=role),
                    actor=user.username,
                    address=address,
                )
            user.groups_on_cluster = [group for group in who.groups if group.isprintable()]
            user.display_name = _printable(who.display_name)[:200] or user.display_name
            user.email = user.email or _address_or_nothing(who.email)
            user.role = role
            user.full_clean(exclude=["password"])
            user.save()
    if not user.is_active:
        raise refused(who.username, address, way=way, cause="disabled", code="sign_in.not_allowed")
    return FirstFactor(user, way, proved.is_fresh, has_new_role)


def _printable(text: str) -> str:
    """Without what a page or a database cannot take: what others keep of a person may be of any age and encoding."""
    return "".join(character for character in text if character.isprintable()).strip()


def _address_or_nothing(text: str) -> str:
    try:
        validate_email(text)
    except ValidationError:
        return ""
    return text if len(text) <= _LONGEST_ADDRESS else ""


def record_signed_in(*, user: User, way: str, address: str) -> None:
    """Keep that ``user`` is signed in, all steps of it done."""
    with transaction.atomic():
        record(events.UserSignedIn(way=way), actor=user.username, address=address)


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
