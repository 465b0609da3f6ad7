"""A word with the directory before the library for LDAP talks to it: does it answer, and does it speak TLS.

The library waits without end for a directory that takes a connection and then says nothing of TLS, and has one word for
all faults of a certificate. Nothing secret is said here.
"""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from urllib.parse import urlsplit

from portal.conf import Conf

_PORTS = {"ldap": 389, "ldaps": 636}
_START_TLS = bytes.fromhex("301d02010177188016") + b"1.3.6.1.4.1.1466.20037"
"""The request as it is sent (RFC 4511, 4.14.1), message 1."""
_YES = bytes.fromhex("0a0100")
"""The part of an answer that says success."""


def has_tls(conf: Conf) -> bool:
    """Whether what is said to the directory is encrypted."""
    return conf.ldap_url.startswith("ldaps:") or conf.ldap_start_tls


def greet(conf: Conf, *, checks_certificate: bool) -> None:
    """Connect and leave again, each step within ``ldap_seconds``. Raises OSError; SSLError, which is one, about TLS.

    ``checks_certificate``: for the check-up. At a sign-in the library checks it, by its own rules.
    """
    parts = urlsplit(conf.ldap_url)
    if parts.scheme == "ldapi":
        return
    host = parts.hostname or "localhost"
    with socket.create_connection((host, parts.port or _PORTS[parts.scheme]), conf.ldap_seconds) as link:
        if not has_tls(conf):
            return
        if parts.scheme == "ldap":
            link.sendall(_START_TLS)
            if _YES not in link.recv(4096):
                raise ssl.SSLError(0, "the directory does not begin TLS when it is asked to")
        _context(conf, checks_certificate=checks_certificate).wrap_socket(link, server_hostname=host).close()


def _context(conf: Conf, *, checks_certificate: bool) -> ssl.SSLContext:
    if checks_certificate:
        return ssl.create_default_context(cafile=conf.ldap_ca_file and _openable(conf.ldap_ca_file))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _openable(path: Path) -> str:
    with path.open("rb"):  # the library's own error names no file
        return str(path)
