"""The password of this computer's own accounts, by PAM: for a portal host that is itself part of the cluster.

PAM decides in two parts, and both count: is the password right, and may the account be used (expired, locked). Needs
``python-pam``. A process that is not root can only check what its modules check for it: sssd, LDAP and Kerberos do, the
password file does not.
"""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Callable
from typing import Any

from pam import PamAuthenticator

from portal.accounts.ways.base import Identity, Superuser
from portal.conf import Conf
from portal.errors import FootbridgeError

PAM_SUCCESS = 0
_NOT_THIS_PERSON = frozenset(
    (
        7,  # PAM_AUTH_ERR
        10,  # PAM_USER_UNKNOWN
        8,  # PAM_CRED_INSUFFICIENT: the modules may not read this account's password
        11,  # PAM_MAXTRIES
    )
)
_NOBODY_JUDGED = frozenset(
    (
        1,  # PAM_OPEN_ERR
        2,  # PAM_SYMBOL_ERR
        9,  # PAM_AUTHINFO_UNAVAIL: what the modules ask is away
        26,  # PAM_ABORT
        28,  # PAM_MODULE_UNKNOWN
    )
)
_NEW_PASSWORD = frozenset((12, 27))  # PAM_NEW_AUTHTOK_REQD, PAM_AUTHTOK_EXPIRED
_CLOSED = frozenset((6, 13))  # PAM_PERM_DENIED, PAM_ACCT_EXPIRED
"""Numbers of Linux-PAM's ``_pam_types.h``."""


class PamRefused(FootbridgeError):
    """PAM could not tell (``pam.away``; ``pam.interrupted`` where a module may have judged the password all the same),
    or lets nobody into the account whose password is right (``pam.closed``, ``pam.password_expired``)."""

    code = "pam.away"


class HostPassword:
    """See the module. A ``PasswordWay``."""

    name = "pam"

    def __init__(self, conf: Conf) -> None:
        self._service = conf.pam_service

    def check(self, username: str, password: str) -> Identity | None:
        """See PasswordWay. Raises PamRefused, Superuser."""
        if not password or "\0" in password:
            return None
        pam = PamAuthenticator()
        was_right = _watched(pam)
        if not pam.authenticate(username, password, service=self._service, resetcreds=False):
            _judge(pam, password_was_right=was_right())  # that an account is closed is told to nobody else
            return None
        try:
            account = pwd.getpwnam(username)
        except KeyError:
            return None
        if account.pw_uid == 0:
            raise Superuser("the account has the user number 0")
        return Identity(
            username=account.pw_name,
            groups=_groups(account),
            display_name=account.pw_gecos.split(",")[0].strip(),
        )


def _watched(pam: Any) -> Callable[[], bool]:
    """Whether ``pam`` came to the account itself, so that the password was right: asked when it is done."""
    reached: list[bool] = []
    may_be_used = pam.pam_acct_mgmt

    def noted(handle: Any, flags: int) -> Any:
        reached.append(True)
        return may_be_used(handle, flags)

    pam.pam_acct_mgmt = noted
    return lambda: bool(reached)


def _judge(pam: PamAuthenticator, *, password_was_right: bool) -> None:
    """Raises PamRefused for all but a wrong password, an unknown account and one that is closed to strangers."""
    code, words = pam.code, str(pam.reason or "")
    if code in _NOT_THIS_PERSON or (code in _CLOSED and not password_was_right):
        return
    if code in _NEW_PASSWORD:
        raise PamRefused(words, code="pam.password_expired")
    if code in _CLOSED:
        raise PamRefused(words, code="pam.closed")
    raise PamRefused(f"{words} ({code})", code="pam.away" if code in _NOBODY_JUDGED else "pam.interrupted")


def _groups(account: pwd.struct_passwd) -> tuple[str, ...]:
    """The names of all groups of an account; a group without a name is left out."""
    names = set()
    for number in os.getgrouplist(account.pw_name, account.pw_gid):
        try:
            names.add(grp.getgrgid(number).gr_name)
        except KeyError:
            continue
    return tuple(sorted(names))
