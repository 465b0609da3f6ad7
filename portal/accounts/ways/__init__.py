"""Ways to sign in, each a module with one class; ``PORTAL_AUTH`` names the ones a site uses, in order.

A module is imported only where the site names its way: some need a library that others do without.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from django.utils.module_loading import import_string

from portal.accounts.ways.base import PasswordWay, RedirectingWay
from portal.conf import Conf

PASSWORD_WAYS: Mapping[str, str] = {
    "cluster": "portal.accounts.ways.cluster.ClusterPassword",
    "ldap": "portal.accounts.ways.ldap.DirectoryPassword",
    "pam": "portal.accounts.ways.pam.HostPassword",
}
"""Ways that check a password, by the name used in ``PORTAL_AUTH``."""
REDIRECTING_WAYS: Mapping[str, str] = {
    "openid": "portal.accounts.ways.openid.OpenId",
}
"""Ways through another site."""


def password_ways(conf: Conf) -> list[PasswordWay]:
    """The ways that the form with account name and password leads to, in the order they are tried."""
    return [cast(PasswordWay, import_string(PASSWORD_WAYS[name])(conf)) for name in conf.auth if name in PASSWORD_WAYS]


def redirecting_ways(conf: Conf) -> list[RedirectingWay]:
    """The ways that the sign-in page has a button for."""
    return [
        cast(RedirectingWay, import_string(REDIRECTING_WAYS[name])(conf))
        for name in conf.auth
        if name in REDIRECTING_WAYS
    ]
