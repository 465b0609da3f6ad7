"""The compose files keep what they promise: order, health checks, closed containers, secrets in files only."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from portal.conf import PROJECT, Conf

SETTINGS = {f"PORTAL_{name.upper()}" for name in Conf.model_fields}
SECRETS = {
    name
    for name in SETTINGS
    if re.search(r"SECRET_KEY|PASSWORD|CLIENT_SECRET$|DATABASE_URL|VALKEY_URL|EMAIL_URL", name)
}
ENDS_BY_ITSELF = {"prepare", "migrate"}
"""What others wait for by its end, so that it needs no health check."""


def _composed(path: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((PROJECT / path).read_text(encoding="utf-8"))
    return document


BASE = _composed("docker-compose.yml")
SERVICES: dict[str, dict[str, Any]] = BASE["services"]
SITE: dict[str, dict[str, Any]] = _composed("deploy/compose.site.yml")["services"]
PORTAL = [name for name, service in SERVICES.items() if service["image"] == "footbridge-portal" and name != "prepare"]


def _waits_for(name: str) -> set[tuple[str, str]]:
    return {(other, how["condition"]) for other, how in SERVICES[name].get("depends_on", {}).items()}


def _python_arguments(service: dict[str, Any]) -> list[str]:
    command: list[str] = service["command"]
    assert command[0] == "python"
    return command[1:]


def test_the_portals_processes_are_all_there() -> None:
    assert set(PORTAL) == {"migrate", "web", "worker", "beat"}


@pytest.mark.parametrize("name", [*PORTAL, "prepare"])
def test_what_a_container_runs_exists(name: str) -> None:
    arguments = _python_arguments(SERVICES[name])
    if arguments[0] == "-m":
        assert importlib.util.find_spec(arguments[1])
    else:
        assert (PROJECT / arguments[0]).is_file()


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_says_whether_it_is_well_or_ends_by_itself(name: str) -> None:
    service = SERVICES[name]
    assert ("healthcheck" in service) != (name in ENDS_BY_ITSELF)
    assert (service["restart"] == "no") == (name in ENDS_BY_ITSELF)


@pytest.mark.parametrize("name", sorted(set(SERVICES) - ENDS_BY_ITSELF))
def test_what_a_health_check_runs_of_ours_exists(name: str) -> None:
    check: list[str] = SERVICES[name]["healthcheck"]["test"]
    words = shlex.split(check[1]) if check[0] == "CMD-SHELL" else check[1:]
    assert [word for word in words if word.endswith(".py") and not (PROJECT / word).is_file()] == []


@pytest.mark.parametrize("name", ["web", "worker", "beat"])
def test_a_process_waits_for_the_tables_and_for_valkey(name: str) -> None:
    assert _waits_for(name) == {("migrate", "service_completed_successfully"), ("valkey", "service_healthy")}


def test_the_tables_wait_for_keys_and_database() -> None:
    assert _waits_for("migrate") == {("prepare", "service_completed_successfully"), ("postgres", "service_healthy")}


@pytest.mark.parametrize("name", ["postgres", "valkey", "cluster"])
def test_what_reads_made_files_waits_for_them(name: str) -> None:
    assert ("prepare", "service_completed_successfully") in _waits_for(name)


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_has_no_capability_and_a_root_that_nobody_writes(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_containers_log_does_not_grow_without_end(name: str) -> None:
    assert {"max-size", "max-file"} <= set(SERVICES[name]["logging"]["options"])


@pytest.mark.parametrize("services", [SERVICES, SITE], ids=["demo", "site"])
def test_only_settings_that_exist_and_no_secrets_are_in_the_environment(services: dict[str, dict[str, Any]]) -> None:
    named = {
        variable
        for service in services.values()
        for variable in service.get("environment", {})
        if variable.startswith("PORTAL_")
    }
    assert named <= SETTINGS
    assert named & SECRETS == set()


def test_no_secret_is_passed_to_the_database_but_as_a_file() -> None:
    assert {name for name in SERVICES["postgres"]["environment"] if "PASSWORD" in name} == {"POSTGRES_PASSWORD_FILE"}


def test_the_demo_cluster_shares_no_network_and_no_keys_with_the_database() -> None:
    cluster = SERVICES["cluster"]
    stores = {network for name in ("postgres", "valkey") for network in SERVICES[name]["networks"]}
    assert stores == {"data"}
    assert BASE["networks"]["data"]["internal"]
    assert "data" not in cluster["networks"]
    assert {volume.partition(":")[0] for volume in cluster["volumes"]} == {"cluster", "config"}


@pytest.mark.parametrize("setting", ["PORTAL_SSH_CA_KEY_FILE", "PORTAL_ENCRYPTION_KEY_FILES"])
def test_another_key_can_be_named_in_the_settings_file(setting: str) -> None:
    """What compose sets outright, no ``.env`` changes."""
    assert {SERVICES[name]["environment"][setting].partition(":-")[0] for name in PORTAL} == {f"${{{setting}"}


def test_only_a_port_of_this_computer_is_published() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert list(published) == ["web"]
    assert all(port.startswith("127.0.0.1:") for port in published["web"])


def test_docker_leads_the_published_port_through_the_network_of_the_trusted_address() -> None:
    """Docker takes the first by name that leads out."""
    ways_out = sorted(
        name for name in SERVICES["web"]["networks"] if not (BASE["networks"][name] or {}).get("internal")
    )
    assert ways_out[0] == "front"


@pytest.mark.parametrize("name", PORTAL)
def test_a_process_has_more_time_to_end_than_it_drains(name: str) -> None:
    default = Conf.model_fields["drain_seconds"].default
    assert int(SERVICES[name]["stop_grace_period"].removesuffix("s")) > default


@pytest.mark.parametrize("name", PORTAL)
def test_a_process_can_be_stopped_while_it_still_starts(name: str) -> None:
    """As a container's first process it would ignore SIGTERM until then, and be killed after the grace period."""
    assert SERVICES[name]["init"] is True


def test_a_real_site_takes_over_every_process_and_leaves_the_demo_cluster_out() -> None:
    assert set(SITE) == {*PORTAL, "prepare", "cluster"}
    assert SITE["cluster"] == {"profiles": ["demo"]}
    assert {SITE[name]["environment"]["PORTAL_DEMO"] for name in (*PORTAL, "prepare")} == {"false"}


def test_what_an_image_copies_exists() -> None:
    text = (PROJECT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    copied = [word for line in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE) for word in line.split()]
    assert copied
    assert [word for word in copied if not (PROJECT / word).exists()] == []


def test_an_image_gets_only_what_is_named() -> None:
    """A backup's keys, left in the folder, once went into the image."""
    first, *rest = [line for line in (PROJECT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    named = {line.removeprefix("!") for line in rest if line.startswith("!")}
    assert first == "*"
    assert {path.name for path in PROJECT.iterdir() if (path / "__init__.py").is_file()} - {"tests"} <= named
    assert {name for name in named if not (PROJECT / name).exists()} == set()
    assert named & {".env", ".git", "var", "config", "docs", "tests"} == set()


@pytest.mark.parametrize("name", ["footbridge.dump", "keys.tar"])
def test_what_the_page_writes_as_a_backup_does_not_get_into_the_repository(name: str) -> None:
    assert any(f"> {name}" in line for block in _commands("en") for line in block)
    assert f"/{name}" in (PROJECT / ".gitignore").read_text(encoding="utf-8").splitlines()


def test_a_folder_in_memory_is_closed_to_others_after_a_restart_too() -> None:
    """At a restart such a folder was seen to get the mode that it has in the image (runc 1.1.5)."""
    text = (PROJECT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    made = {
        path
        for paths in re.findall(r"install -d \S+ footbridge \S+ footbridge -m 0700 (.+) \\", text)
        for path in paths.split()
    }
    mounted = {place.partition(":")[0] for name in PORTAL for place in SERVICES[name]["tmpfs"] if "mode=0700" in place}
    assert mounted == {"/data"}
    assert mounted <= made


def test_prepare_leaves_the_configuration_of_a_real_site_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from deploy import prepare

    for name in ("KEYS", "DATABASE_KEYS", "VALKEY_KEYS", "CONFIG", "CLUSTER"):
        (tmp_path / name).mkdir(mode=0o700)
        monkeypatch.setattr(prepare, name, tmp_path / name)
    monkeypatch.setenv("PORTAL_DEMO", "false")
    prepare.main()
    assert list((tmp_path / "CONFIG").iterdir()) == []
    monkeypatch.setenv("PORTAL_DEMO", "true")
    prepare.main()
    assert {path.name for path in (tmp_path / "CONFIG").iterdir()} == {"clusters.toml", "ssh_user_ca.pub"}


def test_prepare_makes_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from deploy import prepare

    for name in ("KEYS", "DATABASE_KEYS", "VALKEY_KEYS"):
        (tmp_path / name).mkdir(mode=0o700)
        monkeypatch.setattr(prepare, name, tmp_path / name)

    def contents() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    assert prepare.make_secrets()
    first = contents()
    assert prepare.make_secrets() == []
    assert contents() == first


def test_prepare_makes_a_password_anew_whose_files_were_taken_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the page on containers says of other passwords."""
    from deploy import prepare

    for name in ("KEYS", "DATABASE_KEYS", "VALKEY_KEYS"):
        (tmp_path / name).mkdir(mode=0o700)
        monkeypatch.setattr(prepare, name, tmp_path / name)
    database = [prepare.DATABASE_KEYS / "password", prepare.KEYS / "PORTAL_DATABASE_URL"]
    valkey = [prepare.VALKEY_KEYS / name for name in ("password", "valkey.conf")]
    valkey.append(prepare.KEYS / "PORTAL_VALKEY_URL")
    prepare.make_secrets()
    for files in (database, valkey):
        before = {path: path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
        for path in files:
            path.unlink()
        assert prepare.make_secrets() == [str(path) for path in files]
        assert {path for path, text in before.items() if path.read_text() != text} == set(files)
        password = files[0].read_text().strip()
        assert all(password in path.read_text() for path in files)


def _commands(language: str) -> list[list[str]]:
    """The page's blocks of commands, without what is said beside them."""
    text = (PROJECT / "docs" / language / "containers.md").read_text(encoding="utf-8")
    blocks: list[str] = re.findall(r"^ *```\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
    return [[re.sub(r"\s+#.*", "", line).strip() for line in block.splitlines()] for block in blocks]


def test_both_languages_of_the_page_give_the_same_commands() -> None:
    assert _commands("en") == _commands("zh")


def test_what_the_page_does_with_a_container_names_one_that_there_is() -> None:
    named = set()
    for line in (line for block in _commands("en") for line in block):
        if match := re.match(r"docker compose (run|exec|restart|up)\b(.*)", line):
            action, rest = match.group(1), re.sub(r"--scale (\w+)=\d+", r"\1", match.group(2))
            words = [word for word in rest.split() if not word.startswith("-")]
            named |= set(words[:1] if action in ("run", "exec") else words)
    assert named == {"prepare", "postgres", "valkey", "web", "worker", "beat"}


def test_another_setting_of_the_portal_does_not_make_the_database_anew() -> None:
    """``--force-recreate`` without ``--no-deps`` may take PostgreSQL and Valkey along."""
    for language in ("en", "zh"):
        text = (PROJECT / "docs" / language / "containers.md").read_text(encoding="utf-8")
        commands = re.findall(r"docker compose up[^`\n]*--force-recreate[^`\n]*", text)
        assert commands
        assert [command for command in commands if "--no-deps" not in command] == []
