"""What changes people's records: being let in, and preferences. The only writer of users."""

from __future__ import annotations

import zoneinfo
from collections.abc import Collection
from dataclasses import dataclass

from django.conf import settings
from django.db import transaction

from portal.accounts import policy
from portal.accounts.models import User
from portal.accounts.proving import is_account_name, refused
from portal.accounts.ways.base import Proved
from portal.audit import events
from portal.audit.services import record


@dataclass(frozen=True, slots=True)
class FirstFactor:
    """Somebody who has proved the first factor, by the ``way`` named, and may enter. Not signed in yet."""

    user: User
    way: str
    has_new_role: bool = False


def admit(*, proved: Proved, address: str) -> FirstFactor:
    """Let somebody in who has proved who they are, if the site's policy does. Every way to sign in comes by here.

    Raises SignInRefused: a name that the portal acts for nobody under, the policy, a person who is disabled.
    """
    who, way = proved.identity, proved.way
    if not is_account_name(who.username):
        raise refused(who.username, address, way=way, cause="name", code="sign_in.not_allowed")
    if not policy.may_enter(settings.CONF, who):
        raise refused(who.username, address, way=way, cause="policy", code="sign_in.not_allowed")
    has_new_role = False
    with transaction.atomic():
        user, _ = User.objects.select_for_update().get_or_create(username=who.username, defaults={"password": "!"})
        if user.is_active:
            role = policy.role_of(settings.CONF, who)
            has_new_role = role != user.role
            if has_new_role:
                record(
                    events.UserRoleChanged(username=user.username, before=user.role, role=role),
                    actor=user.username,
                    address=address,
                )
            user.groups_on_cluster = list(who.groups)
            user.display_name = who.display_name or user.display_name
            user.email = user.email or who.email
            user.role = role
            user.full_clean(exclude=["password"])
            user.save()
    if not user.is_active:
        raise refused(who.username, address, way=way, cause="disabled", code="sign_in.not_allowed")
    return FirstFactor(user, way, has_new_role)


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
