"""A directory's password: the person's entry is looked up, then bound to with what they typed. Needs ``python-ldap``.

Straight on python-ldap: the usual layer for Django takes a directory that is away for a wrong password, and writes the
user's row itself.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path

import ldap
import ldap.filter

from portal.accounts.ways.base import Identity, Superuser
from portal.accounts.ways.ldap_greeting import greet
from portal.conf import Conf
from portal.errors import FootbridgeError

MOST_GROUPS = 2000
"""Of one person; a directory that answers with more is not believed."""
_LONGEST_VALUE = 256
_NUMBER = "uidNumber"
"""Of the account (RFC 2307). Entries without one say nothing of who is root."""
_NOT_THIS_PERSON = (ldap.INVALID_CREDENTIALS, ldap.NO_SUCH_OBJECT, ldap.INAPPROPRIATE_AUTH, ldap.UNWILLING_TO_PERFORM)
"""What a directory answers to a wrong password, or for an entry that may not bind: locked, or without a password."""
_NOT_NOW = (*_NOT_THIS_PERSON, ldap.CONSTRAINT_VIOLATION)
"""The same for a person: some directories have a code of their own for too many wrong passwords."""

Entry = tuple[str, Mapping[str, list[bytes]]]


class DirectoryAway(FootbridgeError):
    """The directory gave no usable answer. ``detail`` is its own word for it."""

    code = "ldap.away"
    transient = True


class DirectoryInterrupted(DirectoryAway):
    """The same, after the directory had been told somebody's password: it may have counted that as a try."""

    code = "ldap.interrupted"


class DirectoryRefused(FootbridgeError):
    """The directory does not let the portal look people up."""

    code = "ldap.bind"


class DirectoryPassword:
    """See the module. A ``PasswordWay``."""

    name = "ldap"

    def __init__(self, conf: Conf) -> None:
        self._conf = conf

    def check(self, username: str, password: str) -> Identity | None:
        """See PasswordWay. Raises DirectoryAway, DirectoryInterrupted, DirectoryRefused, Superuser."""
        if not password:  # an empty one would bind as nobody, and succeed
            return None
        with self.connected() as connection:
            # Nobody's entry is bound to as well: the time of the answer must not tell which accounts there are.
            name, attributes = self._find(connection, username) or (self._nobody(), {})
            try:
                connection.simple_bind_s(name, password)
            except _NOT_NOW:
                return None
            except ldap.LDAPError as error:
                raise DirectoryInterrupted(_words(error)) from error
            if not attributes:
                return None
            if any(number.strip("0") == "" for number in _texts(attributes, _NUMBER)):
                raise Superuser("the entry has the user number 0")
            self._introduce(connection)
            account = _first(attributes, self._conf.ldap_account_attribute)
            return Identity(
                username=account,
                groups=self._groups(connection, name, account),
                display_name=_first(attributes, self._conf.ldap_name_attribute),
                email=_first(attributes, self._conf.ldap_mail_attribute),
                claims={claim: _texts(attributes, claim) for claim in self._conf.ldap_claims},
            )

    @contextlib.contextmanager
    def connected(self) -> Iterator[ldap.ldapobject.LDAPObject]:
        """The directory, with the portal let in to look people up. Raises DirectoryAway, DirectoryRefused."""
        conf = self._conf
        try:
            greet(conf, checks_certificate=False)  # else one that is silent would be waited for without end
        except OSError as error:
            raise DirectoryAway(str(error)) from error
        connection = ldap.initialize(conf.ldap_url)
        try:
            connection.set_option(ldap.OPT_PROTOCOL_VERSION, ldap.VERSION3)
            connection.set_option(ldap.OPT_REFERRALS, 0)  # another server would be handed the password
            connection.set_option(ldap.OPT_NETWORK_TIMEOUT, conf.ldap_seconds)
            connection.set_option(ldap.OPT_TIMEOUT, conf.ldap_seconds)
            if conf.ldap_ca_file is not None:
                connection.set_option(ldap.OPT_X_TLS_CACERTFILE, _readable(conf.ldap_ca_file))
            connection.set_option(ldap.OPT_X_TLS_REQUIRE_CERT, ldap.OPT_X_TLS_DEMAND)
            connection.set_option(ldap.OPT_X_TLS_NEWCTX, 0)  # makes the two before it count
            if conf.ldap_start_tls:
                connection.start_tls_s()
            self._introduce(connection)
            yield connection
        except ldap.LDAPError as error:
            raise DirectoryAway(_words(error)) from error
        finally:
            with contextlib.suppress(ldap.LDAPError):
                connection.unbind_s()

    def _introduce(self, connection: ldap.ldapobject.LDAPObject) -> None:
        """Be the one who may look people up: at first, and again after somebody's password was tried."""
        try:
            connection.simple_bind_s(self._conf.ldap_bind_dn, self._conf.ldap_bind_password.get_secret_value())
        except _NOT_THIS_PERSON as error:
            raise DirectoryRefused(_words(error)) from error

    def _find(self, connection: ldap.ldapobject.LDAPObject, username: str) -> Entry | None:
        """The one entry of this account; none where the filter fits several, or no name of an account is in it."""
        conf = self._conf
        wanted = [conf.ldap_account_attribute, conf.ldap_name_attribute, conf.ldap_mail_attribute, *conf.ldap_claims]
        wanted.append(_NUMBER)
        text = conf.ldap_user_filter.replace("%(user)s", ldap.filter.escape_filter_chars(username))
        try:
            found = _entries(
                connection.search_ext_s(conf.ldap_user_base, ldap.SCOPE_SUBTREE, text, wanted, sizelimit=2)
            )
        except (ldap.SIZELIMIT_EXCEEDED, ldap.NO_SUCH_OBJECT):
            return None
        if len(found) != 1 or not found[0][0] or not _first(found[0][1], conf.ldap_account_attribute):
            return None
        return found[0]

    def _nobody(self) -> str:
        """The name of an entry that is not there."""
        return f"{self._conf.ldap_account_attribute}={secrets.token_hex(8)},{self._conf.ldap_user_base}"

    def _groups(self, connection: ldap.ldapobject.LDAPObject, name: str, account: str) -> tuple[str, ...]:
        if not self._conf.ldap_group_base:
            return ()
        text = ldap.filter.filter_format("(|(member=%s)(uniqueMember=%s)(memberUid=%s))", [name, name, account])
        try:
            found = _entries(
                connection.search_ext_s(
                    self._conf.ldap_group_base, ldap.SCOPE_SUBTREE, text, ["cn"], sizelimit=MOST_GROUPS
                )
            )
        except ldap.NO_SUCH_OBJECT as error:
            raise DirectoryAway(f"there is no entry {self._conf.ldap_group_base}") from error
        return tuple(sorted({group for _name, attributes in found for group in _texts(attributes, "cn")}))


def _entries(answer: list[tuple[str | None, Mapping[str, list[bytes]]]]) -> list[Entry]:
    """Entries alone: an answer may have references to other servers among them, which have no name."""
    return [(name, attributes) for name, attributes in answer if name is not None]


def _texts(attributes: Mapping[str, list[bytes]], name: str) -> tuple[str, ...]:
    """The values of an attribute, however the directory spells its name; without those that are no short text."""
    values = next((each for key, each in attributes.items() if key.lower() == name.lower()), [])
    texts = (value.decode("utf-8", "replace") for value in values if len(value) <= _LONGEST_VALUE)
    return tuple(text for text in texts if text.isprintable())


def _first(attributes: Mapping[str, list[bytes]], name: str) -> str:
    return next(iter(_texts(attributes, name)), "")


def _readable(path: Path) -> str:
    """``path``, if it can be read: the library's own error for it names nothing. Raises DirectoryAway."""
    try:
        with path.open("rb"):
            return str(path)
    except OSError as error:
        raise DirectoryAway(f"{path}: {error.strerror}") from error


def _words(error: ldap.LDAPError) -> str:
    """What the directory or the library says, on a line."""
    facts = error.args[0] if error.args and isinstance(error.args[0], dict) else {}
    text = ": ".join(str(facts[key]) for key in ("desc", "info") if facts.get(key)) or type(error).__name__
    return " ".join(text.split())[:200]
