"""Every template compiles, keeps to the strict policy for scripts and styles, and refers only to what exists."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from django.contrib.staticfiles import finders
from django.template import Context
from django.template.loader import get_template, render_to_string
from django.utils import translation

PROJECT = Path(__file__).resolve().parents[2]
TEMPLATES = sorted((PROJECT / "templates").rglob("*.html"))
MODULES = sorted((PROJECT / "static" / "js").glob("*.js"))
NAMES = [str(path.relative_to(PROJECT / "templates")) for path in TEMPLATES]
ERROR_PAGES = ["400", "403", "404", "429", "500", "503"]

FORBIDDEN = {
    "an inline style": re.compile(r"<[^>{%]*\sstyle\s*=", re.I),
    "a style element": re.compile(r"<style\b", re.I),
    "an inline event handler": re.compile(r"<[^>]*\son[a-z]+\s*=\s*[\"']", re.I),
    "a script without an address": re.compile(r"<script\b(?![^>]*\ssrc=)", re.I),
    "an address with javascript:": re.compile(r"javascript:", re.I),
    "a script or style from elsewhere": re.compile(r"<(script|link|img)\b[^>]*(src|href)=[\"'](https?:)?//", re.I),
    "an htmx attribute that needs eval": re.compile(r"\shx-(on|vals=.js:|vars)", re.I),
    "text that is not escaped": re.compile(r"\|\s*safe\b|autoescape\s+off"),
}


def _vendoring() -> ModuleType:
    spec = importlib.util.spec_from_file_location("vendoring", PROJECT / "static" / "vendor" / "update.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["vendoring"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", NAMES)
def test_a_template_compiles(name: str) -> None:
    assert get_template(name).template.nodelist  # type: ignore[attr-defined]  # Django's own backend


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("what", FORBIDDEN)
def test_a_template_holds_nothing_that_the_policy_forbids(name: str, what: str) -> None:
    found = FORBIDDEN[what].search((PROJECT / "templates" / name).read_text(encoding="utf-8"))
    assert found is None, f"{name} holds {what}: {found and found.group()}"


@pytest.mark.parametrize("name", NAMES)
def test_a_template_names_only_icons_and_files_that_exist(name: str) -> None:
    text = (PROJECT / "templates" / name).read_text(encoding="utf-8")
    sprite = (PROJECT / "static/vendor/bootstrap-icons/sprite.svg").read_text(encoding="utf-8")
    icons = re.findall(r'{% icon "([^"]+)"', text)
    files = re.findall(r"{% static '([^']+)'", text)
    assert [icon for icon in icons if f'id="{icon}"' not in sprite] == []
    assert [file for file in files if not finders.find(file)] == []


@pytest.mark.parametrize("code", ERROR_PAGES)
@pytest.mark.parametrize("language", ["en", "zh-hans"])
def test_an_error_page_renders_without_any_context(code: str, language: str) -> None:
    with translation.override(language):
        page = get_template(f"{code}.html").template.render(Context())  # type: ignore[attr-defined]  # ditto
    assert f'lang="{language}"' in page
    assert code in page
    assert "<h1>" in page


def test_a_log_that_holds_markup_is_shown_as_text() -> None:
    hostile = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    page = render_to_string("launcher/_live.html", {"card": {"id": "abc"}, "log": hostile, "details": hostile})
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 2


def test_a_session_name_that_holds_markup_cannot_leave_its_attribute() -> None:
    card = {"id": "abc", "title": '"><script>alert(1)</script>', "can_stop": True, "state": "ready"}
    page = render_to_string("launcher/_cards.html", {"cards": [card]})
    assert "<script>alert" not in page


def test_htmx_is_told_to_add_no_style_element_and_to_evaluate_nothing() -> None:
    base = (PROJECT / "templates/base.html").read_text(encoding="utf-8")
    assert '"includeIndicatorStyles": false' in base
    assert '"allowEval": false' in base


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_a_module_stands_alone_and_writes_no_markup(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for forbidden in ("import ", "innerHTML", "outerHTML", "insertAdjacentHTML", "eval(", "document.write", ".style."):
        assert forbidden not in text, f"{path.name} uses {forbidden}"


def test_other_peoples_files_are_those_of_the_vendoring_list() -> None:
    vendoring = _vendoring()
    assert list(vendoring.problems(vendoring.read_list())) == []


def test_every_file_of_others_is_on_the_list_and_has_its_licence_beside_it() -> None:
    vendoring = _vendoring()
    folder = PROJECT / "static" / "vendor"
    listed = {item.target for package in vendoring.read_list() for item in package.items}
    present = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    ours = {"update.py", "vendor.toml"}
    assert {name for name in present if "__pycache__" not in name} - ours == listed
    assert {Path(name).parent for name in listed} == {
        Path(name).parent for name in listed if Path(name).name == "LICENSE"
    }


def test_a_changed_vendored_file_is_found(tmp_path: Path) -> None:
    vendoring = _vendoring()
    for package in vendoring.read_list():
        for item in package.items:
            target = tmp_path / item.target
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((PROJECT / "static/vendor" / item.target).read_bytes())
    assert list(vendoring.problems(vendoring.read_list(), tmp_path)) == []
    (tmp_path / "bootstrap/bootstrap.min.css").write_bytes(b"body{}")
    (tmp_path / "bootstrap-icons/LICENSE").unlink()
    assert sorted(problem.split()[0] for problem in vendoring.problems(vendoring.read_list(), tmp_path)) == [
        "bootstrap-icons/LICENSE",
        "bootstrap/bootstrap.min.css",
    ]
