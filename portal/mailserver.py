"""Reads the mail server's address. Pure.

``smtps://`` speaks TLS from the first byte (port 465 unless another is given). ``smtp://`` (port 587) begins in the
clear and must go on with STARTTLS, whose certificate is checked; a server that does not offer it gets no mail and no
password. Only on this computer (``localhost``, ``127.0.0.1``, ``[::1]``), or with ``?starttls=never`` and without a
password (a relay inside the site), mail goes in the clear.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from email.utils import parseaddr
from typing import Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import SecretStr

_PORTS = {"smtp": 587, "smtps": 465}
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_ADDRESS = re.compile(r"[^\s@<>,;:\"()\[\]\\]+@[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class MailServer:
    """Where mail is handed over."""

    host: str
    port: int
    username: str
    password: SecretStr
    tls: Literal["always", "starttls", "never"]


def parse_mail_server(address: str) -> MailServer:
    """The mail server. Raises ValueError, which never repeats the address: it holds a password."""
    try:
        parts = urlsplit(address)
        port, options = parts.port, dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
    except ValueError:
        raise ValueError(_wrong("cannot be read; write %-signs for special characters of the password")) from None
    if parts.scheme not in _PORTS or not parts.hostname or parts.path not in ("", "/") or parts.fragment:
        raise ValueError(_wrong("must be smtp://user:password@host:587 or smtps://user:password@host"))
    if options not in ({}, {"starttls": "never"}) or (options and parts.scheme == "smtps"):
        raise ValueError(_wrong("knows one option: ?starttls=never, with smtp://"))
    username, password = unquote(parts.username or ""), unquote(parts.password or "")
    if bool(username) != bool(password):
        raise ValueError(_wrong("needs a user and a password, or neither"))
    is_here = parts.hostname in _LOOPBACK
    if options and password and not is_here:
        raise ValueError(_wrong("would send the password in the clear: take ?starttls=never away, or the password"))
    tls: Literal["always", "starttls", "never"] = "never" if options or is_here else "starttls"
    if parts.scheme == "smtps":
        tls = "always"
    return MailServer(parts.hostname, port or _PORTS[parts.scheme], username, SecretStr(password), tls)


def _wrong(what: str) -> str:
    return f"PORTAL_EMAIL_URL {what}"


def is_sender(text: str) -> bool:
    """Whether this can stand in a mail's From: ``name@example.org`` or ``Name <name@example.org>``, on one line."""
    _name, address = parseaddr(text)
    return text.isprintable() and _ADDRESS.fullmatch(address) is not None
