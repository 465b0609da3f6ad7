"""Checks of signing in by PAM: its library, the service's file, and what this process may check."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from launcher.doctor.findings import Said, broken, doubtful, fine
from portal.words import marked as _

FOLDERS = (Path("/etc/pam.d"), Path("/usr/lib/pam.d"))
"""Where Linux-PAM looks for a service, the first one first."""
SHADOW = Path("/etc/shadow")
_INCLUDE = re.compile(r"(?:@include|-?(?:auth|account)\s+(?:include|substack))\s+(\S+)")
_MODULE = re.compile(r"-?auth\s+(?:\[[^\]]*\]|\w+)\s+(?:\S*/)?(pam_\w+)\.so")
_JUDGES_NOBODY = frozenset(
    {"pam_env", "pam_nologin", "pam_faildelay", "pam_faillock", "pam_cap", "pam_permit", "pam_deny"}
)
_MOST_FILES = 20


def service(_portal: object) -> Sequence[Said]:
    """The service is there, and somebody in it can check passwords for this process."""
    from django.conf import settings

    try:
        import pam  # noqa: F401  # whether it is there
    except ImportError as error:
        return [
            broken(
                _("The library for PAM cannot be loaded: %(words)s"),
                _("Install it."),
                command="uv sync --extra pam",
                words=error,
            )
        ]
    name = settings.CONF.pam_service
    path = _file(name)
    if path is None:
        return [
            broken(
                _("There is no PAM service “%(name)s”: then PAM takes “other”, which refuses everybody."),
                _("Write %(path)s, as in the guide's page about PAM, or correct PORTAL_PAM_SERVICE."),
                name=name,
                path=FOLDERS[0] / name,
            )
        ]
    try:
        judges = {module for line in _lines(path) for module in _MODULE.findall(line)} - _JUDGES_NOBODY
    except OSError as error:
        return [
            broken(
                _("%(path)s cannot be read: %(words)s"),
                _("Let the portal's account read it."),
                command=f"chmod 644 {path}",
                path=error.filename or path,
                words=error.strerror or error,
            )
        ]
    if not judges:
        return [
            broken(
                _("No module in %(path)s checks a password."),
                _("Add a line of auth with the module that does, for example pam_sss.so."),
                path=path,
            )
        ]
    if "pam_unix" in judges and not os.access(SHADOW, os.R_OK):
        return [
            doubtful(
                _("%(path)s asks pam_unix, which without reading %(shadow)s knows this process's own account only."),
                _("Have sssd, LDAP or Kerberos check them. Do not run the portal as root for it."),
                path=path,
                shadow=SHADOW,
            )
        ]
    return [fine(_("%(path)s asks %(names)s."), path=path, names=", ".join(sorted(judges)))]


def _file(name: str) -> Path | None:
    return next((folder / name for folder in FOLDERS if (folder / name).is_file()), None)


def _lines(path: Path) -> Iterator[str]:
    """The lines of the file and of those that it includes, without comments. Raises OSError."""
    waiting, seen = [path], {path}
    while waiting:
        for line in waiting.pop().read_text(encoding="utf-8", errors="replace").splitlines():
            text = line.partition("#")[0].strip()
            yield text
            found = _INCLUDE.match(text)
            other = _file(found[1]) if found else None
            if other is not None and other not in seen and len(seen) < _MOST_FILES:
                seen.add(other)
                waiting.append(other)
