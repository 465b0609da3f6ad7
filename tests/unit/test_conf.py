"""The settings refuse what is unsafe, and say how to mend it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from portal.accounts.ways import PASSWORD_WAYS, REDIRECTING_WAYS
from portal.conf import PROJECT, WAYS_TO_SIGN_IN, Conf, unknown_settings

SECRET = "k3jf9w8efjw9e8fjwe98fjw9e8fjw9e8fjwe9"


def settings(**values: object) -> Conf:
    return Conf(_env_file=None, **{"secret_key": SECRET, "demo": False, **values})  # type: ignore[arg-type, call-arg]  # by name, as the environment gives them


def test_a_short_secret_is_refused_with_the_command_that_makes_one() -> None:
    with pytest.raises(ValidationError, match="openssl rand"):
        settings(secret_key="short")


def test_a_long_secret_of_one_letter_is_refused() -> None:
    with pytest.raises(ValidationError, match="random"):
        settings(secret_key="a" * 64)


def test_debugging_is_refused_outside_the_demo() -> None:
    with pytest.raises(ValidationError, match="PORTAL_DEBUG"):
        settings(debug=True)
    assert settings(debug=True, demo=True).debug


def test_a_ca_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    key = tmp_path / "ca"
    key.write_text("key")
    key.chmod(0o644)
    with pytest.raises(ValidationError, match="chmod 600"):
        settings(ssh_ca_key_file=key)
    key.chmod(0o600)
    assert settings(ssh_ca_key_file=key).ca_key_path == key


def test_a_portal_address_without_a_scheme_is_refused() -> None:
    with pytest.raises(ValidationError, match="PORTAL_URL"):
        settings(url="notebooks.example.org")


@pytest.mark.parametrize("url", ["http://[x", "http://host:port", "http://host:99999", "http://host:0", "https://"])
def test_a_portal_address_that_leads_nowhere_is_refused_by_its_name(url: str) -> None:
    with pytest.raises(ValidationError, match="PORTAL_URL must be a web address"):
        settings(url=url)


@pytest.mark.parametrize("name", ["ssh_ca_key_file", "encryption_key_files"])
def test_a_key_that_cannot_be_looked_at_is_a_mistake_of_its_setting(name: str) -> None:
    path = Path("/", "n" * 300)  # longer than names may be
    with pytest.raises(ValidationError, match=rf"PORTAL_{name.upper()}: /nnn.* let the account with the number"):
        settings(**{name: path if name == "ssh_ca_key_file" else (path,)})


def test_names_may_be_separated_by_commas_or_spaces() -> None:
    assert settings(administrators="ann, ben  carl").administrators == ("ann", "ben", "carl")


def test_the_secret_is_not_in_the_representation() -> None:
    assert SECRET not in repr(settings())


def test_the_portals_addresses_may_be_networks() -> None:
    assert settings(source_addresses="192.0.2.1, 2001:db8::/64").source_addresses == ("192.0.2.1", "2001:db8::/64")


@pytest.mark.parametrize("written", ["*", "portal.example.org", '192.0.2.1",no-pty,from="*', "192.0.2.1/8"])
def test_what_is_no_address_is_refused_where_sshd_reads_it(written: str) -> None:
    with pytest.raises(ValidationError):
        settings(source_addresses=written)


def test_an_unknown_way_to_sign_in_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValidationError, match=r"horoscope.*cluster"):
        settings(auth="cluster,horoscope")
    with pytest.raises(ValidationError, match="no way to sign in"):
        settings(auth="")


def test_every_way_that_may_be_named_has_a_class() -> None:
    assert set(WAYS_TO_SIGN_IN) == {*PASSWORD_WAYS, *REDIRECTING_WAYS}


def test_a_claim_without_a_value_is_refused() -> None:
    with pytest.raises(ValidationError, match="name=value"):
        settings(administrator_claims="hpc-admin")


def test_a_setting_may_be_a_file_of_the_folder_of_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "PORTAL_SECRET_KEY").write_text(f"{SECRET}\n")
    monkeypatch.delenv("PORTAL_SECRET_KEY", raising=False)
    monkeypatch.setenv("PORTAL_SECRETS_FOLDER", str(tmp_path))
    assert Conf(_env_file=None).secret_key.get_secret_value() == SECRET  # type: ignore[call-arg]  # as in conf()


def test_the_environment_counts_before_a_file_of_the_folder_of_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "PORTAL_SITE_NAME").write_text("from the file")
    monkeypatch.setenv("PORTAL_SECRETS_FOLDER", str(tmp_path))
    monkeypatch.setenv("PORTAL_SITE_NAME", "from the environment")
    assert settings().site_name == "from the environment"


def test_an_empty_line_in_the_environment_hides_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "PORTAL_DATABASE_URL").write_text("postgresql:///portal\n")
    monkeypatch.setenv("PORTAL_SECRETS_FOLDER", str(tmp_path))
    monkeypatch.setenv("PORTAL_DATABASE_URL", "")
    assert settings().database == "postgresql:///portal"


def test_a_file_may_be_a_link_as_orchestrators_make_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "..data").mkdir()
    (tmp_path / "..data" / "url").write_text("postgresql:///portal")
    (tmp_path / "PORTAL_DATABASE_URL").symlink_to("..data/url")
    monkeypatch.setenv("PORTAL_SECRETS_FOLDER", str(tmp_path))
    assert settings().database == "postgresql:///portal"


def no_text(path: Path) -> None:
    path.write_bytes(b"postgresql:///\xff")


def with_a_zero_byte(path: Path) -> None:
    path.write_bytes(b"postgresql:///portal\0\n")


def link_to_nothing(path: Path) -> None:
    path.symlink_to(path.parent / "gone")


def link_to_itself(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, no_text, with_a_zero_byte, link_to_nothing, link_to_itself])
def test_the_portal_does_not_start_without_a_setting_whose_file_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "PORTAL_DATABASE_URL")
    monkeypatch.setenv("PORTAL_SECRETS_FOLDER", str(tmp_path))
    with pytest.raises(ValidationError, match=r"no file with text: .*PORTAL_DATABASE_URL"):
        settings()


def test_a_file_of_gigabytes_is_no_setting_and_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "PORTAL_DATABASE_URL").open("wb") as file:
        file.truncate(1 << 40)  # a hole: it takes no room on the disk, and more than there is in memory
    with pytest.raises(ValidationError, match=r"no file with text: .*PORTAL_DATABASE_URL"):
        settings(secrets_folder=tmp_path)


def test_a_folder_of_secrets_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="there is no folder"):
        settings(secrets_folder=tmp_path / "gone")


def test_a_name_that_no_folder_can_have_is_a_mistake_like_another(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"cannot be read .*let the account with the number"):
        settings(secrets_folder=tmp_path / ("n" * 300))


@pytest.mark.parametrize("source", ["environment", "argument"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    unreadable_by_anybody(tmp_path / "PORTAL_DATABASE_URL")
    monkeypatch.setenv("PORTAL_SECRETS_FOLDER", str(tmp_path) if source == "environment" else "")
    with pytest.raises(ValidationError, match=r"cannot be read: .*PORTAL_DATABASE_URL .*let the account"):
        settings(**({"secrets_folder": tmp_path} if source == "argument" else {}))


def unreadable_by_anybody(path: Path) -> None:
    """By root neither: nothing lies at a process's address 0."""
    path.symlink_to("/proc/self/mem")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_and_a_folder_that_this_account_may_not_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "PORTAL_DATABASE_URL").touch(mode=0)
    with pytest.raises(ValidationError, match=r"PORTAL_DATABASE_URL \(Permission denied\)"):
        settings(secrets_folder=tmp_path)
    tmp_path.chmod(0)
    with pytest.raises(ValidationError, match=r"cannot be read \(Permission denied\)"):
        settings(secrets_folder=tmp_path)


def test_an_empty_line_in_the_environment_hides_no_folder_that_the_file_of_settings_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "secrets"
    folder.mkdir()
    (folder / "PORTAL_DATABASE_URL").write_text("postgresql:///portal\n")
    (tmp_path / "env").write_text(f"PORTAL_SECRETS_FOLDER={folder}\n")
    monkeypatch.setenv("PORTAL_SECRETS_FOLDER", "")
    found = Conf(_env_file=tmp_path / "env", secret_key=SECRET)  # type: ignore[call-arg, arg-type]  # as in settings()
    assert (found.database, found.secrets_folder) == ("postgresql:///portal", folder)
    assert found.secret_files == (folder / "PORTAL_DATABASE_URL",)


def test_a_folder_that_the_environment_names_counts_before_that_of_the_file_of_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "env").write_text(f"PORTAL_SECRETS_FOLDER={tmp_path / 'gone'}\n")
    monkeypatch.setenv("PORTAL_SECRETS_FOLDER", str(tmp_path))
    found = Conf(_env_file=tmp_path / "env", secret_key=SECRET)  # type: ignore[call-arg, arg-type]  # as in settings()
    assert found.secrets_folder == tmp_path


def test_a_process_with_wrong_settings_ends_with_a_line_for_each_and_no_traceback(tmp_path: Path) -> None:
    unreadable_by_anybody(tmp_path / "PORTAL_SECRET_KEY")
    environment = {"PATH": os.defpath, "PORTAL_SECRETS_FOLDER": str(tmp_path), "PORTAL_PORT": "many"}
    for command in (
        ["manage.py", "check"],
        ["-m", "celery", "--app", "portal", "report"],
        ["-c", "import portal.asgi"],
    ):
        run = [sys.executable, *command]
        ended = subprocess.run(run, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
        assert ended.returncode == 1
        lines = ended.stderr.splitlines()
        assert {"PORTAL_SECRETS_FOLDER", "PORTAL_SECRET_KEY", "PORTAL_PORT"} <= {
            line.strip().partition(":")[0] for line in lines[1:]
        }
        assert "Traceback" not in ended.stderr
        assert "many" not in ended.stderr


def test_a_file_of_settings_that_is_no_text_is_named_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "env").write_bytes(b"PORTAL_SITE_NAME=Universit\xe4t\n")
    program = (
        "from pathlib import Path; import portal.conf as c; c.PROJECT = Path(); "
        f"c.Conf.model_config['env_file'] = {str(tmp_path / 'env')!r}; c.conf()"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr.splitlines()[1:]) == (1, ["  .env is no text in UTF-8; save it so"])


def test_a_misspelt_file_in_the_folder_of_secrets_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "PORTAL_SECERT_KEY").write_text(SECRET)
    monkeypatch.setenv("PORTAL_SECRETS_FOLDER", str(tmp_path))
    assert unknown_settings()["PORTAL_SECERT_KEY"] == "PORTAL_SECRET_KEY"
