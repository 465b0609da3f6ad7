"""The login host's own key: made once, kept private, so that the portal can name it."""

from __future__ import annotations

import os
from pathlib import Path

import asyncssh


def host_key(root: Path) -> asyncssh.SSHKey:
    """The host key below ``root``, made if it is not there. The public half lies beside it for everybody."""
    path = root / "etc" / "ssh_host_ed25519_key"
    try:
        return asyncssh.read_private_key(path)
    except FileNotFoundError:
        pass
    key = asyncssh.generate_private_key("ssh-ed25519", comment="footbridge demonstration cluster")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key.export_private_key("openssh"))
    path.with_name(path.name + ".pub").write_bytes(key.export_public_key("openssh"))
    return key


def public_line(key: asyncssh.SSHKey) -> str:
    """The key as a clusters file and ``known_hosts`` name it: type and value, no comment."""
    return " ".join(key.export_public_key("openssh").decode().split()[:2])
