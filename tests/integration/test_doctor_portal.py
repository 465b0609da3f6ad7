"""What ``manage.py doctor`` finds about a portal: a whole demo runs, each test breaks one real thing of it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
from cryptography.fernet import Fernet
from django.conf import settings

from launcher.doctor.findings import Outcome
from launcher.doctor.portal import settings_known, settings_parse
from portal.conf import PROJECT, Conf
from tests.integration.ssh_server import free_port
from tests.integration.test_demo_supervisor import Demo

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(sys.platform != "linux", reason="needs /proc"),
]


@dataclass(frozen=True)
class Result:
    """What one run of the command said."""

    status: int
    findings: list[dict[str, Any]]
    output: str

    @property
    def trouble(self) -> list[dict[str, Any]]:
        """What is doubtful or broken."""
        return [one for one in self.findings if one["outcome"] in ("doubtful", "broken")]

    def only(self, check: str) -> dict[str, Any]:
        """The one thing that is wrong."""
        assert [one["id"] for one in self.trouble] == [check], self.trouble
        assert self.trouble[0]["cure"]
        assert self.status == {"doubtful": 1, "broken": 2}[self.trouble[0]["outcome"]]
        return self.trouble[0]

    def said(self, check: str) -> list[str]:
        """All that one check found."""
        return [one["what"] for one in self.findings if one["id"] == check]

    def outcome(self, check: str) -> str:
        """How one check came out."""
        return str(next(one["outcome"] for one in self.findings if one["id"] == check))


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    """A demo that runs, for all tests of this module."""
    with tempfile.TemporaryDirectory(prefix="fbx-", ignore_cleanup_errors=True) as root:
        one = Demo(Path(root) / "var")
        try:
            one.wait_until_ready()
            yield one
        finally:
            one.process.terminate()
            one.process.wait(60)


def environment(demo: Demo, **changes: str) -> dict[str, str]:
    """The settings of the demo's processes, with some changed."""
    wishes = settings.CONF.model_copy(update={"host": "127.0.0.1", "port": demo.port})
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("PORTAL_", "DJANGO_"))}
    return plain | demo.folder.environment(wishes) | changes


def doctor(env: dict[str, str], *arguments: str) -> Result:
    """Run the command to its end; without its last part, the clusters, unless told otherwise."""
    arguments = arguments or ("--portal",)
    done = subprocess.run(
        [sys.executable, "manage.py", "doctor", "--json", *arguments],
        cwd=PROJECT, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    return Result(done.returncode, json.loads(done.stdout)["findings"], done.stdout)


@contextlib.contextmanager
def held_up(demo: Demo, word: str) -> Iterator[None]:
    """The demo's process with ``word`` in its command line stands still."""
    (pid,) = [pid for pid, line in demo.left().items() if word in line and " -IS " not in line]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_nothing_is_wrong_with_the_demo(demo: Demo) -> None:
    result = doctor(environment(demo), "demo")
    assert (result.trouble, result.status) == ([], 0)
    skipped = {one["id"] for one in result.findings if one["outcome"] == "not checked"}
    assert skipped == {"portal.mail", "cluster.job"}


def test_lines_for_people_say_the_same_without_colours(demo: Demo) -> None:
    done = demo.command("--", "doctor", "demo", "--as", "alice")
    assert done.returncode == 0, done.stdout
    assert "\x1b" not in done.stdout
    assert "Demo cluster (demo), as alice" in done.stdout
    assert "ok          The database" in done.stdout
    assert re.fullmatch(r"2 not checked, \d+ ok\.", done.stdout.rstrip().splitlines()[-1])


def test_a_misspelt_setting_is_named_with_the_nearest_one_and_without_its_value(demo: Demo) -> None:
    result = doctor(environment(demo, PORTAL_SIGN_IN_ATEMPTS="hush-hush"))
    found = result.only("portal.names")
    assert "PORTAL_SIGN_IN_ATEMPTS" in found["what"]
    assert "PORTAL_SIGN_IN_ATTEMPTS" in found["cure"]
    assert "hush-hush" not in result.output


def test_a_short_secret_is_named_where_django_does_not_even_start(demo: Demo) -> None:
    result = doctor(environment(demo, PORTAL_SECRET_KEY="short-secret"))
    assert result.only("portal.settings")["command"] == "openssl rand -base64 48"
    assert result.outcome("portal.rest") == "not checked"
    assert "short-secret" not in result.output


def test_a_file_of_settings_that_is_no_text_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_bytes(b"PORTAL_SITE_NAME=Universit\xe4t\n")
    monkeypatch.setitem(Conf.model_config, "env_file", tmp_path / ".env")
    for module in ("portal.conf", "launcher.doctor.portal"):
        monkeypatch.setattr(f"{module}.PROJECT", tmp_path)
    (said,) = settings_parse(None)
    assert (said.outcome, said.what.text) == (Outcome.BROKEN, "%(file)s is no text in UTF-8.")
    assert said.what.params == {"file": str(tmp_path / ".env")}
    assert [said.outcome for said in settings_known(None)] == [Outcome.SKIPPED]


def test_every_wrong_setting_has_its_line(demo: Demo) -> None:
    result = doctor(environment(demo, PORTAL_PORT="many", PORTAL_LOG_FORMAT="poem"))
    assert [one["what"].split(":")[0] for one in result.trouble] == ["PORTAL_PORT", "PORTAL_LOG_FORMAT"]


def test_a_key_that_others_can_read_is_named(demo: Demo, tmp_path: Path) -> None:
    shutil.copy(demo.folder.user_ca, tmp_path / "ca")
    (tmp_path / "ca").chmod(0o644)
    result = doctor(environment(demo, PORTAL_SSH_CA_KEY_FILE=str(tmp_path / "ca")))
    assert result.only("portal.settings")["command"] == f"chmod 600 {tmp_path / 'ca'}"


def test_a_missing_authority_is_named_and_no_login_is_tried(demo: Demo, tmp_path: Path) -> None:
    result = doctor(environment(demo, PORTAL_SSH_CA_KEY_FILE=str(tmp_path / "nothing")), "demo")
    assert "launcher.keys" in result.only("portal.ca")["command"]
    assert result.outcome("cluster.host_key") == "ok"
    assert result.outcome("cluster.login") == "not checked"


def test_a_file_with_a_setting_that_is_open_to_others_is_named(demo: Demo, tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    folder.mkdir()
    (folder / "PORTAL_EMAIL_URL").write_text("smtp://me:hush-hush@127.0.0.1:9")
    for path, mode in ((folder / "PORTAL_EMAIL_URL", 0o644), (folder, 0o755)):
        path.chmod(mode)
    result = doctor(environment(demo, PORTAL_SECRETS_FOLDER=str(folder)))
    assert f"chmod 600 {folder / 'PORTAL_EMAIL_URL'}" in [one["command"] for one in result.trouble]
    assert "hush-hush" not in result.output


def test_a_data_folder_that_is_open_to_others_is_named(demo: Demo) -> None:
    demo.folder.root.chmod(0o755)
    try:
        result = doctor(environment(demo))
    finally:
        demo.folder.root.chmod(0o700)
    assert f"chmod 700 {demo.folder.root}" in [one["command"] for one in result.trouble]
    assert {one["id"] for one in result.trouble} == {"portal.files"}


def test_an_encryption_key_that_is_none_is_named(demo: Demo, tmp_path: Path) -> None:
    (tmp_path / "key").touch(mode=0o600)
    (tmp_path / "key").write_text("not a key")
    result = doctor(environment(demo, PORTAL_ENCRYPTION_KEY_FILES=str(tmp_path / "key")))
    assert "backup" in result.only("portal.encryption")["cure"]


def test_a_database_that_is_not_there_is_named_and_not_made(demo: Demo, tmp_path: Path) -> None:
    path = tmp_path / "none.sqlite3"
    result = doctor(environment(demo, PORTAL_DATABASE_URL=f"sqlite:///{path}"), "demo")
    assert result.only("portal.database")["command"] == "manage.py migrate"
    assert not path.exists()
    assert result.outcome("cluster.queues") == "ok"


def copy_of_database(demo: Demo, path: Path) -> sqlite3.Connection:
    """The demo's database once more."""
    path.touch(mode=0o600)
    copy = sqlite3.connect(path)
    with contextlib.closing(sqlite3.connect(demo.folder.root / "demo.sqlite3")) as original:
        original.backup(copy)
    return copy


def test_a_migration_that_is_missing_is_named(demo: Demo, tmp_path: Path) -> None:
    with contextlib.closing(copy_of_database(demo, tmp_path / "old.sqlite3")) as copy:
        newest = "SELECT max(name) FROM django_migrations WHERE app = 'launcher'"
        (name,) = copy.execute(newest).fetchone()
        copy.execute("DELETE FROM django_migrations WHERE app = 'launcher' AND name = ?", (name,))
        copy.commit()
    result = doctor(environment(demo, PORTAL_DATABASE_URL=f"sqlite:///{tmp_path}/old.sqlite3"))
    found = result.only("portal.migrations")
    assert f"launcher.{name}" in found["what"]
    assert found["command"] == "manage.py migrate"


def test_secrets_that_no_key_opens_are_named(demo: Demo, tmp_path: Path) -> None:
    with contextlib.closing(copy_of_database(demo, tmp_path / "sealed.sqlite3")) as copy:
        table = "launcher_interactivesession"
        columns = [row[1:4] for row in copy.execute(f"PRAGMA table_info({table})")]
        values: dict[str, object] = {
            name: 0 if "int" in kind.lower() else "" for name, kind, needed in columns if needed
        }
        values |= {"id": "abcdefgh", "user_id": 1, "choices": "{}", "end_params": "{}", "created_at": "2026-01-01"}
        values |= {"secret_encrypted": Fernet(Fernet.generate_key()).encrypt(b"secret")}
        known = {name: value for name, value in values.items() if name in {column[0] for column in columns}}
        copy.execute("PRAGMA ignore_check_constraints = ON")
        marks = ", ".join("?" * len(known))
        insert = f"INSERT INTO {table} ({', '.join(known)}) VALUES ({marks})"  # noqa: S608  # names of its own columns
        copy.execute(insert, [*known.values()])
        copy.commit()
    result = doctor(environment(demo, PORTAL_DATABASE_URL=f"sqlite:///{tmp_path}/sealed.sqlite3"))
    assert "PORTAL_ENCRYPTION_KEY_FILES" in result.only("portal.sealed")["cure"]


def test_a_mistake_in_the_clusters_file_is_named_with_its_key(demo: Demo, tmp_path: Path) -> None:
    text = demo.folder.clusters_file.read_text().replace("commands_folder", "comands_folder")
    (tmp_path / "clusters.toml").write_text(text)
    result = doctor(environment(demo, PORTAL_CLUSTERS_FILE=str(tmp_path / "clusters.toml")))
    assert "clusters.demo.comands_folder" in result.only("portal.clusters")["what"]


def test_a_cluster_that_does_not_exist_is_said(demo: Demo) -> None:
    assert "Name one of these: demo." in doctor(environment(demo), "nowhere").only("cluster.id")["cure"]


def test_an_unknown_way_to_sign_in_is_named(demo: Demo) -> None:
    result = doctor(environment(demo, PORTAL_AUTH="horoscope"))
    assert "horoscope" in result.only("portal.settings")["what"]


def test_an_unknown_cluster_for_signing_in_is_named(demo: Demo) -> None:
    assert "demo" in doctor(environment(demo, PORTAL_AUTH_CLUSTER="nowhere")).only("portal.sign_in")["cure"]


def test_without_an_operator_it_says_who_tells_that_an_account_is_not_roots(demo: Demo, tmp_path: Path) -> None:
    lines = demo.folder.clusters_file.read_text().splitlines()
    kept = [line for line in lines if not line.startswith(("operator", "extend_times"))]
    (tmp_path / "clusters.toml").write_text("\n".join(kept))
    result = doctor(environment(demo, PORTAL_CLUSTERS_FILE=str(tmp_path / "clusters.toml")))
    assert any("its own shell alone says" in what for what in result.said("portal.sign_in"))
    assert not any("shell" in what for what in doctor(environment(demo)).said("portal.sign_in"))


def test_valkey_that_is_away_is_named_and_the_clusters_are_looked_at_all_the_same(demo: Demo, tmp_path: Path) -> None:
    result = doctor(environment(demo, PORTAL_VALKEY_URL=f"unix://{tmp_path}/none.sock"), "demo")
    assert "PORTAL_VALKEY_URL" in result.only("portal.valkey")["cure"]
    assert {result.outcome(f"portal.{name}") for name in ("clock", "worker", "beat", "web")} == {"not checked"}
    assert result.outcome("cluster.queues") == "ok"


def test_a_password_in_an_address_is_not_shown(demo: Demo) -> None:
    result = doctor(environment(demo, PORTAL_VALKEY_URL=f"redis://:hush-hush@127.0.0.1:{free_port()}/0"))
    assert result.only("portal.valkey")
    assert "hush-hush" not in result.output


def test_valkey_that_throws_work_away_when_full_is_doubtful(demo: Demo) -> None:
    with contextlib.closing(redis.Redis(unix_socket_path=str(demo.folder.valkey_socket))) as valkey:
        valkey.config_set("maxmemory", "200mb")
        valkey.config_set("maxmemory-policy", "allkeys-lru")
        try:
            result = doctor(environment(demo))
        finally:
            valkey.config_set("maxmemory", "0")
            valkey.config_set("maxmemory-policy", "noeviction")
    assert "maxmemory-policy noeviction" in result.only("portal.valkey")["command"]


def test_a_worker_that_stands_still_is_named_and_beat_is_not_blamed(demo: Demo) -> None:
    with held_up(demo, " worker "):
        result = doctor(environment(demo))
    assert result.only("portal.worker")["command"] == "systemctl restart footbridge-worker"
    assert result.outcome("portal.beat") == "ok"


def test_a_beat_that_stands_still_is_named_and_the_worker_is_not_blamed(demo: Demo) -> None:
    with held_up(demo, " beat "):
        result = doctor(environment(demo))
    assert result.only("portal.beat")["command"] == "systemctl restart footbridge-beat"
    assert result.outcome("portal.worker") == "ok"


def test_a_web_process_that_stands_still_is_named(demo: Demo) -> None:
    with held_up(demo, "uvicorn"):
        result = doctor(environment(demo))
    assert result.only("portal.web")["command"] == "systemctl restart footbridge-web"


def test_an_address_that_does_not_lead_to_the_portal_is_named(demo: Demo) -> None:
    found = doctor(environment(demo, PORTAL_URL=f"http://localhost:{free_port()}")).only("portal.web")
    assert "PORTAL_URL" in found["cure"]
    assert "runs on this computer" in found["what"]


def test_sessions_on_the_browsers_own_computer_are_named_for_a_public_portal(demo: Demo) -> None:
    result = doctor(environment(demo, PORTAL_URL="http://portal.invalid"))
    assert {one["id"] for one in result.trouble} == {"portal.web", "portal.sessions_domain"}
    found = next(one for one in result.trouble if one["id"] == "portal.sessions_domain")
    assert "sessions.portal.invalid" in found["cure"]


def test_a_sessions_domain_that_is_not_in_dns_is_named(demo: Demo) -> None:
    found = doctor(environment(demo, PORTAL_SESSIONS_DOMAIN="sessions.invalid")).only("portal.sessions_domain")
    assert "*.sessions.invalid" in found["cure"]


def test_a_mail_server_that_is_away_is_named(demo: Demo) -> None:
    url = f"smtp://someone:hush-hush@127.0.0.1:{free_port()}"
    result = doctor(environment(demo, PORTAL_EMAIL_URL=url))
    assert "PORTAL_EMAIL_URL" in result.only("portal.mail")["cure"]
    assert "hush-hush" not in result.output


def test_static_files_that_were_not_collected_are_named(demo: Demo) -> None:
    if (PROJECT / "staticfiles").exists():
        pytest.skip("they have been collected here")
    result = doctor(environment(demo, PORTAL_DEMO="0"))
    # plain HTTP outside the demo is the second doubt, and the demo's clusters file is as good as any
    assert {one["id"] for one in result.trouble} == {"portal.settings", "portal.static"}
    found = next(one for one in result.trouble if one["id"] == "portal.static")
    assert found["command"] == "manage.py collectstatic --noinput"
