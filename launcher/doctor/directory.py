"""Checks of the directory that people sign in with: is it there, is it the right one, may the portal look people up in
it, and do the settings find any.

Asks as the portal itself does at a sign-in, and binds as nobody else. TLS is tried by hand before: the library has only
“can't contact” for a wrong name, an unknown authority and a certificate that ran out.
"""

from __future__ import annotations

import secrets
import ssl
from collections.abc import Sequence
from typing import TYPE_CHECKING

from launcher.doctor.findings import Said, broken, doubtful, fine, one_line, words_of
from launcher.doctor.portal import site_conf
from portal.accounts.ways.ldap_greeting import greet, has_tls
from portal.conf import Conf
from portal.words import marked as _

if TYPE_CHECKING:
    from portal.accounts.ways.ldap import DirectoryPassword

SOME = 5
"""People that are looked at."""
_CERTIFICATE_CURE = _(
    "Name the directory in PORTAL_LDAP_URL as its certificate does, and who signed it in PORTAL_LDAP_CA_FILE."
)


def _way() -> DirectoryPassword:
    from portal.accounts.ways.ldap import DirectoryPassword

    return DirectoryPassword(site_conf())


def reach(_portal: object) -> Said:
    """The directory answers, and its certificate is good."""
    conf = site_conf()
    try:
        import ldap  # noqa: F401  # whether it is there
    except ImportError as error:
        return broken(
            _("The library for LDAP cannot be loaded: %(words)s"),
            _("Install it, with the headers that it is compiled with."),
            command="uv sync --extra ldap",
            words=error,
        )
    if conf.ldap_url.startswith("ldapi:"):
        return fine(_("%(url)s is a socket of this computer."), url=conf.ldap_url)
    try:
        greet(conf, checks_certificate=True)
    except ssl.SSLCertVerificationError as error:
        return broken(
            _("The certificate of %(url)s is not the directory's: %(words)s"),
            _CERTIFICATE_CURE,
            url=conf.ldap_url,
            words=error.verify_message,
        )
    except ssl.SSLError as error:
        return broken(
            _("TLS with %(url)s fails: %(words)s"),
            _("Take ldaps:// for the directory's TLS port, and PORTAL_LDAP_START_TLS for the other one."),
            url=conf.ldap_url,
            words=error.reason or error,
        )
    except OSError as error:
        if conf.ldap_ca_file is not None and error.filename == str(conf.ldap_ca_file):
            return broken(
                _("%(path)s cannot be read: %(words)s"),
                _("Let the portal's account read it, or correct PORTAL_LDAP_CA_FILE."),
                path=conf.ldap_ca_file,
                words=words_of(error),
            )
        return broken(
            _("The directory %(url)s does not answer: %(words)s"),
            _("Start it, let this computer through to its port, or correct PORTAL_LDAP_URL."),
            url=conf.ldap_url,
            words=words_of(error),
        )
    if has_tls(conf):
        return fine(_("%(url)s answers, and its certificate is good."), url=conf.ldap_url)
    return fine(_("%(url)s answers, on this computer and therefore without TLS."), url=conf.ldap_url)


def bind(_portal: object) -> Said:
    """The directory lets the portal in to look people up."""
    from portal.accounts.ways.ldap import DirectoryRefused

    who = site_conf().ldap_bind_dn
    try:
        with _way().connected():
            pass
    except DirectoryRefused as error:
        return broken(
            _("The directory does not let the portal in as “%(who)s”: %(words)s"),
            _("Correct PORTAL_LDAP_BIND_DN and PORTAL_LDAP_BIND_PASSWORD, or unlock that account in the directory."),
            who=who,
            words=error.detail,
        )
    return fine(_("The directory lets the portal in as “%(who)s”."), who=who or "anonymous")


def people(_portal: object) -> Sequence[Said]:
    """The settings find people, one for each name, and groups."""
    import ldap

    conf = site_conf()
    with _way().connected() as connection:

        def search(base: str, text: str, *, below: bool, wish: str = "1.1") -> list[dict[str, list[bytes]]]:
            scope = ldap.SCOPE_SUBTREE if below else ldap.SCOPE_BASE
            number = connection.search_ext(base, scope, text, [wish], timeout=conf.ldap_seconds, sizelimit=SOME)
            found: list[dict[str, list[bytes]]] = []
            try:
                while True:
                    kind, entries, *_more = connection.result3(number, all=0, timeout=conf.ldap_seconds)
                    found += [attributes for name, attributes in entries if name]
                    if kind == ldap.RES_SEARCH_RESULT:
                        return found
            except ldap.SIZELIMIT_EXCEEDED:
                return found  # so many are enough
            except ldap.NO_SUCH_OBJECT:
                return []

        for name, base in (
            ("PORTAL_LDAP_USER_BASE", conf.ldap_user_base),
            ("PORTAL_LDAP_GROUP_BASE", conf.ldap_group_base),
        ):
            if base and not search(base, "(objectClass=*)", below=False):
                return [
                    broken(
                        _("There is no entry “%(base)s”, or the portal may not see it."),
                        _("Correct %(name)s, or let the portal's account of the directory read below it."),
                        base=base,
                        name=name,
                    )
                ]
        try:
            nobody = search(conf.ldap_user_base, _filter(conf, f"nobody-{secrets.token_hex(8)}"), below=True)
            some = search(conf.ldap_user_base, _filter(conf, "*"), below=True, wish=conf.ldap_account_attribute)
        except ldap.FILTER_ERROR:
            return [
                broken(
                    _("PORTAL_LDAP_USER_FILTER is no filter: %(filter)s"),
                    _("Count its brackets; (uid=%%(user)s) is the simplest one."),
                    filter=conf.ldap_user_filter,
                )
            ]
    if nobody:
        return [
            broken(
                _("PORTAL_LDAP_USER_FILTER fits people whatever name is typed: %(filter)s"),
                _("Join its parts by & instead of |, so that the name always counts."),
                filter=conf.ldap_user_filter,
            )
        ]
    return [_about(conf, some)]


def _filter(conf: Conf, name: str) -> str:
    return conf.ldap_user_filter.replace("%(user)s", name)


def _about(conf: Conf, some: Sequence[dict[str, list[bytes]]]) -> Said:
    wish = conf.ldap_account_attribute
    with_account = [one for one in some if any(key.lower() == wish.lower() and values for key, values in one.items())]
    if not some:
        return doubtful(
            _("PORTAL_LDAP_USER_FILTER finds nobody below “%(base)s”: %(filter)s"),
            _("Correct the filter or PORTAL_LDAP_USER_BASE, or let the portal's account of the directory see people."),
            base=conf.ldap_user_base,
            filter=conf.ldap_user_filter,
        )
    if len(with_account) < len(some):
        return doubtful(
            _("Of %(seen)s people looked at, %(without)s have no “%(attribute)s” that the portal may see."),
            _("Name the attribute with the account in PORTAL_LDAP_ACCOUNT_ATTRIBUTE; who has none cannot sign in."),
            seen=len(some),
            without=len(some) - len(with_account),
            attribute=wish,
        )
    return fine(_("The filter finds people below “%(base)s”."), base=one_line(conf.ldap_user_base))
