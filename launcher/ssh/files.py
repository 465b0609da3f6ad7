"""A user's files on a cluster, over SFTP and as the user, so that the cluster's own permissions decide.

Small files only: everything is held in memory, within a limit that the caller names. What lies there may have
been put there by anybody, so reading insists on regular files, and removing never follows a link out of its
root. Errors come as RemoteFileError, whose ``code`` says how it failed and whose ``params["path"]`` says
where; every request has a timeout.
"""

from __future__ import annotations

import asyncio
import contextlib
import posixpath
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal, TypeVar, cast

import asyncssh

from launcher.ssh.channels import session_opened, session_turn
from launcher.ssh.errors import RemoteFileError, SSHError, TimedOut, Unreachable
from launcher.ssh.file_errors import check_path, check_regular, failed, missing_is_fine, translated
from portal.ids import random_name

T = TypeVar("T")

Kind = Literal["file", "folder", "missing", "other"]

ENTRIES_AT_A_TIME = 5000
"""Of a folder that is removed: a job may have left millions."""
MOST_FOLDERS = 20_000
"""In a tree that is removed."""
_STEP_BYTES = 256 * 1024
_CLOSE_SECONDS = 1.0
_PERMISSIONS = 0o7777


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of a file that may still grow."""

    data: bytes
    offset: int  # where ``data`` begins in the file; more than was asked for if something was skipped
    size: int  # of the file when it was looked at

    @property
    def next_offset(self) -> int:
        """Where the next read goes on."""
        return self.offset + len(self.data)


@dataclass(frozen=True, slots=True)
class Look:
    """What a path is, links not followed. Two equal looks: nobody has written it in between, as far as SFTP tells."""

    permissions: int
    uid: int
    size: int
    changed_at: int  # seconds since 1970


@asynccontextmanager
async def open_files(
    connection: asyncssh.SSHClientConnection, *, timeout_seconds: float = 20.0
) -> AsyncIterator[RemoteFiles]:
    """An SFTP session. ``timeout_seconds`` is for each single request. Raises TimedOut, Unreachable,
    RemoteFileError.
    """

    async def start() -> asyncssh.SFTPClient:
        return await connection.start_sftp_client(path_errors="surrogateescape")

    async with session_turn(connection, timeout_seconds):
        client = await session_opened(
            connection,
            start,
            timeout_seconds=timeout_seconds,
            give_back=lambda client: client.exit(),
            what="SFTP",
        )
        try:
            yield RemoteFiles(client, timeout_seconds)
        finally:
            client.exit()
            with contextlib.suppress(asyncssh.Error, OSError, TimeoutError):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await client.wait_closed()


class RemoteFiles:
    """File operations of one SFTP session. Paths are absolute, or relative to the user's home."""

    def __init__(self, client: asyncssh.SFTPClient, timeout_seconds: float) -> None:
        self._client = client
        self._timeout_seconds = timeout_seconds

    async def home(self) -> str:
        """The absolute path of the user's home folder."""
        return str(await self._ask(".", self._client.realpath(".")))

    async def real_path(self, path: str) -> str:
        """The absolute path without links. OpenSSH resolves a last level that is missing, and no more."""
        return str(await self._ask(path, self._client.realpath(check_path(path))))

    async def look_at(self, path: str) -> Look:
        """What ``path`` is, links not followed. Raises ``file.missing``."""
        found = await self._ask(path, self._client.lstat(check_path(path)))
        return Look(
            (found.permissions or 0) & _PERMISSIONS,
            found.uid if found.uid is not None else -1,
            found.size or 0,
            found.mtime or 0,
        )

    async def look(self, path: str) -> Look | None:
        """As ``look_at``, but None where nothing is there."""
        try:
            return await self.look_at(path)
        except RemoteFileError as error:
            if error.code in ("file.missing", "file.not_a_folder"):
                return None
            raise

    async def kind(self, path: str) -> Kind:
        """What ``path`` is, links followed. Raises RemoteFileError where even that may not be known."""
        mode = await self._mode(path, follow=True)
        if mode is None:
            return "missing"
        return "file" if stat.S_ISREG(mode) else "folder" if stat.S_ISDIR(mode) else "other"

    async def names(self, path: str, limit: int) -> tuple[str, ...]:
        """The names in a folder, sorted; of a bigger folder any ``limit`` of them."""
        found: list[str] = []
        listing = cast(AsyncGenerator[asyncssh.SFTPName, None], self._client.scandir(check_path(path)))
        async with contextlib.aclosing(listing) as entries:
            while len(found) < limit:
                entry = await self._ask(path, anext(entries, None))
                if entry is None:
                    break
                name = _text(entry.filename)
                if name not in (".", ".."):
                    found.append(name)
        return tuple(sorted(found))

    async def make_folders(self, path: str, mode: int = 0o700) -> None:
        """Make the folder ``path`` with every level that is missing; ``mode`` (exact, whatever the umask) for
        each of them.

        Levels above may be links, as on sites where /home is one. The last level, where it exists, must be a
        folder of this user's own and no link: otherwise somebody else would own what is put there. It gets
        ``mode`` as well.
        """
        path = posixpath.normpath(check_path(path))
        missing: list[str] = []
        level = path
        while (found := await self._mode(level, follow=True)) is None:
            if level in ("", "/", "."):
                raise failed("file.missing", path, "the home folder is missing")
            missing.append(level)
            level = posixpath.dirname(level) or "."
        if not stat.S_ISDIR(found):
            raise failed("file.not_a_folder", level, "is not a folder")
        for level in reversed(missing):
            try:
                await self._ask(level, self._client.mkdir(level, asyncssh.SFTPAttrs(permissions=mode)), writing=True)
            except RemoteFileError as error:
                # Somebody else, perhaps another task of ours, may have made it in the meantime.
                if await self._mode(level, follow=False) is None:
                    raise error from None
        await self._own_folder(path, mode)

    async def _own_folder(self, path: str, mode: int) -> None:
        found = await self._ask(path, self._client.lstat(path))
        permissions = found.permissions or 0
        if stat.S_ISLNK(permissions):
            raise failed("file.denied", path, "is a symbolic link")
        if not stat.S_ISDIR(permissions):
            raise failed("file.not_a_folder", path, "is not a folder")
        home = await self._ask(".", self._client.stat("."))
        if found.uid != home.uid:
            raise failed("file.denied", path, "belongs to another user")
        if permissions & _PERMISSIONS != mode:
            await self._ask(path, self._client.chmod(path, mode))

    async def write_new(self, path: str, data: bytes, mode: int) -> None:
        """Create ``path`` with exactly ``data`` and ``mode``: whole, or not at all. Raises ``file.exists``
        if it is there.
        """
        path = check_path(path)
        if await self._mode(path, follow=False) is not None:
            raise failed("file.exists", path, "is already there")
        await self._write(path, data, mode, replace=False)

    async def replace(self, path: str, data: bytes, mode: int) -> None:
        """Put ``data`` at ``path`` in one step: a reader sees the old content or the new one."""
        path = check_path(path)
        found = await self._mode(path, follow=False)
        if found is not None and stat.S_ISDIR(found):
            raise failed("file.is_a_folder", path, "is a folder")
        await self._write(path, data, mode, replace=True)

    async def _write(self, path: str, data: bytes, mode: int, *, replace: bool) -> None:
        folder, name = posixpath.split(path)
        draft = posixpath.join(folder, f".{name[:100]}.{random_name(10)}")
        flags = asyncssh.FXF_WRITE | asyncssh.FXF_CREAT | asyncssh.FXF_EXCL
        attributes = asyncssh.SFTPAttrs(permissions=mode)
        file = await self._ask(path, self._client.open(draft, flags, attributes, encoding=None), writing=True)
        try:
            try:
                await self._ask(path, file.chmod(mode))  # a umask may have taken bits away
                for start in range(0, len(data), _STEP_BYTES):
                    await self._ask(path, file.write(data[start : start + _STEP_BYTES], start), writing=True)
                with contextlib.suppress(asyncssh.SFTPOpUnsupported):  # an extension of OpenSSH's
                    await self._ask(path, file.fsync(), writing=True)
            finally:
                await self._ask(path, file.close(), writing=True)  # where NFS reports a full disk
            rename = self._client.posix_rename if replace else self._client.rename
            await self._ask(path, rename(draft, path))
        except BaseException as error:
            with contextlib.suppress(SSHError):
                await self._ask(draft, self._client.remove(draft))
            if not replace and isinstance(error, RemoteFileError) and await self._mode(path, follow=False) is not None:
                # SFTP's rename does not overwrite; version 3 of the protocol says no more than "failure".
                raise failed("file.exists", path, "is already there") from None
            raise

    async def read(self, path: str, max_bytes: int, *, follow_symlinks: bool = False) -> bytes:
        """The content of a regular file. Raises ``file.too_large`` rather than returning a part.

        Without ``follow_symlinks`` a link is ``file.denied``: for files where a hostile job may have put one.
        """
        async with self._reading(path, follow_symlinks) as (file, size):
            if size <= max_bytes:
                data = await self._read_range(path, file, 0, max_bytes + 1)
                if len(data) <= max_bytes:
                    return data
        raise failed("file.too_large", path, f"is larger than {max_bytes} bytes")

    async def read_tail(self, path: str, max_bytes: int, from_offset: int | None = None) -> Tail:
        """At most the last ``max_bytes`` of a file, or what came after ``from_offset``, for a log that is
        being written.

        Where more came than ``max_bytes``, the older part is skipped. A file that became shorter than
        ``from_offset`` was begun anew, and is read from its start.
        """
        async with self._reading(path, follow_symlinks=False) as (file, size):
            start = from_offset if from_offset is not None and from_offset <= size else 0
            start = max(start, size - max_bytes)
            return Tail(await self._read_range(path, file, start, size - start), start, size)

    @asynccontextmanager
    async def _reading(self, path: str, follow_symlinks: bool) -> AsyncIterator[tuple[asyncssh.SFTPClientFile, int]]:
        mode = await self._mode(path, follow=follow_symlinks)
        check_regular(path, mode)  # before opening: opening a pipe would wait for a writer
        file = await self._ask(path, self._client.open(check_path(path), asyncssh.FXF_READ, encoding=None))
        try:
            found = await self._ask(path, file.stat())
            check_regular(path, found.permissions)
            yield file, found.size or 0
        finally:
            with contextlib.suppress(SSHError):
                await self._ask(path, file.close())

    async def _read_range(self, path: str, file: asyncssh.SFTPClientFile, start: int, length: int) -> bytes:
        data = bytearray()
        while len(data) < length:
            step = await self._ask(path, file.read(min(_STEP_BYTES, length - len(data)), start + len(data)))
            if not step:
                break
            data += cast(bytes, step)  # opened without an encoding
        return bytes(data)

    async def remove(self, path: str) -> None:
        """Remove a file or a link (never what it points to). Does nothing if it is missing."""
        with missing_is_fine():
            await self._ask(path, self._client.remove(check_path(path)))

    async def remove_tree(self, path: str, *, root: str) -> None:
        """Remove the folder ``path`` with all below it; links are removed, never followed. Missing is fine.

        Both are absolute; ``path`` must lie below ``root`` with no link between them, or nothing is removed
        and ``file.denied`` is raised.
        """
        root, path = posixpath.normpath(check_path(root)), check_path(path)
        below = path.removeprefix(f"{root}/")
        if not root.startswith("/") or root == "/" or below == path or {"", ".", ".."} & set(below.split("/")):
            raise failed("file.denied", path, f"is not below {root}")
        level = root
        for name in below.split("/"):
            level = f"{level}/{name}"
            mode = await self._mode(level, follow=False)
            if mode is None:
                return
            if not stat.S_ISDIR(mode):
                raise failed("file.denied", level, "is not a real folder")
        await self._remove_below(path)

    async def _remove_below(self, path: str) -> None:
        emptied: list[str] = []
        waiting = [path]
        while waiting:  # a list instead of recursion: a hostile tree may be very deep
            folder = waiting.pop()
            emptied.append(folder)
            waiting += await self._empty(folder)
            if len(emptied) + len(waiting) > MOST_FOLDERS:
                raise failed("file.failed", path, f"holds more than {MOST_FOLDERS} folders")
        for folder in reversed(emptied):
            with missing_is_fine():
                await self._ask(folder, self._client.rmdir(folder))

    async def _empty(self, folder: str) -> set[str]:
        """Remove all but folders from a folder, as many at a time as memory should hold. Returns the folders in it."""
        folders: set[str] = set()
        while True:
            names = await self.names(folder, ENTRIES_AT_A_TIME)
            for name in names:
                child = f"{folder}/{name}"
                if stat.S_ISDIR(await self._mode(child, follow=False) or 0):
                    folders.add(child)
                else:
                    await self.remove(child)
            if len(names) < ENTRIES_AT_A_TIME:
                return folders
            if len(folders) >= ENTRIES_AT_A_TIME:
                raise failed("file.failed", folder, f"holds {len(folders)} folders and more")

    async def _mode(self, path: str, *, follow: bool) -> int | None:
        """Type and permission bits, or None where nothing is there (or a link leads nowhere)."""
        look = self._client.stat if follow else self._client.lstat
        try:
            return (await self._ask(path, look(check_path(path)))).permissions or 0
        except RemoteFileError as error:
            if error.code in ("file.missing", "file.not_a_folder"):
                return None
            raise

    async def _ask(self, path: str, request: Awaitable[T], *, writing: bool = False) -> T:
        """One request with its timeout and its error translated; that the server cannot do it at all is
        for the caller.
        """
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await request
        except TimeoutError:
            raise TimedOut(f"no answer about {path} within {self._timeout_seconds:g} s") from None
        except asyncssh.SFTPOpUnsupported:
            raise
        except asyncssh.SFTPError as error:
            raise translated(error, path, writing=writing) from None
        except (asyncssh.Error, OSError) as error:
            raise Unreachable(f"the connection broke while working on {path}: {error}") from None


def _text(name: str | bytes) -> str:
    return name if isinstance(name, str) else name.decode(errors="surrogateescape")
