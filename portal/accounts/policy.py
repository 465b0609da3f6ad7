"""The site's policy: who may enter and who is what. A site with other rules changes settings, or this one module."""

from __future__ import annotations

from collections.abc import Collection

from portal.accounts.models import Role
from portal.conf import Conf


def may_sign_in(conf: Conf, groups: Collection[str]) -> bool:
    """Whether an account with these groups on the cluster is let in."""
    return not conf.allowed_groups or bool(set(conf.allowed_groups) & set(groups))


def role_of(conf: Conf, username: str, groups: Collection[str]) -> Role:
    """The role that the settings give this account; the stronger one where two fit."""
    if username in conf.administrators or set(conf.administrator_groups) & set(groups):
        return Role.ADMINISTRATOR
    if username in conf.auditors or set(conf.auditor_groups) & set(groups):
        return Role.AUDITOR
    return Role.USER
