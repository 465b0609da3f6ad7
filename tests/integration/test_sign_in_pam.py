"""Signing in with a password of this machine, by real PAM with ``pam_unix``: an account made for the test, as root."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.test_conf import settings

pytest.importorskip("pam", reason="python-pam is not installed")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        os.geteuid() != 0 or os.environ.get("CI") != "true",
        reason="it makes an account on this machine: only as root, and only where CI=true says that is fine",
    ),
]

from portal.accounts.ways.base import Superuser  # noqa: E402  # as the next one
from portal.accounts.ways.pam import HostPassword, PamRefused  # noqa: E402  # what it needs may be missing

ACCOUNT, PASSWORD = "fb-pam-test", "Pa55word of the machine: ü"
SERVICE = Path("/etc/pam.d/footbridge-test")


def run(*command: str, text: str = "") -> None:
    subprocess.run(command, input=text.encode(), check=True, capture_output=True, timeout=60)


@pytest.fixture
def account() -> Iterator[str]:
    SERVICE.write_text("auth required pam_unix.so nodelay\naccount required pam_unix.so\n")
    run("useradd", "--no-create-home", "--user-group", "--comment", "Test of PAM,room 1", ACCOUNT)
    try:
        run("chpasswd", text=f"{ACCOUNT}:{PASSWORD}")
        yield ACCOUNT
    finally:
        run("userdel", ACCOUNT)
        SERVICE.unlink()


def way(service: str = SERVICE.name) -> HostPassword:
    return HostPassword(settings(auth="pam", pam_service=service))


def test_a_right_password_gives_the_account_its_groups_and_its_name(account: str) -> None:
    who = way().check(account, PASSWORD)
    assert who is not None
    assert (who.username, who.groups, who.display_name) == (account, (account,), "Test of PAM")


@pytest.mark.parametrize(
    ("username", "password"),
    [(ACCOUNT, "wrong"), (ACCOUNT, ""), (ACCOUNT, PASSWORD + "\0"), ("fb-nobody", PASSWORD)],
    ids=["wrong", "empty", "nul", "unknown"],
)
def test_all_else_is_refused(account: str, username: str, password: str) -> None:
    assert way().check(username, password) is None


def test_a_locked_account_is_refused(account: str) -> None:
    run("usermod", "--lock", account)
    assert way().check(account, PASSWORD) is None


def test_an_account_that_has_run_out_is_told_so(account: str) -> None:
    run("usermod", "--expiredate", "2001-01-01", account)
    with pytest.raises(PamRefused) as refused:
        way().check(account, PASSWORD)
    assert refused.value.code == "pam.closed"


def test_a_password_that_must_be_changed_is_told_so(account: str) -> None:
    run("chage", "--lastday", "0", account)
    with pytest.raises(PamRefused) as refused:
        way().check(account, PASSWORD)
    assert refused.value.code == "pam.password_expired"


@pytest.mark.parametrize("said", ["perm_denied", "acct_expired"])
def test_what_is_said_before_the_password_was_found_right_is_a_wrong_password(account: str, said: str) -> None:
    SERVICE.write_text(f"auth required pam_debug.so auth={said}\naccount required pam_permit.so\n")
    assert way().check(account, "guess") is None


def test_an_account_with_the_number_of_root_is_refused(account: str) -> None:
    twin = "fb-pam-root"
    run("useradd", "--no-create-home", "--non-unique", "--uid", "0", "--gid", account, twin)
    try:
        run("chpasswd", text=f"{twin}:{PASSWORD}")
        with pytest.raises(Superuser):
            way().check(twin, PASSWORD)
        assert way().check(twin, "wrong") is None
        assert way().check(account, PASSWORD) is not None
    finally:
        run("userdel", "--force", twin)


def test_a_service_that_refuses_everybody_is_no_success(account: str) -> None:
    SERVICE.write_text("auth required pam_deny.so\naccount required pam_deny.so\n")
    assert way().check(account, PASSWORD) is None
