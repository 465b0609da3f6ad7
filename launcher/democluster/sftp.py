"""Files over SFTP, confined to what the user could reach on a cluster where each has an account of their own.

The server's uid decides nothing here, because it may be root: in the own home everything is allowed, elsewhere
what the permissions give to "others" along the whole path. Symlinks are followed before looking, so that one
that leads out of the home opens nothing. There is no chroot: paths are those that commands see as well.
"""

# SFTP paths are bytes, which pathlib does not take.
# ruff: noqa: PTH102, PTH104, PTH105, PTH106, PTH107, PTH110, PTH115, PTH116, PTH118, PTH211
from __future__ import annotations

import errno
import os
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import cast

import asyncssh
from asyncssh import SFTPAttrs, SFTPName

from launcher.democluster.faults import Faults
from launcher.democluster.settings import DemoSettings

_READ, _WRITE, _SEARCH = stat.S_IROTH, stat.S_IWOTH, stat.S_IXOTH


class DemoSFTP(asyncssh.SFTPServer):
    """One user's SFTP session."""

    def __init__(self, chan: asyncssh.SSHServerChannel[bytes], settings: DemoSettings, faults: Faults) -> None:
        super().__init__(chan)
        self._user = str(chan.get_extra_info("username"))
        self._home = os.fsencode(os.path.realpath(settings.home(self._user)))
        self._root = os.fsencode(os.path.realpath(settings.root))
        self._faults = faults

    # Paths and permissions

    def map_path(self, path: bytes) -> bytes:
        """Relative paths begin at home."""
        return os.path.join(self._home, path)

    def _inside(self, path: bytes, folder: bytes) -> bool:
        return path == folder or path.startswith(folder + b"/")

    def _check(self, path: bytes, need: int, *, follow: bool = True) -> bytes:
        """The real path, if the user may do ``need`` there. Raises OSError as the kernel would."""
        mapped = self.map_path(path)
        if b"\0" in mapped:
            raise OSError(errno.EINVAL, "Invalid argument")
        if follow:
            real = os.path.realpath(mapped)
        else:
            parent, name = os.path.split(mapped.rstrip(b"/") or b"/")
            real = os.path.join(os.path.realpath(parent), name)
        if self._inside(real, self._home):
            return real
        top = self._root if self._inside(real, self._root) else b"/"
        parts = [part for part in real[len(top) :].split(b"/") if part]
        walked = top
        for part in parts:
            if not os.stat(walked).st_mode & _SEARCH and walked != self._root:
                raise PermissionError(errno.EACCES, "Permission denied")
            walked = os.path.join(walked, part)
        mode = os.stat(walked).st_mode if follow else os.lstat(walked).st_mode
        if need and not mode & need and not stat.S_ISLNK(mode):
            raise PermissionError(errno.EACCES, "Permission denied")
        return real

    def _check_parent(self, path: bytes) -> bytes:
        """The same for a change of the folder that holds ``path``: making, removing, renaming."""
        mapped = self.map_path(path).rstrip(b"/") or b"/"
        parent, name = os.path.split(mapped)
        if name in (b"", b".", b".."):
            raise PermissionError(errno.EACCES, "Permission denied")
        folder = self._check(parent, _WRITE)
        target = os.path.join(folder, name)
        if target == self._home or (
            os.stat(folder).st_mode & stat.S_ISVTX and not self._inside(folder, self._home) and self._is_other(target)
        ):
            raise PermissionError(errno.EACCES, "Permission denied")
        return target

    @staticmethod
    def _is_other(path: bytes) -> bool:
        """Whether it exists; in a sticky folder such as /tmp nobody's files belong to a demo user."""
        return os.path.lexists(path)

    def _room(self, path: bytes) -> None:
        if self._user in self._faults.full_homes and self._inside(os.path.realpath(self.map_path(path)), self._home):
            raise OSError(errno.ENOSPC, "No space left on device")

    # Operations

    def open(self, path: bytes, pflags: int, attrs: SFTPAttrs) -> object:
        """Open a file; a new one is private unless asked otherwise."""
        writing = bool(pflags & (asyncssh.FXF_WRITE | asyncssh.FXF_APPEND))
        if pflags & asyncssh.FXF_CREAT and not os.path.lexists(self.map_path(path)):
            self._check_parent(path)
            self._room(path)
            if attrs.permissions is None:
                attrs.permissions = 0o600
            return super().open(self.map_path(path), pflags, attrs)
        real = self._check(path, _WRITE if writing else _READ)
        if writing and pflags & asyncssh.FXF_TRUNC:
            self._room(path)
        if stat.S_ISFIFO(os.stat(real).st_mode if os.path.exists(real) else 0):
            raise OSError(errno.ENXIO, "Not a regular file")  # opening one would block the whole server
        return super().open(real, pflags, attrs)

    def open56(self, path: bytes, desired_access: int, flags: int, attrs: SFTPAttrs) -> object:
        """The form of newer protocol versions, which this server does not offer."""
        raise asyncssh.SFTPOpUnsupported("not supported")

    def write(self, file_obj: object, offset: int, data: bytes) -> int:
        """Write, unless the home is full."""
        if self._user in self._faults.full_homes:
            name = getattr(file_obj, "name", b"")
            if self._inside(os.fsencode(os.path.realpath(name)), self._home):
                raise OSError(errno.ENOSPC, "No space left on device")
        return cast(int, super().write(file_obj, offset, data))

    def stat(self, path: bytes) -> os.stat_result:
        """Attributes, links followed."""
        return os.stat(self._check(path, 0))

    def lstat(self, path: bytes) -> os.stat_result:
        """Attributes of a link itself."""
        return os.lstat(self._check(path, 0, follow=False))

    def setstat(self, path: bytes, attrs: SFTPAttrs) -> None:
        """Change attributes of one's own file."""
        super().setstat(self._own(path), attrs)

    def lsetstat(self, path: bytes, attrs: SFTPAttrs) -> None:
        """The same without following a link."""
        super().lsetstat(self._own(path, follow=False), attrs)

    def _own(self, path: bytes, *, follow: bool = True) -> bytes:
        real = self._check(path, 0, follow=follow)
        if not self._inside(real, self._home):
            raise PermissionError(errno.EACCES, "Permission denied")
        return real

    async def scandir(self, path: bytes) -> AsyncIterator[SFTPName]:
        """The entries of a folder."""
        real = self._check(path, _READ)
        async for entry in super().scandir(real):
            yield entry

    def remove(self, path: bytes) -> None:
        """Remove a file or link."""
        os.remove(self._check_parent(path))

    def mkdir(self, path: bytes, attrs: SFTPAttrs) -> None:
        """Make a folder, private unless asked otherwise."""
        target = self._check_parent(path)
        self._room(path)
        os.mkdir(target, 0o700 if attrs.permissions is None else attrs.permissions & 0o7777)

    def rmdir(self, path: bytes) -> None:
        """Remove an empty folder."""
        os.rmdir(self._check_parent(path))

    def realpath(self, path: bytes) -> bytes:
        """The path without links and dots. It says nothing about what is there."""
        return os.path.realpath(self.map_path(path))

    def rename(self, oldpath: bytes, newpath: bytes) -> None:
        """Rename; an existing target is an error, as in protocol 3."""
        old, new = self._check_parent(oldpath), self._check_parent(newpath)
        if os.path.lexists(new):
            raise FileExistsError(errno.EEXIST, "File exists")
        os.rename(old, new)

    def posix_rename(self, oldpath: bytes, newpath: bytes) -> None:
        """Rename over what is there."""
        os.replace(self._check_parent(oldpath), self._check_parent(newpath))

    def readlink(self, path: bytes) -> bytes:
        """Where a link points."""
        return os.readlink(self._check(path, 0, follow=False))

    def symlink(self, oldpath: bytes, newpath: bytes) -> None:
        """Make a link. It may point anywhere; following it is what is checked."""
        target = self._check_parent(newpath)
        self._room(newpath)
        os.symlink(oldpath, target)

    def link(self, oldpath: bytes, newpath: bytes) -> None:
        """Make a hard link to one's own file."""
        self._room(newpath)
        os.link(self._own(oldpath), self._check_parent(newpath))

    def statvfs(self, path: bytes) -> os.statvfs_result:
        """Room on the file system."""
        return os.statvfs(self._check(path, 0))


def sftp_factory(settings: DemoSettings, faults: Faults) -> Callable[[asyncssh.SSHServerChannel[bytes]], DemoSFTP]:
    """What asyncssh calls for each session."""
    (Path(settings.root) / "home").mkdir(parents=True, exist_ok=True)
    return lambda chan: DemoSFTP(chan, settings, faults)
