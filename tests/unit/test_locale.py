"""English and Simplified Chinese are complete, and what is compiled is what was translated."""

from __future__ import annotations

import re
import shutil
from collections import Counter, defaultdict
from pathlib import Path

import polib
import pytest
from django.core.management import call_command
from django.utils import translation

PROJECT = Path(__file__).resolve().parents[2]
LANGUAGES = ["en", "zh_Hans"]
PLACEHOLDER = re.compile(r"%\([a-z_]+\)[-.0-9]*[a-z]|%%|</?[a-z]+")
SENTENCE_END = re.compile(r"[.!?…:]$")
CHINESE_END = re.compile(r"[。！？…：]$|[A-Za-z0-9)）}s]$")

Key = tuple[str, str, str]


def catalog(language: str, root: Path = PROJECT) -> polib.POFile:
    return polib.pofile(str(root / "locale" / language / "LC_MESSAGES" / "django.po"))


def keys(entries: polib.POFile) -> set[Key]:
    return {(entry.msgctxt or "", entry.msgid, entry.msgid_plural) for entry in entries if not entry.obsolete}


def texts(entry: polib.POEntry) -> list[str]:
    return list(entry.msgstr_plural.values()) if entry.msgid_plural else [entry.msgstr]


@pytest.mark.parametrize("language", LANGUAGES)
def test_nothing_is_untranslated_or_fuzzy(language: str) -> None:
    entries = catalog(language)
    assert len(entries) > 400
    assert [entry.msgid for entry in entries if "fuzzy" in entry.flags] == []
    assert [entry.msgid for entry in entries if not all(texts(entry))] == []
    assert entries.obsolete_entries() == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_compiled_catalog_holds_exactly_what_was_translated(language: str) -> None:
    compiled = polib.mofile(str(PROJECT / "locale" / language / "LC_MESSAGES" / "django.mo"))
    written = {(entry.msgctxt or "", entry.msgid): texts(entry) for entry in catalog(language)}
    assert {(entry.msgctxt or "", entry.msgid): texts(entry) for entry in compiled} == written, "run: make messages"


def test_both_languages_know_the_same_texts() -> None:
    assert keys(catalog("en")) == keys(catalog("zh_Hans"))


def test_every_text_of_the_source_is_in_the_catalogs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: object
) -> None:
    if shutil.which("xgettext") is None:
        pytest.skip("xgettext is not installed (apt-get install gettext), so the texts cannot be collected anew")
    for folder in ("portal", "launcher", "templates", "locale"):
        shutil.copytree(PROJECT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.chdir(tmp_path)
    settings.LOCALE_PATHS = [str(tmp_path / "locale")]  # type: ignore[attr-defined]  # pytest-django's wrapper
    call_command("makemessages", locale=["zh_Hans"], no_obsolete=True, verbosity=0)
    assert keys(catalog("zh_Hans", tmp_path)) == keys(catalog("zh_Hans")), "run: make messages"


def test_a_translation_keeps_placeholders_and_markup() -> None:
    wrong = []
    for entry in catalog("zh_Hans"):
        wanted = Counter(PLACEHOLDER.findall(entry.msgid_plural or entry.msgid))
        found = Counter(PLACEHOLDER.findall(texts(entry)[0]))
        if set(found) != set(wanted):
            wrong.append((entry.msgid, texts(entry)[0]))
    assert wrong == []


def test_a_chinese_sentence_ends_with_a_chinese_mark() -> None:
    wrong = [
        (entry.msgid, texts(entry)[0])
        for entry in catalog("zh_Hans")
        if SENTENCE_END.search(entry.msgid) and " " in entry.msgid and not CHINESE_END.search(texts(entry)[0])
    ]
    assert wrong == []


@pytest.mark.parametrize(("language", "word"), [("en", "Connect"), ("zh-hans", "打开")])
def test_the_site_speaks_the_language_that_was_chosen(language: str, word: str) -> None:
    with translation.override(language):
        assert translation.gettext("Connect") == word


@pytest.mark.parametrize(("language", "words"), [("en", ["1 core", "4 cores"]), ("zh-hans", ["1 核", "4 核"])])
def test_numbers_take_the_right_form(language: str, words: list[str]) -> None:
    with translation.override(language):
        forms = [translation.ngettext("%(count)d core", "%(count)d cores", n) % {"count": n} for n in (1, 4)]
    assert forms == words


def test_no_chinese_sentence_stands_for_two_english_ones() -> None:
    # What gettext guesses from a similar text reads well, and says something else.
    stands_for: dict[str, list[str]] = defaultdict(list)
    for entry in catalog("zh_Hans"):
        if SENTENCE_END.search(entry.msgid):
            stands_for[texts(entry)[0]].append(entry.msgid)
    assert {text: several for text, several in stands_for.items() if len(several) > 1} == {}
