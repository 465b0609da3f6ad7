"""The CA's key file: made once, kept private, refused when it is not."""

from __future__ import annotations

import stat
from pathlib import Path

import asyncssh
import pytest

from launcher.ssh.ca import CAError, create_user_ca, load_user_ca


def test_a_new_ca_is_private_and_its_public_half_lies_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "user_ca"
    create_user_ca(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    ca = load_user_ca(path)
    assert ca.public_line == path.with_name("user_ca.pub").read_text().strip()
    assert ca.public_line.startswith("ssh-ed25519 ")
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["user_ca", "user_ca.pub"]


def test_an_existing_ca_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "user_ca"
    create_user_ca(path)
    before = path.read_bytes(), path.with_name("user_ca.pub").read_bytes()
    with pytest.raises(CAError, match="already exists"):
        create_user_ca(path)
    assert (path.read_bytes(), path.with_name("user_ca.pub").read_bytes()) == before
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o660, 0o644])
def test_a_key_that_others_can_reach_is_refused_with_the_cure(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "user_ca"
    create_user_ca(path)
    path.chmod(mode)
    with pytest.raises(CAError) as caught:
        load_user_ca(path)
    assert f"chmod 600 {path}" in caught.value.detail


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(CAError, match="No such file"):
        load_user_ca(tmp_path / "user_ca")


def test_a_folder_is_no_key(tmp_path: Path) -> None:
    with pytest.raises(CAError):
        load_user_ca(tmp_path)


def test_a_key_with_a_passphrase_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "user_ca"
    path.touch(mode=0o600)
    path.write_bytes(asyncssh.generate_private_key("ssh-ed25519").export_private_key("pkcs8-pem", "passphrase"))
    with pytest.raises(CAError, match="unencrypted"):
        load_user_ca(path)


def test_the_private_key_is_not_in_the_repr(tmp_path: Path) -> None:
    create_user_ca(tmp_path / "user_ca")
    ca = load_user_ca(tmp_path / "user_ca")
    assert "key=" not in repr(ca)
