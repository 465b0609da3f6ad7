"""The demo's data folder: keys, addresses and the settings that follow from them. Made when missing, kept
afterwards.

Runs before Django has settings: they are read from the environment that ``enter_demo`` fills. A person's
own ``PORTAL_*`` settings count where they are harmless (port, host, names, logs); what decides about keys,
the database or who may sign in is always the demo's own, so a production ``.env`` beside ``manage.py``
cannot leak into it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import secrets
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from pydantic import SecretStr, ValidationError

from launcher.keys import ENCRYPTION_KEY, SECRET_KEY, USER_CA, make_all_keys
from launcher.ssh.ca import CAError
from portal.conf import Conf, unreadable

_PLAIN_PATH = re.compile(r"[A-Za-z0-9/._-]{1,90}")
"""A Unix socket's path has at most 107 bytes, and it stands in an address that three libraries read."""


class DemoError(Exception):
    """The demo cannot start or go on; the text is for the person at the terminal."""


@dataclass(frozen=True, slots=True)
class Running:
    """A demo that runs in a data folder."""

    pid: int
    url: str
    port: int
    cluster_port: int


@dataclass(frozen=True, slots=True)
class DemoFolder:
    """Where everything of one demo lies."""

    root: Path

    @property
    def logs(self) -> Path:
        """One log a process."""
        return self.root / "log"

    @property
    def cluster(self) -> Path:
        """The demo cluster's own files: homes, jobs, commands, images."""
        return self.root / "demo"

    @property
    def clusters_file(self) -> Path:
        """The clusters file, written at each start."""
        return self.cluster / "clusters.toml"

    @property
    def user_ca(self) -> Path:
        """The SSH CA by which the portal acts as a user of the demo cluster."""
        return self.root / USER_CA

    @property
    def valkey_socket(self) -> Path:
        """Valkey's socket; outside the folder when the folder's path is too long or unusual for one."""
        inside = self.root / "valkey.sock"
        if _PLAIN_PATH.fullmatch(str(inside)):
            return inside
        mark = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"footbridge-{os.getuid()}-{mark}" / "valkey.sock"

    def prepare(self) -> None:
        """Make the folders and the keys that are missing. Raises DemoError."""
        try:
            for folder in (self.root, self.logs, self.cluster, self.valkey_socket.parent):
                _private_folder(folder)
            make_all_keys(self.root)
        except (OSError, CAError) as error:
            raise DemoError(str(error)) from error

    def environment(self, wishes: Conf) -> dict[str, str]:
        """The settings of every process of the demo."""
        return {
            "DJANGO_SETTINGS_MODULE": "portal.settings",
            "PORTAL_SECRET_KEY": (self.root / SECRET_KEY).read_text().strip(),
            "PORTAL_DEMO": "1",
            "PORTAL_DATA_FOLDER": str(self.root),
            "PORTAL_HOST": wishes.host,
            "PORTAL_PORT": str(wishes.port),
            "PORTAL_DATABASE_URL": f"sqlite:///{quote(str(self.root / 'demo.sqlite3'))}",
            "PORTAL_VALKEY_URL": f"unix://{self.valkey_socket}",
            "PORTAL_CLUSTERS_FILE": str(self.clusters_file),
            "PORTAL_SSH_CA_KEY_FILE": str(self.user_ca),
            "PORTAL_ENCRYPTION_KEY_FILES": str(self.root / ENCRYPTION_KEY),
            "PORTAL_SERVES": "all",
            "PORTAL_DRAIN_SECONDS": "0",  # Ctrl-C ends it at once
            "PORTAL_AUTH": "cluster",
            "PORTAL_AUTH_CLUSTER": "",
            "PORTAL_ADMINISTRATORS": "admin",
            "PORTAL_ADMINISTRATOR_GROUPS": "",
            "PORTAL_ALLOWED_GROUPS": "",
        }

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for one demo. Raises DemoError when another holds it. The kernel frees it on any
        end.
        """
        path = self.root / "demo.lock"
        with path.open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DemoError(_already(self.running())) from None
            self._running_file.unlink(missing_ok=True)
            yield
            self._running_file.unlink(missing_ok=True)

    @property
    def _running_file(self) -> Path:
        return self.root / "running.json"

    def announce(self, running: Running) -> None:
        """Let ``running`` say where the demo is; the caller holds the lock."""
        text = json.dumps({name: getattr(running, name) for name in Running.__slots__})
        draft = self._running_file.with_suffix(".new")
        draft.write_text(text)
        draft.replace(self._running_file)

    def running(self) -> Running | None:
        """The demo that runs here and is ready, if there is one."""
        try:
            with (self.root / "demo.lock").open() as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            with contextlib.suppress(OSError, ValueError, TypeError):
                return Running(**json.loads(self._running_file.read_text()))
        except OSError:
            pass
        return None


def _already(running: Running | None) -> str:
    if running is None:
        return "A demo is just starting from this folder."
    return (
        f"The demo already runs here: {running.url} (process {running.pid}).\n"
        "Open that address, or stop that demo with Ctrl-C first.\n"
        "For a second one beside it: PORTAL_DATA_FOLDER=var2 PORTAL_PORT=8001 make demo"
    )


def _private_folder(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.stat()
    if found.st_uid != os.getuid():
        raise DemoError(f"{folder} belongs to another account; remove it or set PORTAL_DATA_FOLDER to another folder.")
    if found.st_mode & 0o077:
        folder.chmod(0o700)


def _wishes() -> Conf:
    """What the person set, over a secret that is never used. Raises DemoError with every mistake."""
    try:
        return Conf(secret_key=SecretStr(secrets.token_urlsafe(48)), demo=True)
    except ValidationError as error:
        lines = []
        for item in error.errors():
            name = f"PORTAL_{str(item['loc'][0]).upper()}: " if item["loc"] else ""
            lines.append(f"{name}{item['msg'].removeprefix('Value error, ')}")
        raise DemoError("\n".join(lines)) from error
    except (OSError, UnicodeDecodeError) as error:
        raise DemoError(unreadable(error)) from error


def enter_demo() -> None:
    """Make this process one of the demo: keys, folders, and settings in the environment. Ends it with a
    message if that fails.
    """
    try:
        wishes = _wishes()
        folder = DemoFolder(wishes.data_folder.resolve())
        folder.prepare()
        os.environ |= folder.environment(wishes)
    except DemoError as error:
        sys.exit(f"The demo cannot start.\n{error}")
