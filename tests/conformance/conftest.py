"""The columns of the conformance table as fixtures; the table itself is made in ``table.py``.

Every test that asks for ``by``, ``portal`` or ``strict`` runs once for each column; its id names it
(``test_c23_…[portable-ssh-host]``). One that asks for ``fast`` or ``portable`` is about that lane only.
``make conformance`` runs all columns with the long bodies; with all other tests the usual columns run with short ones.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from launcher.proxy.access import Durations
from launcher.proxy.upstream import Limits
from tests.conformance.items import COLUMNS, IS_FULL, ITEMS, USUAL_COLUMNS, Column, items_of
from tests.integration.proxy_peers import Handler, Portal, Upstream, Way, complaints, hello, way


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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long bodies take their time where others use the machine, too."""
    if IS_FULL:
        for item in items:
            item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(autouse=True)
def web_servers_log() -> Iterator[None]:
    """The web server has nothing to complain of: not of an answer that breaks off, nor of a browser that leaves."""
    with complaints() as found:
        yield
    assert not found


@pytest.fixture
def handler() -> Handler:
    """What the server in the job does, unless a test says otherwise."""
    return hello


@pytest.fixture
async def upstream(
    column: Column, handler: Handler, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Upstream]:
    """A server in a job; on a Unix socket where the column says so."""
    path = str(tmp_path_factory.mktemp("u") / "s") if column.transport == "socket" else ""
    async with Upstream(handler).running(path=path) as server:
        yield server


@pytest.fixture
async def by(column: Column, tmp_path: Path) -> AsyncIterator[Way]:
    """The column's way through the proxy."""
    transport = "tcp" if column.transport == "direct" else "ssh"
    async with way(transport, tmp_path, lane=column.lane) as found:
        found.options["address"] = column.address
        yield found


@pytest.fixture
async def portal(upstream: Upstream, by: Way) -> AsyncIterator[Portal]:
    """A proxy in front of ``upstream`` that asks again who may pass only when it is told to."""
    async with by.portal(upstream, durations=Durations(recheck_seconds=3600)).running() as portal:
        yield portal


@pytest.fixture
async def impatient(upstream: Upstream, by: Way) -> AsyncIterator[Portal]:
    """A proxy that waits a second for a server to say something."""
    async with by.portal(upstream, limits=Limits(head_seconds=1)).running() as portal:
        yield portal


@pytest.fixture
async def strict(upstream: Upstream, by: Way) -> AsyncIterator[Portal]:
    """A proxy that asks again several times a second who may pass."""
    async with by.portal(upstream, durations=Durations(keep_seconds=0.3, recheck_seconds=0.2)).running() as portal:
        yield portal
