"""The keys of a new portal: made once, for one account only."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from launcher import keys
from launcher.ssh.ca import load_user_ca
from portal.conf import Conf


def test_a_new_portals_keys_are_private_and_of_the_right_kind(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    assert keys.make_all_keys(folder) == ["secret.key", "encryption.key", "ssh_user_ca"]
    for name in ("secret.key", "encryption.key", "ssh_user_ca"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    Fernet((folder / "encryption.key").read_text().strip().encode())
    assert load_user_ca(folder / "ssh_user_ca").public_line.startswith("ssh-ed25519 ")
    assert Conf(secret_key=(folder / "secret.key").read_text().strip(), data_folder=folder)  # type: ignore[arg-type]  # text, as the environment gives it


def test_the_command_makes_no_secret_key_since_that_is_a_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["keys", str(tmp_path)])
    assert keys.main() == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["encryption.key", "ssh_user_ca", "ssh_user_ca.pub"]


def test_keys_that_exist_are_kept(tmp_path: Path) -> None:
    keys.make_all_keys(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert keys.make_all_keys(tmp_path) == []
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_folder_that_cannot_be_made_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("sys.argv", ["keys", str(tmp_path / "file" / "below")])
    assert keys.main() == 1
    assert "file/below" in capsys.readouterr().err
