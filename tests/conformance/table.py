"""The conformance table at the end of a run: item × column, from what became of every test.

A plugin of its own, since the process that prints is not always the one that runs the tests: each test writes its items
and its column on its report, and whoever receives the reports counts them.
"""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path

import pytest

from tests.conformance.items import COLUMNS, IS_FULL, ITEMS, USUAL_COLUMNS, Column, items_of

_PROPERTY = "conformance"
PAGE = os.environ.get("CONFORMANCE_PAGE", "")
"""A file that gets the table as a page of the documentation."""
INTRODUCTION = (
    "# What the proxy passes, and by which ways",
    "",
    "Made by `make conformance CONFORMANCE_PAGE=docs/conformance.md`. Each row is a demand on the proxy, each column",
    "one way through it, listed below. A number says how many checks passed there, `!` that one failed, `?` that this",
    "machine could not run it. Bodies are 1 GiB long, and in each column 12,000 requests and WebSockets break off at",
    "random (C60).",
    "",
    "`make test` runs columns 1, 6, 8 and 9 with shorter bodies.",
)

_results: dict[tuple[str, str], list[str]] = defaultdict(list)  # (item, column): outcomes


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Write on each test of the list what it is about; its reports carry it along."""
    for item in items:
        callspec = getattr(item, "callspec", None)
        column = callspec.params.get("column") if callspec is not None else None
        if column is not None:
            about = items_of(getattr(item, "originalname", "") or item.name)
            item.user_properties += [(_PROPERTY, f"{name} {column}") for name in about]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note what became of a test, for its items and its column."""
    if report.when != "call" and report.passed:
        return
    for kind, value in report.user_properties:
        if kind == _PROPERTY:
            name, column = str(value).split(" ", 1)
            _results[name, column].append(report.outcome)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table; with all other tests one line is enough."""
    if len({column for _, column in _results}) < 2:  # somebody runs a test or two
        return
    columns = COLUMNS if IS_FULL else USUAL_COLUMNS
    missing = _missing(columns)
    passed = sum(outcomes.count("passed") for outcomes in _results.values())
    write = terminalreporter.write_line
    if IS_FULL:
        terminalreporter.section("conformance")
        for number, column in enumerate(columns, 1):
            write(f"  column {number:2}: {column}")
        write("")
        for name, item in ITEMS.items():
            cells = " ".join(_cell(name, column) for column in columns)
            write(f"  {name.upper()}  {cells}  {item.text}")
        write("")
        write("  a number: tests passed   !: failed   ?: could not run on this machine   -: a gap with a reason")
        for name, item in ITEMS.items():
            if item.elsewhere:
                write(f"  {name.upper()} is no matter of the way: {item.elsewhere}")
            for where, reason in item.gaps.items():
                write(f"  {name.upper()} {where}: {reason}")
    write(f"conformance: {len(ITEMS)} items in {len(columns)} columns, {passed} checks passed, {len(missing)} gaps")
    if IS_FULL:
        for gap in missing:
            write(f"  gap: {gap}")
        if PAGE:
            Path(PAGE).write_text(_page(missing), encoding="utf-8")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A whole run that left a cell empty has failed."""
    options = session.config.option
    is_one_of_several = hasattr(session.config, "workerinput")  # another process has all results
    is_whole = IS_FULL and not options.keyword and not options.collectonly and not is_one_of_several
    if is_whole and session.exitstatus == pytest.ExitCode.OK and _missing(COLUMNS):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _missing(columns: tuple[Column, ...]) -> list[str]:
    """The cells that should have a result and have none."""
    return [
        f"{name} in {column}"
        for name, item in ITEMS.items()
        for column in columns
        if not item.elsewhere and not item.gap(column) and not _results[name, str(column)]
    ]


def _page(missing: list[str]) -> str:
    """The table as a page of the documentation."""
    names = {"direct": "TCP", "ssh": "SSH", "socket": "SSH, Unix socket", "host": "host", "path": "path"}
    lines = [*INTRODUCTION, "", "| item | | " + " | ".join(f"{number}" for number in range(1, len(COLUMNS) + 1)) + " |"]
    lines.append("|---|---|" + "---:|" * len(COLUMNS))
    for name, item in ITEMS.items():
        cells = " | ".join(_cell(name, column).strip() for column in COLUMNS)
        lines.append(f"| {name.upper()} | {item.text} | {cells} |")
    lines += ["", "| column | lane | way to the server | address |", "|---:|---|---|---|"]
    for number, column in enumerate(COLUMNS, 1):
        lines.append(f"| {number} | {column.lane} | {names[column.transport]} | {names[column.address]} |")
    lines += ["", "Gaps on purpose (–):", ""]
    for name, item in ITEMS.items():
        if item.elsewhere:
            lines.append(f"- {name.upper()} is no matter of the way: `{item.elsewhere}`")
        lines += [f"- {name.upper()}, {names.get(where, where)}: {reason}" for where, reason in item.gaps.items()]
    if missing:
        lines += ["", "Not seen in this run: " + ", ".join(missing)]
    return "\n".join(lines).replace("| - ", "| – ") + "\n"


def _cell(name: str, column: Column) -> str:
    outcomes = _results[name, str(column)]
    if "failed" in outcomes:
        return " !"
    if "passed" in outcomes:
        return f"{outcomes.count('passed'):2}"
    if "skipped" in outcomes:
        return " ?"
    return " -" if ITEMS[name].gap(column) or ITEMS[name].elsewhere else "  "
