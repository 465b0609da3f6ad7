"""Looks for a secret wherever a running portal leaves something: files, Valkey, a database, other processes' memory.

A secret is looked for in every form in which programs write text: as it is, in the wide encodings of strings in memory,
as hexadecimal digits, and as base64 wherever it may lie in it. Both halves of the secret are looked for, so that a cut
or split one is found, too. Every kind of search can be shown to find something: plant a secret, and search.
"""

from __future__ import annotations

import base64
import contextlib
import re
import secrets
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

CHUNK_BYTES = 4 << 20
ALL_FORMS = {"text", "utf-16", "utf-32", "hex", "base64"}


@dataclass(frozen=True, slots=True)
class Secret:
    """What nobody may find. ``text`` is the whole, with characters that programs escape; its core is looked for."""

    core: str
    text: str

    @classmethod
    def make(cls) -> Secret:
        """One that nothing else in the world contains."""
        core = secrets.token_hex(20)
        return cls(core, f'Pä "{core}" +/')

    def forms(self) -> dict[bytes, str]:
        """Every form of it, with that form's name. For UTF-16 and UTF-32 either byte order will do: they differ by a
        shift."""
        found: dict[bytes, str] = {}
        for half in (self.core[: len(self.core) // 2], self.core[len(self.core) // 2 :]):
            found[half.encode()] = "text"
            found[half.encode("utf-16-le")[:-1]] = "utf-16"
            found[half.encode("utf-32-le")[:-3]] = "utf-32"
            found[half.encode().hex().encode()] = found[half.encode().hex().upper().encode()] = "hex"
            for shift in range(3):
                known = slice(0 if shift == 0 else 4, -4)  # the letters that depend on nothing but the secret
                for encode in (base64.b64encode, base64.urlsafe_b64encode):
                    found[encode(b"\0" * shift + half.encode())[known]] = "base64"
        return found


class Search:
    """Looks for one secret in one place after another."""

    def __init__(self, secret: Secret) -> None:
        self._forms = secret.forms()
        self._longest = max(map(len, self._forms))

    def within(self, data: bytes) -> set[str]:
        """The forms in which it is there."""
        return {name for form, name in self._forms.items() if form in data}

    def pieces(self, pieces: Iterable[bytes]) -> set[str]:
        """The forms in which it is in a stream of bytes, also where it lies across two pieces."""
        found: set[str] = set()
        rest = b""
        for piece in pieces:
            found |= self.within(rest + piece)
            rest = piece[-self._longest :]
        return found

    def file(self, path: Path) -> set[str]:
        """The forms in which a file has it."""
        with path.open("rb") as file:
            return self.pieces(iter(lambda: file.read(CHUNK_BYTES), b""))

    def folder(self, folder: Path) -> dict[str, set[str]]:
        """Names and contents of all files below a folder. Files that vanish meanwhile have nothing."""
        found: dict[str, set[str]] = {}
        for path in sorted(folder.rglob("*")):
            hits = self.within(path.name.encode(errors="replace"))
            with contextlib.suppress(OSError):
                if path.is_symlink():
                    hits |= self.within(str(path.readlink()).encode())
                elif path.is_file():
                    hits |= self.file(path)
            if hits:
                found[str(path.relative_to(folder))] = hits
        return found

    def valkey(self, socket: Path) -> dict[str, set[str]]:
        """Keys and values of every database of a Valkey."""
        with redis.Redis(unix_socket_path=str(socket)) as any_base:
            numbers = [int(name.removeprefix("db")) for name in any_base.info("keyspace")]
        found: dict[str, set[str]] = {}
        for number in numbers:
            with redis.Redis(unix_socket_path=str(socket), db=number) as link:
                for key in link.scan_iter():
                    if hits := self.within(key) | self.pieces(_values(link, key)):
                        found[f"{number}:{key!r}"] = hits
        return found

    def memory(self, pid: int) -> set[str]:
        """The forms in which a process has it in memory it can write to. Raises OSError if it may not be read."""
        return self.pieces(_memory_of(pid))

    def command_line_and_environment(self, pid: int) -> set[str]:
        """What others on the machine might read of a process."""
        return self.within(Path(f"/proc/{pid}/cmdline").read_bytes()) | self.within(
            Path(f"/proc/{pid}/environ").read_bytes()
        )


def _values(link: Any, key: bytes) -> Iterator[bytes]:
    """What lies under a key, of whatever kind it is."""
    kind = link.type(key)
    if kind == b"string":
        yield link.get(key) or b""
    elif kind == b"hash":
        for name, value in link.hgetall(key).items():
            yield name + b"\0" + value
    elif kind == b"list":
        yield from link.lrange(key, 0, -1)
    elif kind == b"set":
        yield from link.smembers(key)
    elif kind == b"zset":
        yield from (name for name, _ in link.zrange(key, 0, -1, withscores=True))
    elif kind == b"stream":
        for _, fields in link.xrange(key):
            yield from (name + b"\0" + value for name, value in fields.items())
    elif kind != b"none":  # it ran out meanwhile
        raise AssertionError(f"{key!r} is a {kind!r}: nobody looked into it")


def _memory_of(pid: int) -> Iterator[bytes]:
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, rights, *_ = line.split()
            if not rights.startswith("rw") or "[vvar" in line:
                continue
            at, end = (int(number, 16) for number in span.split("-"))
            while at < end:
                memory.seek(at)
                try:
                    piece = memory.read(min(CHUNK_BYTES, end - at))
                except OSError:  # a page that was never there, or has gone since
                    break
                if not piece:
                    break
                yield piece
                at += len(piece)
            yield b""  # the next region does not continue this one


def children_of(pid: int) -> list[int]:
    """A process and all that descend from it."""
    found = [pid]
    for each in found:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{each}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
    return found


class Overheard:
    """Everything that anybody says to a Valkey between entering and leaving: messages are gone when they were read."""

    def __init__(self, socket: Path) -> None:
        self.pieces: list[bytes] = []
        self._link = redis.connection.UnixDomainSocketConnection(path=str(socket))
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Overheard:
        self._link.connect()
        self._link.send_command("MONITOR")
        assert self._link.read_response() == b"OK"
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._link.disconnect()
        self._thread.join(10)

    def _listen(self) -> None:
        with contextlib.suppress(OSError, redis.ConnectionError, AttributeError, ValueError):  # the end of listening
            while True:
                # Valkey writes what is not plain text as \xNN; quotes inside as \"
                line = self._link.read_response(disable_decoding=True, timeout=None)
                self.pieces.append(re.sub(rb"\\x([0-9a-f]{2})", lambda byte: bytes.fromhex(byte[1].decode()), line))
