"""What an SFTP server's refusal means. Version 3 of the protocol, which OpenSSH speaks, says little about
most of them.
"""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Iterator

import asyncssh

from launcher.ssh.errors import RemoteFileError, SSHError, Unreachable

_CODES: dict[type[asyncssh.SFTPError], str] = {
    asyncssh.SFTPNoSuchFile: "file.missing",
    asyncssh.SFTPNoSuchPath: "file.missing",
    asyncssh.SFTPPermissionDenied: "file.denied",
    asyncssh.SFTPWriteProtect: "file.denied",
    asyncssh.SFTPNoSpaceOnFilesystem: "file.full",
    asyncssh.SFTPQuotaExceeded: "file.full",
    asyncssh.SFTPFileAlreadyExists: "file.exists",
    asyncssh.SFTPNotADirectory: "file.not_a_folder",
    asyncssh.SFTPFileIsADirectory: "file.is_a_folder",
}


def translated(error: asyncssh.SFTPError, path: str, *, writing: bool = False) -> SSHError:
    """Our error for one of SFTP's about ``path``.

    OpenSSH's server says "Failure" for a full disk and for a quota that is used up alike
    (``errno_to_portable`` in its sftp-server.c names neither), so a bare failure while ``writing`` is taken
    for that: of its causes it is the one that happens to users, and the only one they can mend.
    """
    if isinstance(error, (asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection)):
        return Unreachable(f"the connection broke while working on {path}")
    code = _CODES.get(type(error), "file.failed")
    if code == "file.failed" and writing and isinstance(error, asyncssh.SFTPFailure):
        code = "file.full"
    return failed(code, path, " ".join(error.reason.split())[:200])


def failed(code: str, path: str, detail: str) -> RemoteFileError:
    """The error ``code`` about ``path``."""
    return RemoteFileError(f"{path}: {detail}", code=code, params={"path": path})


def check_regular(path: str, mode: int | None) -> None:
    """Raise RemoteFileError unless ``mode`` (of a stat) is a regular file's; None stands for nothing
    there.
    """
    if mode is None:
        raise failed("file.missing", path, "is not there")
    if stat.S_ISLNK(mode):
        raise failed("file.denied", path, "is a symbolic link")
    if stat.S_ISDIR(mode):
        raise failed("file.is_a_folder", path, "is a folder")
    if not stat.S_ISREG(mode):
        raise failed("file.failed", path, "is not a regular file")


def check_path(path: str) -> str:
    """``path``, if it can be one. Raises RemoteFileError."""
    if not path or "\0" in path:
        raise failed("file.failed", path.replace("\0", "␀"), "is no path")
    return path


@contextlib.contextmanager
def missing_is_fine() -> Iterator[None]:
    """Nothing there is as good as removed."""
    try:
        yield
    except RemoteFileError as error:
        if error.code != "file.missing":
            raise
