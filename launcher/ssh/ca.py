"""The portal's own certificate authority for users: the one key that lets it act as a cluster user.

The key is an ed25519 key in OpenSSH's format, readable by the portal's account alone; the public half lies
beside it and is what a login host trusts (``TrustedUserCAKeys``). Nothing here signs; ``credentials`` does.
"""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

import asyncssh

from launcher.ssh.errors import SSHError
from portal.ids import random_name

_LARGEST_KEY_FILE_BYTES = 64 * 1024


class CAError(SSHError):
    """The portal's CA key is missing, unsafe, unusable, or already there. ``detail`` says what to do about
    it.
    """

    code = "ssh.ca_key"


@dataclass(frozen=True, slots=True)
class UserCA:
    """A loaded CA: the private key, and its public line for the login host's ``TrustedUserCAKeys`` file."""

    key: asyncssh.SSHKey = field(repr=False)
    public_line: str


def create_user_ca(path: Path) -> None:
    """Make a new CA key at ``path`` (0600) with ``path.pub`` (0644) beside it.

    The file appears whole or not at all, and an existing one is never replaced: whoever loses a race gets
    CAError, and so does an administrator who would cut off every login host that trusts the present key.
    Raises CAError.
    """
    key = asyncssh.generate_private_key("ssh-ed25519", comment="footbridge user CA")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write_new(path, key.export_private_key("openssh"), mode=0o600)
        # A public half without its private key is left over from something else and means nothing.
        public = path.with_name(f"{path.name}.pub")
        public.unlink(missing_ok=True)
        _write_new(public, key.export_public_key("openssh"), mode=0o644)
    except FileExistsError as error:
        raise CAError(f"{error.filename2 or error.filename or path} already exists; it is never overwritten") from None
    except OSError as error:
        raise CAError(f"{path}: {error.strerror}") from error


def load_user_ca(path: Path) -> UserCA:
    """The CA kept at ``path``. Refuses a key that anybody but its owner can read or write. Raises CAError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _check_private(path, os.fstat(descriptor))  # of the open file: what is checked is what is read
            text = os.read(descriptor, _LARGEST_KEY_FILE_BYTES)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise CAError(f"{path}: {error.strerror}") from error
    try:
        key = asyncssh.import_private_key(text)
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError, ValueError):
        raise CAError(f"{path} is not an unencrypted OpenSSH private key") from None
    return UserCA(key, key.export_public_key("openssh").decode().strip())


def _check_private(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise CAError(f"{path} is not a file")
    if found.st_mode & 0o077:
        raise CAError(
            f"{path} can be read by other accounts of this machine (mode {stat.S_IMODE(found.st_mode):04o}); "
            f"whoever reads it can act as every cluster user. Run: chmod 600 {path}"
        )
    if found.st_uid not in (os.geteuid(), 0):
        raise CAError(f"{path} belongs to another account (uid {found.st_uid}), not to the portal's")


def _write_new(path: Path, content: bytes, *, mode: int) -> None:
    """Create ``path`` with its whole content in one step. Raises FileExistsError if it is there, or
    OSError.
    """
    draft = path.with_name(f".{path.name}.{random_name(10)}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)  # unlike a rename, a link never replaces what is there
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()
