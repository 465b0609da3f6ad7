"""The site's policy: who may enter and who is what. A site with other rules changes settings, or this one module.

Each rule names people by account, by group or by claim; a claim is ``name=value``, as an OpenID provider or a directory
says it of them.
"""

from __future__ import annotations

from collections.abc import Collection

from portal.accounts.models import Role
from portal.accounts.ways.base import Identity
from portal.conf import Conf


def may_enter(conf: Conf, who: Identity) -> bool:
    """Whether this person is let in. Without a rule everybody is whom a way to sign in knows."""
    if not (conf.allowed_users or conf.allowed_groups or conf.allowed_claims):
        return True
    return _fits(who, conf.allowed_users, conf.allowed_groups, conf.allowed_claims)


def role_of(conf: Conf, who: Identity) -> Role:
    """The role that the settings give this person; the stronger one where two fit."""
    if _fits(who, conf.administrators, conf.administrator_groups, conf.administrator_claims):
        return Role.ADMINISTRATOR
    if _fits(who, conf.auditors, conf.auditor_groups, conf.auditor_claims):
        return Role.AUDITOR
    return Role.USER


def _fits(who: Identity, users: Collection[str], groups: Collection[str], claims: Collection[str]) -> bool:
    said = {f"{name}={value}" for name, values in who.claims.items() for value in values}
    return who.username in users or not said.isdisjoint(claims) or not set(groups).isdisjoint(who.groups)
