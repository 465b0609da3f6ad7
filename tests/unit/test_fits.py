"""What a scheduler's own facts prove about a wish, and what they do not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from launcher.choices import LaunchChoices
from launcher.fits import ClusterFacts, impossible, room
from launcher.schedulers.base import Node, Queue
from portal.clock import now

ASKED = LaunchChoices(cores=4, memory_mib=4096, walltime_seconds=3600, queue="workq")
WORKQ = Queue("workq", max_walltime_seconds=8 * 3600, max_cores=16, max_memory_mib=65536, max_gpus=0)
BIG = Node("big", is_up=True, cores=32, cores_free=2, memory_mib=8192, memory_free_mib=8192)
FAT = Node("fat", is_up=True, cores=8, cores_free=8, memory_mib=262144, memory_free_mib=262144)


def facts(*nodes: Node, queue: Queue = WORKQ) -> ClusterFacts:
    return ClusterFacts(now(), (queue,), nodes)


def codes(known: ClusterFacts, **changes: object) -> set[str]:
    return {mistake.code for mistake in impossible(known, replace(ASKED, **changes))}  # type: ignore[arg-type]  # any field


def test_what_fits_is_possible() -> None:
    assert codes(facts(BIG, FAT)) == set()


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"cores": 17}, "cores.too_many"),
        ({"memory_mib": 65537}, "memory.too_much"),
        ({"walltime_seconds": 8 * 3600 + 1}, "hours.over_queue_limit"),
        ({"gpus": 1}, "gpus.none"),
    ],
)
def test_more_than_the_queues_real_limit_is_impossible(changes: dict[str, object], code: str) -> None:
    assert codes(facts(BIG, FAT), **changes) == {code}


def test_a_queue_that_takes_no_jobs_is_impossible() -> None:
    assert codes(facts(BIG, queue=replace(WORKQ, accepts_jobs=False))) == {"queue.takes_no_jobs"}


def test_a_queue_that_is_only_stopped_may_start_again() -> None:
    assert codes(facts(BIG, queue=replace(WORKQ, starts_jobs=False))) == set()


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"cores": 33}, "cores.no_computer"),
        ({"memory_mib": 262145}, "memory.no_computer"),
        ({"cores": 20, "memory_mib": 16384}, "cores.no_computer_together"),
    ],
)
def test_more_than_any_computer_has_is_impossible(changes: dict[str, object], code: str) -> None:
    assert codes(facts(BIG, FAT, queue=Queue("workq")), **changes) == {code}


def test_more_gpus_than_any_computer_has_is_impossible() -> None:
    known = facts(BIG, replace(FAT, gpus=2), queue=Queue("workq"))
    assert codes(known, gpus=2) == set()
    assert codes(known, gpus=3) == {"gpus.no_computer"}


def test_a_computer_that_is_down_may_come_back() -> None:
    assert codes(facts(replace(FAT, is_up=False), BIG, queue=Queue("workq")), memory_mib=200_000) == set()


@pytest.mark.parametrize(
    "known",
    [
        ClusterFacts(now()),
        facts(queue=Queue("workq")),
        facts(BIG, replace(FAT, memory_mib=0, cores=0), queue=Queue("other", accepts_jobs=False)),
        facts(BIG, replace(FAT, memory_mib=0, cores=0), queue=Queue("workq")),
    ],
    ids=["nothing", "no hosts", "another queue", "a host that does not say"],
)
def test_what_is_not_known_proves_nothing(known: ClusterFacts) -> None:
    assert codes(known, cores=1000, memory_mib=2**30, gpus=1000, walltime_seconds=86_400 * 300) == set()


def test_room_on_one_computer_is_room() -> None:
    found = room(facts(BIG, FAT), queue="workq", cores=4, memory_mib=4096, gpus=0)
    assert found is not None
    assert (found.fits, found.cores_free) == (True, 8)


def test_free_cores_on_several_computers_are_no_room_for_one_session() -> None:
    found = room(facts(BIG, replace(FAT, cores_free=3)), queue="workq", cores=4, memory_mib=4096, gpus=0)
    assert found is not None
    assert not found.fits


@pytest.mark.parametrize(
    "known",
    [facts(), facts(replace(FAT, is_up=False)), facts(FAT, queue=replace(WORKQ, starts_jobs=False))],
    ids=["no hosts", "none is up", "the queue is stopped"],
)
def test_no_advice_where_it_is_not_known(known: ClusterFacts) -> None:
    assert room(known, queue="workq", cores=1, memory_mib=1, gpus=0) is None
