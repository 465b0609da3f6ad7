"""The portal's line in a user's ``authorized_keys``: what it looks like, how it gets in, and how it gets out.

The file is the user's. All of it but our line stays as it was, byte for byte, with its mode; it is replaced in one
step, and only where nobody else has changed it since it was read. A file or a ``.ssh`` that is a link is followed
within the home folder and no further: a site may keep it elsewhere in there, and only the user can write there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import asyncssh

from launcher.ssh.credentials import tidy
from launcher.ssh.errors import RemoteFileError, SSHError
from launcher.ssh.files import RemoteFiles

FOLDER: Final = ".ssh"
NAME: Final = "authorized_keys"
LARGEST_FILE_BYTES: Final = 1024 * 1024
_TRIES: Final = 4


class ChangedMeanwhile(SSHError):
    """Somebody else keeps writing the file."""

    code = "keys.changed_meanwhile"
    transient = True


def key_line(public_key: str, *, source_addresses: Iterable[str], portal_name: str, username: str) -> bytes:
    """The line for ``public_key`` ("ssh-ed25519 AAAA…"), without its end.

    It allows commands, SFTP and forwarding: no terminal, no agent, no X11, no ~/.ssh/rc; with ``source_addresses``
    from these alone. The comment names the portal, so that the user knows whose line it is.
    """
    kind, blob = public_key.split()[:2]
    addresses = ",".join(source_addresses)
    options = (f'from="{addresses}",' if addresses else "") + "restrict,port-forwarding"
    return f"{options} {kind} {blob} footbridge:{tidy(portal_name)}:{username}".encode()


def with_line(content: bytes, line: bytes) -> bytes:
    """``content`` with ``line`` once. A line with the same key and other options gives its place to it."""
    blob = _blob(line)
    lines = content.splitlines(keepends=True)
    places = [number for number, old in enumerate(lines) if _has_key(old, blob)]
    if places:
        first, *others = places
        lines[first] = line + lines[first][len(lines[first].rstrip(b"\r\n")) :]
        return b"".join(old for number, old in enumerate(lines) if number not in others)
    if content and not content.endswith(b"\n"):
        return content + b"\n" + line  # still without an end, so that taking it out leaves what was there
    return content + line + b"\n"


def without_key(content: bytes, public_key: str) -> bytes:
    """``content`` without the lines of this key. What ``with_line`` did is undone to the byte."""
    blob = public_key.split()[1].encode()
    lines = content.splitlines(keepends=True)
    kept = [line for line in lines if not _has_key(line, blob)]
    if lines and kept and kept[-1] != lines[-1] and not lines[-1].endswith(b"\n"):
        kept[-1] = kept[-1].removesuffix(b"\n")
    return b"".join(kept)


def _blob(line: bytes) -> bytes:
    """The key's own text, told from what stands before it by its beginning, which all keys share."""
    return next(word for word in line.split() if word.startswith(b"AAAA"))


def _has_key(line: bytes, blob: bytes) -> bool:
    return not line.lstrip().startswith(b"#") and blob in line.split()


async def add_line(files: RemoteFiles, line: bytes) -> None:
    """Put ``line`` into the user's ``authorized_keys``; the folder (0700) and the file (0600) are made if missing.

    Raises RemoteFileError (``file.full``, ``file.denied``, ``keys.elsewhere`` where a link leads out of the home),
    ChangedMeanwhile, TimedOut, Unreachable.
    """
    home = await files.home()
    if await files.look(f"{home}/{FOLDER}") is None:
        await files.make_folders(f"{home}/{FOLDER}", mode=0o700)
    await _edit(files, home, lambda content: with_line(content, line))


async def remove_key(files: RemoteFiles, public_key: str) -> None:
    """Take the lines of this key out. Nothing is changed where there are none. Raises as ``add_line`` does."""
    home = await files.home()
    try:
        await _edit(files, home, lambda content: without_key(content, public_key))
    except RemoteFileError as error:
        if error.code != "file.missing":
            raise


async def _edit(files: RemoteFiles, home: str, change: Callable[[bytes], bytes]) -> None:
    for _ in range(_TRIES):
        path = await _real_path(files, home)
        before = await files.look(path)
        content = b""
        if before is not None:
            if before.uid != (await files.look_at(home)).uid:
                raise RemoteFileError(f"{path}: belongs to somebody else", code="file.denied", params={"path": path})
            content = await files.read(path, LARGEST_FILE_BYTES)
        wanted = change(content)
        if wanted == content:
            return
        if await files.look(path) == before:
            await files.replace(path, wanted, before.permissions if before else 0o600)
            return
    raise ChangedMeanwhile(f"{path} was changed by somebody else again and again")


async def _real_path(files: RemoteFiles, home: str) -> str:
    """Where the file really is, or will be. Raises ``keys.elsewhere`` unless that is in the home folder."""
    folder = await files.real_path(f"{home}/{FOLDER}")
    path = await files.real_path(f"{folder}/{NAME}") if await files.look(f"{folder}/{NAME}") else f"{folder}/{NAME}"
    inside = f"{await files.real_path(home)}/"
    if not (folder + "/").startswith(inside) or not path.startswith(inside):
        raise RemoteFileError(
            f"{home}/{FOLDER}/{NAME}: a link leads to {path}", code="keys.elsewhere", params={"path": path}
        )
    return path


def new_key(portal_name: str, username: str) -> tuple[str, str, str]:
    """A new ed25519 key pair: the private half in OpenSSH's format, the public half, its fingerprint."""
    key = asyncssh.generate_private_key("ssh-ed25519", comment=f"footbridge:{tidy(portal_name)}:{username}")
    public = " ".join(key.export_public_key("openssh").decode().split()[:2])
    return key.export_private_key("openssh").decode(), public, key.get_fingerprint()
