"""The conformance table at the end of a run: item × column, from what became of every test.

A plugin of its own, since the process that prints is not always the one that runs the tests: each test writes its items
and its column on its report, and whoever receives the reports counts them.
"""

from __future__ import annotations

from collections import defaultdict

import pytest

from tests.conformance.items import COLUMNS, IS_FULL, ITEMS, USUAL_COLUMNS, Column, items_of

_PROPERTY = "conformance"

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
    missing = [
        f"{name} in {column}"
        for name, item in ITEMS.items()
        for column in columns
        if not item.elsewhere and not item.gap(column) and not _results[name, str(column)]
    ]
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


def _cell(name: str, column: Column) -> str:
    outcomes = _results[name, str(column)]
    if "failed" in outcomes:
        return " !"
    if "passed" in outcomes:
        return f"{outcomes.count('passed'):2}"
    if "skipped" in outcomes:
        return " ?"
    return " -" if ITEMS[name].gap(column) or ITEMS[name].elsewhere else "  "
