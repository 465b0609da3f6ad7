"""Sign-in with the cluster's password: accepted or refused by a real server, and never seen again."""

from __future__ import annotations

import gc
import logging
import os
import weakref
from collections.abc import AsyncIterator
from pathlib import Path

import asyncssh
import pytest

from launcher.clusters import Cluster
from launcher.ssh.ca import UserCA
from launcher.ssh.connect import connect
from launcher.ssh.credentials import LentPassword, PasswordCredential, StoredPasswordCredential
from launcher.ssh.errors import HostKeyChanged, LoginRefused, TimedOut, Unreachable
from launcher.ssh.passwords import user_number, verify_password
from tests.integration.ssh_server import PASSWORD, LoginHost, cluster_of, free_port, login_host, make_ca, silent_host
from tests.waiting import until

pytestmark = pytest.mark.integration


@pytest.fixture
def ca(tmp_path: Path) -> UserCA:
    return make_ca(tmp_path)


@pytest.fixture
async def host(tmp_path: Path, ca: UserCA) -> AsyncIterator[LoginHost]:
    async with login_host(tmp_path / "home", ca) as server:
        yield server


async def test_the_right_password_brings_the_home_folder(host: LoginHost) -> None:
    login = await verify_password(cluster_of(host), "alice", PASSWORD)
    assert login.accepted
    assert login.home == str(host.home)


async def test_a_name_that_the_cluster_spells_otherwise_is_refused_and_never_taken_over(
    host: LoginHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in = tmp_path / "bin" / "id"  # a login host that ignores case, as with Active Directory
    stand_in.parent.mkdir()
    stand_in.write_text('#!/bin/sh\n[ "$1" = -un ] && echo alice || echo 1234\n')
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", f"{stand_in.parent}:{os.environ['PATH']}")
    with pytest.raises(LoginRefused) as refused:
        await verify_password(cluster_of(host), "Alice", PASSWORD)
    assert refused.value.code == "ssh.other_spelling"
    assert (await verify_password(cluster_of(host), "alice", PASSWORD)).username == "alice"
    assert (await verify_password(cluster_of(host), "bob", PASSWORD)).username == "bob"


async def test_the_connection_is_closed_afterwards(host: LoginHost) -> None:
    await verify_password(cluster_of(host), "alice", PASSWORD)
    await until(lambda: host.connections[0].is_closed(), "the connection to end")


async def test_a_wrong_password_is_tried_once_and_refused(host: LoginHost) -> None:
    host.auth_methods = ("password", "keyboard-interactive")
    with pytest.raises(LoginRefused) as caught:
        await verify_password(cluster_of(host), "alice", "wrong")
    assert caught.value.code == "ssh.login_refused"
    assert host.passwords_tried == ["wrong"]


async def test_one_hidden_question_gets_the_password(host: LoginHost) -> None:
    host.auth_methods = ("keyboard-interactive",)
    host.prompts = (("密码：", False),)
    assert (await verify_password(cluster_of(host), "alice", PASSWORD)).accepted


async def test_a_second_question_is_not_answered(host: LoginHost) -> None:
    host.auth_methods = ("keyboard-interactive",)
    host.prompts = (("Password: ", False), ("Code: ", False))
    with pytest.raises(LoginRefused):
        await verify_password(cluster_of(host), "alice", PASSWORD)
    assert host.passwords_tried == [PASSWORD]


async def test_a_question_with_a_visible_answer_never_gets_the_password(host: LoginHost) -> None:
    host.auth_methods = ("keyboard-interactive",)
    host.prompts = (("What is your quest? ", True),)
    with pytest.raises(LoginRefused):
        await verify_password(cluster_of(host), "alice", PASSWORD)
    assert host.passwords_tried == []


async def test_an_expired_password_is_told_apart(host: LoginHost) -> None:
    host.password_expired = True
    with pytest.raises(LoginRefused) as caught:
        await verify_password(cluster_of(host), "alice", PASSWORD)
    assert caught.value.code == "ssh.password_expired"


async def test_an_account_that_runs_no_commands_is_refused(host: LoginHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(host.home))  # the server's shell finds no id
    with pytest.raises(LoginRefused) as caught:
        await verify_password(cluster_of(host), "alice", PASSWORD)
    assert caught.value.code == "ssh.no_shell"


async def test_root_by_another_name_is_refused(host: LoginHost) -> None:
    host.user_number = 0
    with pytest.raises(LoginRefused) as caught:
        await verify_password(cluster_of(host), "toor", PASSWORD)
    assert caught.value.code == "ssh.superuser"
    await until(lambda: host.connections[0].is_closed(), "the connection to end")


@pytest.mark.parametrize(
    ("printed", "number"),
    [
        (b"1000\n", 1000),
        (b"0\n", 0),
        (b"Welcome\n3 jobs run\n000\nBye\n", 0),
        (b"7\n54321\n", 54321),
        (b"", None),
        (b"uid=0(root)\n", None),
        (b"-1\n", None),
        (b"9" * 5000, None),
        ("٣\n".encode(), None),
    ],
)
def test_the_number_is_the_last_line_that_is_one(printed: bytes, number: int | None) -> None:
    assert user_number(printed) == number


async def test_an_account_whose_number_cannot_be_found_out_is_refused(host: LoginHost) -> None:
    host.commands_print = b"This service allows sftp connections only."
    with pytest.raises(LoginRefused) as caught:
        await verify_password(cluster_of(host), "alice", PASSWORD)
    assert caught.value.code == "ssh.no_shell"


async def test_an_empty_password_is_refused_before_any_connection(host: LoginHost) -> None:
    with pytest.raises(LoginRefused) as caught:
        await verify_password(cluster_of(host), "alice", "")
    assert caught.value.code == "ssh.empty_password"
    assert host.connections == []


class Watched(str):
    """A password of which one can ask whether anything still refers to it."""


@pytest.mark.parametrize("method", ["password", "keyboard-interactive"])
async def test_a_connection_that_stays_open_does_not_hold_the_password(host: LoginHost, method: str) -> None:
    host.auth_methods = (method,)
    kept: list[asyncssh.SSHClientConnection] = []
    watched = Watched(PASSWORD)
    still_there = weakref.ref(watched)
    await verify_password(cluster_of(host), "alice", watched, keep=lambda _, connection: kept.append(connection))
    del watched
    gc.collect()
    assert still_there() is None
    assert not kept[0].is_closed()


async def test_a_connection_made_with_a_kept_password_does_not_hold_it(host: LoginHost) -> None:
    watched = [Watched(PASSWORD)]
    still_there = weakref.ref(watched[0])

    async def borrow(cluster: Cluster, username: str) -> LentPassword:
        return LentPassword(watched.pop(), accepted=lambda: None)

    connection = await connect(cluster_of(host), "alice", StoredPasswordCredential(borrow), reason="test")
    gc.collect()
    assert still_there() is None
    assert not connection.is_closed()


@pytest.mark.parametrize("username", ["", "root", "a;b", "../alice", "alice@host", "a\0b", "-l root"])
async def test_a_hostile_account_name_is_refused_before_any_connection(host: LoginHost, username: str) -> None:
    with pytest.raises(LoginRefused) as caught:
        await verify_password(cluster_of(host), username, PASSWORD)
    assert caught.value.code == "ssh.bad_username"
    assert host.connections == []


async def test_a_host_that_accepts_anything_is_not_believed(host: LoginHost) -> None:
    host.let_everybody_in = True
    with pytest.raises(LoginRefused):
        await verify_password(cluster_of(host), "alice", "anything")


async def test_the_password_is_not_shown_to_a_host_with_another_key(
    host: LoginHost, ca: UserCA, tmp_path: Path
) -> None:
    async with login_host(tmp_path / "other", ca) as impostor:
        with pytest.raises(HostKeyChanged):
            await verify_password(cluster_of(impostor, host_keys=[host.key_line]), "alice", PASSWORD)
        assert impostor.passwords_tried == []


async def test_a_dead_host_is_not_a_wrong_password() -> None:
    with pytest.raises(Unreachable):
        await verify_password(cluster_of(free_port()), "alice", PASSWORD)


async def test_a_silent_host_is_not_a_wrong_password() -> None:
    async with silent_host() as port:
        with pytest.raises(TimedOut):
            await verify_password(cluster_of(port, connect_timeout_seconds=0.3), "alice", PASSWORD)


@pytest.mark.parametrize("password", [PASSWORD, "wrong-horse"])
async def test_the_password_is_in_no_log_and_no_error(
    host: LoginHost, caplog: pytest.LogCaptureFixture, password: str
) -> None:
    caplog.set_level(logging.DEBUG, logger="asyncssh")
    asyncssh.set_debug_level(3)
    shown = ""
    try:
        await verify_password(cluster_of(host), "alice", password)
    except LoginRefused as error:
        shown = f"{error!r} {error.detail} {error.params} {error.__cause__!r}"
    finally:
        asyncssh.set_debug_level(1)
    assert any(record.name == "asyncssh" for record in caplog.records)
    everything = "\n".join(record.getMessage() for record in caplog.records) + shown
    # Packet dumps break lines every 16 bytes, hence the short pieces.
    assert not any(password[start : start + 7] in everything for start in range(len(password) - 6))


def test_the_password_is_not_in_the_repr() -> None:
    assert "hunter2" not in repr(PasswordCredential("hunter2"))
