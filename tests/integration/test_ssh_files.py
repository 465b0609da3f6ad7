"""Files on a cluster over SFTP: what is written whole, what is refused, and what is never followed."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import asyncssh
import pytest

from launcher.ssh import files as ssh_files
from launcher.ssh.channels import channels_of
from launcher.ssh.connect import connect
from launcher.ssh.errors import RemoteFileError, TimedOut, Unreachable
from launcher.ssh.files import RemoteFiles, open_files
from tests.integration.ssh_server import LoginHost, cluster_of, credential, login_host, make_ca
from tests.waiting import until

pytestmark = pytest.mark.integration


@pytest.fixture
async def opened(
    tmp_path: Path,
) -> AsyncIterator[tuple[LoginHost, asyncssh.SSHClientConnection, RemoteFiles]]:
    ca = make_ca(tmp_path)
    async with login_host(tmp_path / "home", ca) as host:
        connection = await connect(cluster_of(host), "alice", credential(ca), reason="test")
        async with open_files(connection, timeout_seconds=60) as files:
            yield host, connection, files
        connection.abort()
        await connection.wait_closed()


@pytest.fixture
def host(opened: tuple[LoginHost, asyncssh.SSHClientConnection, RemoteFiles]) -> LoginHost:
    return opened[0]


@pytest.fixture
def home(host: LoginHost) -> Path:
    return host.home


@pytest.fixture
def files(opened: tuple[LoginHost, asyncssh.SSHClientConnection, RemoteFiles]) -> RemoteFiles:
    return opened[2]


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def names_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def full() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


async def test_home_is_absolute(files: RemoteFiles, home: Path) -> None:
    assert await files.home() == str(home)


async def test_every_missing_level_is_made_private(files: RemoteFiles, home: Path) -> None:
    await files.make_folders(".footbridge/sessions/abc")
    for level in (".footbridge", ".footbridge/sessions", ".footbridge/sessions/abc"):
        assert mode_of(home / level) == 0o700


async def test_making_a_folder_again_is_fine_and_tightens_it(files: RemoteFiles, home: Path) -> None:
    (home / "sessions").mkdir(mode=0o755)
    await files.make_folders(f"{home}/sessions/")
    assert mode_of(home / "sessions") == 0o700


async def test_a_linked_level_above_is_fine(files: RemoteFiles, home: Path, tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    (home / ".footbridge").symlink_to(tmp_path / "scratch")
    await files.make_folders(".footbridge/sessions")
    assert mode_of(tmp_path / "scratch" / "sessions") == 0o700


async def test_a_link_in_place_of_the_folder_is_refused(files: RemoteFiles, home: Path, tmp_path: Path) -> None:
    (home / "sessions").symlink_to(tmp_path)
    with pytest.raises(RemoteFileError) as caught:
        await files.make_folders("sessions")
    assert caught.value.code == "file.denied"


async def test_a_file_in_the_way_is_not_a_folder(files: RemoteFiles, home: Path) -> None:
    (home / "sessions").write_text("")
    for path in ("sessions", "sessions/abc"):
        with pytest.raises(RemoteFileError) as caught:
            await files.make_folders(path)
        assert caught.value.code == "file.not_a_folder"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
async def test_somebody_elses_folder_is_refused(files: RemoteFiles, home: Path) -> None:
    (home / "sessions").mkdir()
    os.chown(home / "sessions", 12345, 12345)
    with pytest.raises(RemoteFileError) as caught:
        await files.make_folders("sessions")
    assert caught.value.code == "file.denied"


@pytest.mark.parametrize("mode", [0o600, 0o666, 0o700])
async def test_a_new_file_has_its_bytes_and_its_exact_mode(files: RemoteFiles, home: Path, mode: int) -> None:
    data = bytes(range(256)) * 5000
    await files.write_new("secret", data, mode)
    assert (home / "secret").read_bytes() == data
    assert mode_of(home / "secret") == mode


async def test_a_new_file_never_overwrites(files: RemoteFiles, home: Path) -> None:
    (home / "secret").write_text("old")
    with pytest.raises(RemoteFileError) as caught:
        await files.write_new("secret", b"new", 0o600)
    assert caught.value.code == "file.exists"
    assert caught.value.params["path"] == "secret"
    assert (home / "secret").read_text() == "old"


async def test_a_file_that_appears_while_writing_is_not_overwritten(
    files: RemoteFiles, home: Path, host: LoginHost
) -> None:
    host.sftp_faults["rename"] = lambda: (home / "secret").write_text("old") and None
    with pytest.raises(RemoteFileError) as caught:
        await files.write_new("secret", b"new", 0o600)
    assert caught.value.code == "file.exists"
    assert names_in(home) == ["secret"]
    assert (home / "secret").read_text() == "old"


async def test_a_new_file_does_not_follow_a_dangling_link(files: RemoteFiles, home: Path, tmp_path: Path) -> None:
    (home / "secret").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RemoteFileError):
        await files.write_new("secret", b"new", 0o600)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("operation", ["write_new", "replace"])
async def test_a_full_disk_leaves_nothing_behind(
    files: RemoteFiles, home: Path, host: LoginHost, operation: str
) -> None:
    host.sftp_faults["write"] = full
    with pytest.raises(RemoteFileError) as caught:
        await getattr(files, operation)("script", b"x" * 1000, 0o600)
    assert caught.value.code == "file.full"
    assert names_in(home) == []


async def test_replacing_keeps_the_old_content_when_the_disk_is_full(
    files: RemoteFiles, home: Path, host: LoginHost
) -> None:
    (home / "settings").write_text("old")
    host.sftp_faults["write"] = full
    with pytest.raises(RemoteFileError):
        await files.replace("settings", b"new", 0o600)
    assert (home / "settings").read_text() == "old"


async def test_replacing_changes_content_and_mode(files: RemoteFiles, home: Path) -> None:
    (home / "settings").write_text("old")
    await files.replace("settings", b"new", 0o640)
    assert (home / "settings").read_bytes() == b"new"
    assert mode_of(home / "settings") == 0o640
    assert names_in(home) == ["settings"]


async def test_replacing_a_link_replaces_the_link(files: RemoteFiles, home: Path, tmp_path: Path) -> None:
    (tmp_path / "target").write_text("untouched")
    (home / "settings").symlink_to(tmp_path / "target")
    await files.replace("settings", b"new", 0o600)
    assert not (home / "settings").is_symlink()
    assert (tmp_path / "target").read_text() == "untouched"


async def test_a_folder_cannot_be_replaced(files: RemoteFiles, home: Path) -> None:
    (home / "settings").mkdir()
    with pytest.raises(RemoteFileError) as caught:
        await files.replace("settings", b"new", 0o600)
    assert caught.value.code == "file.is_a_folder"


async def test_writing_into_a_missing_folder_is_missing(files: RemoteFiles) -> None:
    with pytest.raises(RemoteFileError) as caught:
        await files.write_new("no/such/file", b"", 0o600)
    assert caught.value.code == "file.missing"


async def test_a_file_is_read_whole(files: RemoteFiles, home: Path) -> None:
    data = os.urandom(700_000)
    (home / "data").write_bytes(data)
    assert await files.read("data", 700_000) == data


async def test_a_file_over_the_limit_is_refused(files: RemoteFiles, home: Path) -> None:
    (home / "data").write_bytes(b"x" * 101)
    with pytest.raises(RemoteFileError) as caught:
        await files.read("data", 100)
    assert caught.value.code == "file.too_large"


async def test_a_file_that_lies_about_its_size_is_refused(files: RemoteFiles) -> None:
    with pytest.raises(RemoteFileError) as caught:
        await files.read("/proc/self/maps", 10)  # says 0 bytes, and has more
    assert caught.value.code == "file.too_large"


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda path: None, "file.missing"),
        (lambda path: path.mkdir(), "file.is_a_folder"),
        (lambda path: path.symlink_to("/etc/passwd"), "file.denied"),
        (lambda path: os.mkfifo(path), "file.failed"),
    ],
)
async def test_only_a_regular_file_is_read(files: RemoteFiles, home: Path, make: object, code: str) -> None:
    make(home / "connection.json")  # type: ignore[operator] # a parameter of many kinds
    for reading in (files.read("connection.json", 1000), files.read_tail("connection.json", 1000)):
        with pytest.raises(RemoteFileError) as caught:
            await reading
        assert caught.value.code == code


async def test_a_link_is_followed_where_asked(files: RemoteFiles, home: Path) -> None:
    (home / "target").write_text("content")
    (home / "link").symlink_to("target")
    assert await files.read("link", 100, follow_symlinks=True) == b"content"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
async def test_an_unreadable_file_is_denied(files: RemoteFiles, home: Path) -> None:
    (home / "secret").touch(mode=0)
    with pytest.raises(RemoteFileError) as caught:
        await files.read("secret", 100)
    assert caught.value.code == "file.denied"


async def test_a_tail_is_the_end_of_the_file(files: RemoteFiles, home: Path) -> None:
    (home / "log").write_bytes(b"0123456789")
    tail = await files.read_tail("log", 4)
    assert (tail.data, tail.offset, tail.size, tail.next_offset) == (b"6789", 6, 10, 10)


async def test_a_tail_goes_on_where_it_stopped(files: RemoteFiles, home: Path) -> None:
    (home / "log").write_bytes(b"0123456789")
    tail = await files.read_tail("log", 100)
    with (home / "log").open("ab") as log:
        log.write(b"more")
    tail = await files.read_tail("log", 100, tail.next_offset)
    assert (tail.data, tail.offset, tail.next_offset) == (b"more", 10, 14)
    assert (await files.read_tail("log", 100, tail.next_offset)).data == b""


async def test_a_tail_skips_what_is_too_much(files: RemoteFiles, home: Path) -> None:
    (home / "log").write_bytes(b"0123456789")
    tail = await files.read_tail("log", 3, 2)
    assert (tail.data, tail.offset) == (b"789", 7)


async def test_a_log_begun_anew_is_read_from_its_start(files: RemoteFiles, home: Path) -> None:
    (home / "log").write_bytes(b"new")
    tail = await files.read_tail("log", 100, 50)
    assert (tail.data, tail.offset) == (b"new", 0)


async def test_kinds_follow_links(files: RemoteFiles, home: Path) -> None:
    (home / "file").touch()
    (home / "folder").mkdir()
    (home / "to_folder").symlink_to("folder")
    (home / "to_nowhere").symlink_to("nowhere")
    os.mkfifo(home / "pipe")
    names = ["file", "folder", "to_folder", "to_nowhere", "pipe", "nothing", "file/below"]
    kinds = [await files.kind(name) for name in names]
    assert kinds == ["file", "folder", "folder", "missing", "other", "missing", "missing"]


async def test_names_are_sorted_and_limited(files: RemoteFiles, home: Path) -> None:
    for number in range(300):
        (home / f"{number:03}.sif").touch()
    assert await files.names(".", 1000) == tuple(f"{number:03}.sif" for number in range(300))
    assert len(await files.names(str(home), 20)) == 20


async def test_odd_names_survive(files: RemoteFiles, home: Path) -> None:
    (home / os.fsdecode(b"caf\xe9")).touch()
    (home / "new\nline").touch()
    assert {os.fsencode(name) for name in await files.names(".", 10)} == {b"caf\xe9", b"new\nline"}


async def test_names_of_a_missing_folder_are_missing(files: RemoteFiles) -> None:
    with pytest.raises(RemoteFileError) as caught:
        await files.names("nothing", 10)
    assert caught.value.code == "file.missing"


async def test_a_tree_is_removed_without_following_links(files: RemoteFiles, home: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis").touch()
    tree = home / "sessions" / "abc"
    (tree / "deep" / "deeper").mkdir(parents=True)
    (tree / "deep" / "file").touch()
    (tree / "link").symlink_to(precious)
    (tree / "deep" / "deeper" / "link").symlink_to(precious / "thesis")
    await files.remove_tree(str(tree), root=str(home / "sessions"))
    assert list((home / "sessions").iterdir()) == []
    assert (precious / "thesis").exists()


async def test_a_folder_of_more_than_memory_should_hold_is_removed_piece_by_piece(
    files: RemoteFiles, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh_files, "ENTRIES_AT_A_TIME", 10)
    tree = home / "sessions" / "abc"
    (tree / "folder").mkdir(parents=True)
    for number in range(35):
        (tree / f"file {number}").touch()
    (tree / "folder" / "file").touch()
    await files.remove_tree(str(tree), root=str(home / "sessions"))
    assert list((home / "sessions").iterdir()) == []


async def test_a_tree_of_folders_without_end_is_given_up(
    files: RemoteFiles, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh_files, "ENTRIES_AT_A_TIME", 10)
    monkeypatch.setattr(ssh_files, "MOST_FOLDERS", 20)
    sessions = home / "sessions"
    for number in range(10):
        (sessions / "wide" / str(number)).mkdir(parents=True)
    (sessions / "deep" / "/".join("abcdefghijklmnopqrstuvwxyz")).mkdir(parents=True)
    for name in ("wide", "deep"):
        with pytest.raises(RemoteFileError) as caught:
            await files.remove_tree(str(sessions / name), root=str(sessions))
        assert caught.value.code == "file.failed"
        assert (sessions / name).exists()


async def test_removing_a_missing_tree_is_fine(files: RemoteFiles, home: Path) -> None:
    await files.remove_tree(f"{home}/sessions/abc", root=f"{home}/sessions")
    assert names_in(home) == []


async def test_a_tree_reached_through_a_link_is_refused(files: RemoteFiles, home: Path, tmp_path: Path) -> None:
    (tmp_path / "precious" / "abc").mkdir(parents=True)
    (home / "sessions").mkdir()
    (home / "sessions" / "link").symlink_to(tmp_path / "precious")
    for path in (home / "sessions" / "link", home / "sessions" / "link" / "abc"):
        with pytest.raises(RemoteFileError) as caught:
            await files.remove_tree(str(path), root=str(home / "sessions"))
        assert caught.value.code == "file.denied"
    assert (tmp_path / "precious" / "abc").exists()


@pytest.mark.parametrize(
    ("path", "root"),
    [
        ("{home}/sessions", "{home}/sessions"),
        ("{home}/sessions/", "{home}/sessions"),
        ("{home}/other", "{home}/sessions"),
        ("{home}/sessions2/a", "{home}/sessions"),
        ("{home}/sessions/../other", "{home}/sessions"),
        ("{home}/sessions/a/../../other", "{home}/sessions"),
        ("{home}/sessions/./a", "{home}/sessions"),
        ("sessions/a", "sessions"),
        ("/etc", "/"),
    ],
)
async def test_a_tree_outside_its_root_is_refused(files: RemoteFiles, home: Path, path: str, root: str) -> None:
    (home / "other").mkdir()
    (home / "sessions" / "a").mkdir(parents=True)
    with pytest.raises(RemoteFileError) as caught:
        await files.remove_tree(path.format(home=home), root=root.format(home=home))
    assert caught.value.code == "file.denied"
    assert (home / "other").exists()
    assert (home / "sessions" / "a").exists()


@pytest.mark.parametrize("path", ["", "a\0b"])
async def test_what_is_no_path_is_refused(files: RemoteFiles, path: str) -> None:
    with pytest.raises(RemoteFileError):
        await files.read(path, 10)


async def test_a_file_system_that_hangs_times_out(files: RemoteFiles, host: LoginHost) -> None:
    host.sftp_faults["stat_hangs"] = lambda: None
    files._timeout_seconds = 0.2
    with pytest.raises(TimedOut):
        await files.kind("anything")


async def test_a_connection_that_breaks_is_unreachable(files: RemoteFiles, host: LoginHost) -> None:
    was_asked = asyncio.Event()
    host.sftp_faults["stat_hangs"] = was_asked.set
    asking = asyncio.create_task(files.kind("anything"))
    await until(was_asked.is_set, "the question to arrive")
    host.drop_connections()
    with pytest.raises(Unreachable):
        await asking


async def test_the_session_is_counted_while_it_is_open(
    opened: tuple[LoginHost, asyncssh.SSHClientConnection, RemoteFiles],
) -> None:
    _, connection, _ = opened
    async with open_files(connection, timeout_seconds=60):
        assert channels_of(connection).open == 2
    await until(lambda: channels_of(connection).open == 1, "the session to close")
