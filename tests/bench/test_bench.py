"""The benchmarks' own parts still work: a short look, without peers and without judging figures."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.bench import authorise, peers
from tests.bench.cell import jupyter_of_a_job
from tests.bench.report import BEGIN, CHP, END, FAST, NGINX, Target, put, verdict
from tests.bench.run import measure
from tests.integration.ssh_server import free_port

MEDIANS = {(FAST, "requests/s"): 300.0, (CHP, "requests/s"): 100.0}


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[peers.Peer]:
    origin = free_port()
    command = [sys.executable, "-m", "tests.bench.origin", str(origin)]
    started = partial(peers.start, command, origin, "origin", tmp_path / "origin.log", "0")
    with peers.running(started), peers.running(partial(peers.ours, "fast", origin, tmp_path)) as (running, left_out):
        assert not left_out
        yield running[0]


@pytest.mark.integration
def test_our_side_answers_the_client_of_the_benchmarks(ours: peers.Peer) -> None:
    assert measure("latency", ours, 0.1)["latency p50 µs"] > 0
    assert measure("beside", ours, 0.1)["beside MB/s"] > 0


@pytest.mark.integration
def test_a_cell_is_executed_in_the_jupyter_of_a_job(tmp_path: Path) -> None:
    with jupyter_of_a_job(tmp_path) as job:
        assert measure("cell", job, 0.1)["cell p50 µs"] > 0


async def test_a_decision_whose_answer_is_known_asks_nobody_and_waits_for_nothing() -> None:
    assert (await authorise.measure(0.05))["authorisation µs"] > 0  # it raises where one of the two is not so


def test_a_new_measurement_leaves_what_is_written_by_hand() -> None:
    page = put(f"Before.\n{BEGIN}\nold\n{END}\n\nBy hand.\n", "new\n")
    assert page == f"Before.\n{BEGIN}\nnew\n{END}\n\nBy hand.\n"
    assert put("All by hand.\n", "new") == f"{BEGIN}\nnew\n{END}\n\nAll by hand.\n"


def test_a_target_is_missed_below_its_ratio_and_met_at_it() -> None:
    assert "missed" in verdict(Target(FAST, CHP, "requests/s", 3.5), MEDIANS)
    assert "| met |" in verdict(Target(FAST, CHP, "requests/s", 3), MEDIANS)


def test_a_target_without_its_peer_is_named_as_not_measured() -> None:
    assert "not measured" in verdict(Target(FAST, NGINX, "requests/s", 0.27), MEDIANS)


def test_a_proxy_that_lets_nothing_pass_is_an_error_and_not_a_figure(tmp_path: Path) -> None:
    port = free_port()
    silent = "import socket, sys, time; s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); time.sleep(60)"
    start = partial(peers.start, [sys.executable, "-c", silent, str(port)], port, "silent", tmp_path / "log", "0")
    with peers.running(start) as (running, _), pytest.raises(RuntimeError, match="stood still at 0 bytes"):
        measure("down", running[0], 0.2)
