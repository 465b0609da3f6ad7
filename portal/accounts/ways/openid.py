"""Signing in by OpenID Connect: the way's button, and who on the cluster the provider's claims speak of.

A claim is text from elsewhere: it becomes an account only where it, or the site's rule on the whole of it, says so, and
is written as accounts are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from portal.accounts.ways.base import Identity
from portal.conf import Conf

_ACCOUNT = re.compile(r"[a-z_][a-z0-9_.-]{0,63}")
_MOST_VALUES = 500
_MOST_LETTERS = 254


class OpenId:
    """See the module. A ``RedirectingWay``."""

    name = "openid"
    begin = "accounts:openid-begin"

    def __init__(self, conf: Conf) -> None:
        """Takes the button's words from ``conf``."""
        self._button = conf.openid_button

    @property
    def button(self) -> str | Promise:
        """See RedirectingWay."""
        return self._button or _("Sign in with your organisation")


def identity_of(conf: Conf, claims: Mapping[str, Any]) -> Identity | None:
    """Who the claims speak of, or ``None`` where they give no account on the cluster."""
    account = _account(conf, claims)
    if account is None:
        return None
    name, email = claims.get("name"), claims.get("email")
    is_verified = claims.get("email_verified") is True  # else anybody may have written it
    return Identity(
        username=account,
        groups=_texts(claims.get(conf.openid_groups_claim)),
        display_name=name if isinstance(name, str) else "",
        email=email if is_verified and isinstance(email, str) else "",
        claims={key: _texts(value) for key, value in claims.items() if key != "email" or is_verified},
    )


def _account(conf: Conf, claims: Mapping[str, Any]) -> str | None:
    said = claims.get(conf.openid_account_claim)
    if not isinstance(said, str) or len(said) > _MOST_LETTERS:
        return None
    if conf.openid_account_claim == "email" and claims.get("email_verified") is not True:
        return None
    if conf.openid_account_rule:
        fits = re.fullmatch(conf.openid_account_rule, said)
        said = (fits.group(1) or "") if fits else ""
    return said if _ACCOUNT.fullmatch(said) and said != "root" else None


def _texts(value: object) -> tuple[str, ...]:
    """The texts of a claim: one, or a list of them; nothing of any other kind."""
    many = value if isinstance(value, list) else [value]
    return tuple(each for each in many[:_MOST_VALUES] if isinstance(each, str) and 0 < len(each) <= _MOST_LETTERS)
