"""The columns of the conformance table as fixtures, and the table itself at the end of a run.

Every test that asks for ``by``, ``portal`` or ``strict`` runs once for each column; its id names it
(``test_c23_…[portable-ssh-host]``). One that asks for ``fast`` or ``portable`` is about that lane only.
``make conformance`` runs all columns with the long bodies and prints the table; with all other tests the usual
columns run with short ones.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from launcher.proxy.access import Durations
from launcher.proxy.upstream import Limits
from tests.conformance.items import COLUMNS, ITEMS, USUAL_COLUMNS, Column, items_of
from tests.integration.proxy_peers import Handler, Portal, Upstream, Way, hello, way

IS_FULL = os.environ.get("CONFORMANCE") == "full"
"""All columns and the long bodies, as ``make conformance`` runs them."""

_results: dict[tuple[str, str], list[str]] = defaultdict(list)  # (item, column): outcomes


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each column; where an item has a gap on purpose, none."""
    if "column" not in metafunc.fixturenames:
        return
    of_list = bool(items_of(metafunc.function.__name__))
    chosen = COLUMNS if IS_FULL else USUAL_COLUMNS if of_list else (USUAL_COLUMNS[0], USUAL_COLUMNS[-1])
    items = [ITEMS[name] for name in items_of(metafunc.function.__name__) if name in ITEMS]
    lanes = {"portable", "fast"} & set(metafunc.fixturenames) or {"portable", "fast"}  # a test may be about one lane
    columns = [column for column in chosen if column.lane in lanes and not any(item.gap(column) for item in items)]
    metafunc.parametrize("column", columns, ids=str)


@pytest.fixture
def handler() -> Handler:
    """What the server in the job does, unless a test says otherwise."""
    return hello


@pytest.fixture
async def upstream(
    column: Column, handler: Handler, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Upstream]:
    """A server in a job; on a Unix socket where the column says so."""
    server = Upstream(handler)
    path = str(tmp_path_factory.mktemp("u") / "s") if column.transport == "socket" else ""
    await server.start(path=path)
    yield server
    await server.stop()


@pytest.fixture
async def by(column: Column, tmp_path: Path) -> AsyncIterator[Way]:
    """The column's way through the proxy."""
    transport = "tcp" if column.transport == "direct" else "ssh"
    async with way(transport, tmp_path, lane=column.lane) as found:
        found.options["address"] = column.address
        yield found


@pytest.fixture
async def portal(upstream: Upstream, by: Way) -> AsyncIterator[Portal]:
    """A proxy with little patience in front of ``upstream``."""
    async with by.portal(upstream, limits=Limits(head_seconds=1, connect_seconds=2)).running() as portal:
        yield portal


@pytest.fixture
async def strict(upstream: Upstream, by: Way) -> AsyncIterator[Portal]:
    """A proxy that asks again several times a second who may pass."""
    async with by.portal(upstream, durations=Durations(keep_seconds=0.3, recheck_seconds=0.2)).running() as portal:
        yield portal


# The table


def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Note what became of a test, for its items and its column."""
    callspec = getattr(item, "callspec", None)
    column = callspec.params.get("column") if callspec is not None else None
    if column is None or (call.when != "call" and call.excinfo is None):
        return
    skipped = call.excinfo is not None and call.excinfo.errisinstance(pytest.skip.Exception)
    outcome = "skipped" if skipped else "failed" if call.excinfo is not None else "passed"
    for name in items_of(getattr(item, "originalname", "") or item.name):
        _results[name, str(column)].append(outcome)


def pytest_terminal_summary(terminalreporter: Any) -> None:
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
