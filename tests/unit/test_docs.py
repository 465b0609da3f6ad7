"""What an administrator can set, run or read in the audit log is in the guides, in both languages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from portal.audit.events import REGISTRY
from portal.conf import PROJECT, Conf

GUIDES = {language: PROJECT / "docs" / language / "admin-guide.md" for language in ("en", "zh")}
SETTINGS = sorted(f"PORTAL_{name.upper()}" for name in Conf.model_fields)
COMMANDS = sorted(
    path.stem
    for app in ("launcher", "portal")
    for path in (PROJECT / app).glob("**/management/commands/*.py")
    if path.stem != "__init__"
)
EVENTS = sorted(name for name, event in REGISTRY.items() if event.__module__ == "portal.audit.events")
PAGES = sorted(path for pattern in ("*.md", "docs/**/*.md") for path in PROJECT.glob(pattern))


def anchors(page: Path) -> set[str]:
    """What links to parts of a page may name: its headings, as code hosts spell them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.fixture(scope="module", params=GUIDES)
def guide(request: pytest.FixtureRequest) -> str:
    """The administrator's guide in one language."""
    return GUIDES[request.param].read_text(encoding="utf-8")


def test_there_is_something_to_look_for() -> None:
    assert "PORTAL_SECRET_KEY" in SETTINGS
    assert {"demo", "run", "createtoken", "verifyaudit"} <= set(COMMANDS)
    assert "session.launched" in EVENTS


def test_every_setting_is_in_the_guide(guide: str) -> None:
    assert [name for name in SETTINGS if f"`{name}`" not in guide] == []


def test_no_setting_in_the_guide_is_gone(guide: str) -> None:
    assert set(re.findall(r"`(PORTAL_[A-Z_]+)`", guide)) <= set(SETTINGS)


def test_every_setting_is_in_the_example_file() -> None:
    example = (PROJECT / ".env.example").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^#?(PORTAL_[A-Z_]+)=", example, re.MULTILINE)) == SETTINGS


def test_the_example_files_defaults_are_the_defaults() -> None:
    example = (PROJECT / ".env.example").read_text(encoding="utf-8")
    shown = dict(re.findall(r"^#(PORTAL_[A-Z_]+)=(.*)$", example, re.MULTILINE))
    for name, field in Conf.model_fields.items():
        value = shown.get(f"PORTAL_{name.upper()}", "")
        if isinstance(field.default, bool):
            assert value == str(field.default).lower(), name
        elif isinstance(field.default, int | float) or (isinstance(field.default, str) and name != "url"):
            assert value == str(field.default), name


def test_the_containers_use_settings_that_exist() -> None:
    composed = (PROJECT / "docker-compose.yml").read_text(encoding="utf-8")
    prepared = (PROJECT / "deploy" / "prepare.py").read_text(encoding="utf-8")
    assert set(re.findall(r"PORTAL_[A-Z_]+", composed + prepared)) <= set(SETTINGS)


def test_every_command_is_in_the_guide(guide: str) -> None:
    assert [name for name in COMMANDS if f"`manage.py {name}" not in guide] == []


def test_every_audit_event_is_in_the_guide(guide: str) -> None:
    assert [name for name in EVENTS if f"`{name}`" not in guide] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"(?<!!)\[[^\]]*\]\((?!https?:)([^)#]*)(?:#([^)]+))?", text)
    assert [link for link, _part in links if not (page.parent / link).exists()] == []
    parts = [(page.parent / link if link else page, part) for link, part in links if part]
    assert [(target.name, part) for target, part in parts if part not in anchors(target)] == []


@pytest.mark.parametrize("name", ["user-guide.md", "admin-guide.md", "install.md", "operations.md", "containers.md"])
def test_both_languages_have_the_same_parts(name: str) -> None:
    def parts(language: str) -> list[int]:
        text = (PROJECT / "docs" / language / name).read_text(encoding="utf-8")
        return [len(marks) for marks in re.findall(r"^(#+) ", text, re.MULTILINE)]

    assert parts("en") == parts("zh")
