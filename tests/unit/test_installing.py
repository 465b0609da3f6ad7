"""What the pages on installing and operating tell people to type fits what is in the repository.

That the commands work was seen on a fresh Debian; this keeps them from naming what is gone.
"""

from __future__ import annotations

import re
import subprocess
import tomllib
from configparser import ConfigParser
from pathlib import Path

import pytest

from portal.conf import PROJECT, Conf

PAGES = sorted((PROJECT / "docs").glob("??/**/*.md"))
SETTINGS = {f"PORTAL_{name.upper()}" for name in Conf.model_fields}
UNITS = sorted((PROJECT / "deploy").glob("*.service"))
COMMANDS = {path.stem for path in PROJECT.glob("[lp]*/**/management/commands/*.py")} | {"migrate", "collectstatic"}
OURS = re.compile(r"(?<![\w/.~:-])((?:deploy|config|docs|launcher)/[\w./@*-]*\w)")
DATA_FOLDER = "/var/lib/footbridge"


def typed(page: Path) -> str:
    """What a page shows to be typed or written into files."""
    return "\n".join(re.findall(r"^```\w*\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL))


def name(path: Path) -> str:
    """How a page or a unit is called in the list of tests."""
    return str(path.relative_to(PROJECT))


def unit(path: Path) -> ConfigParser:
    """A systemd unit; of a key that is there several times the last one."""
    parser = ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # systemd's keys are case-sensitive
    parser.read(path)
    return parser


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_what_is_typed_names_commands_that_exist(page: Path) -> None:
    assert set(re.findall(r"manage\.py ([a-z]+)", typed(page))) <= COMMANDS


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_what_is_typed_names_settings_that_exist(page: Path) -> None:
    assert set(re.findall(r"\bPORTAL_[A-Z_]+", typed(page))) <= SETTINGS


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_what_is_typed_names_files_that_exist(page: Path) -> None:
    assert [path for path in OURS.findall(typed(page)) if not list(PROJECT.glob(path))] == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_packages_are_installed_without_removing_others(page: Path) -> None:
    known = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for command in re.findall(r".*\buv sync\b.*", page.read_text(encoding="utf-8")):
        extras = re.findall(r"--extra ([a-z]+)", command)
        assert "postgres" in extras, "the database's driver would go"
        assert set(extras) <= set(known)
        assert {"--frozen", "--inexact", "--no-dev"} <= set(command.split())


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_the_pages_install_the_uv_that_the_repository_uses(page: Path) -> None:
    [version] = re.findall(r"^UV_VERSION := (\S+)$", (PROJECT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"uv==(\S+)", typed(page))) <= {version}


@pytest.mark.parametrize("page", [page for page in PAGES if page.stem in ("install", "operations")], ids=name)
def test_what_is_typed_can_be_read_by_a_shell(page: Path) -> None:
    done = subprocess.run(["bash", "-n"], input=typed(page), capture_output=True, text=True, check=False)
    assert done.stderr == ""


@pytest.mark.parametrize("page", ["install.md", "operations.md", "containers.md", "credentials/certificate.md"])
def test_the_same_is_typed_in_both_languages(page: str) -> None:
    def commands(language: str) -> list[str]:
        return [line.split("  #")[0].rstrip() for line in typed(PROJECT / "docs" / language / page).splitlines()]

    assert commands("en") == commands("zh")


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_data_folder_is_the_one_that_the_units_may_write_to(language: str) -> None:
    page = typed(PROJECT / "docs" / language / "install.md")
    assert f"\nPORTAL_DATA_FOLDER={DATA_FOLDER}\n" in page
    assert re.search(rf"^install -d .*{DATA_FOLDER}$", page, re.MULTILINE)
    assert {unit(path)["Service"]["ReadWritePaths"] for path in UNITS} == {DATA_FOLDER}


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_program_is_where_the_units_look_for_it(language: str) -> None:
    [folder] = re.findall(r"^git clone \S+ (\S+)$", typed(PROJECT / "docs" / language / "install.md"), re.MULTILINE)
    for path in UNITS:
        service = unit(path)["Service"]
        assert service["WorkingDirectory"] == folder
        assert service["ExecStart"].startswith(f"{folder}/.venv/bin/python manage.py run ")


@pytest.mark.parametrize("kind", ["web", "sessions@"])
def test_a_unit_gives_a_web_process_time_to_drain(kind: str) -> None:
    service = unit(PROJECT / "deploy" / f"footbridge-{kind}.service")["Service"]
    assert float(service["TimeoutStopSec"]) > Conf.model_fields["drain_seconds"].default
