"""Why a job waits, from the scheduler's words. Recorded comments are in test_schedulers_recordings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.schedulers.comments import explain


@pytest.mark.parametrize(
    ("comment", "code"),
    [
        ("", "waiting.other"),
        ("Something new", "waiting.other"),
        ("Not Running: Insufficient amount of resource: ncpus (R: 8 A: 7 T: 8)", "waiting.cores_busy"),
        ("Not Running: Insufficient amount of resource: mem (R: 8gb A: 7gb T: 8gb)", "waiting.memory_busy"),
        ("Not Running: Insufficient amount of resource: ngpus (R: 2 A: 0 T: 2)", "waiting.gpus_busy"),
        ("Not Running: Insufficient amount of resource: licenses", "waiting.resource_busy"),
        ("Not Running: Insufficient amount of queue resource: ncpus", "waiting.cores_busy"),
        ("Not Running: Not enough free nodes available", "waiting.nodes_busy"),
        ("Can Never Run: Not enough total nodes available", "waiting.never"),
        ("Not Running: User has reached queue limited running job limit.", "waiting.user_limit"),
        ("Not Running: Group has reached server running job limit.", "waiting.project_limit"),
        ("Not Running: Queue limited job limit has been reached.", "waiting.queue_limit"),
        ("Not Running: Queue not started.", "waiting.queue_stopped"),
        ("Not Running: Job would conflict with reservation or top job", "waiting.priority"),
        ("Not Running: Job would cross dedicated time boundary", "waiting.maintenance"),
        ("Job held by root on Sun Nov 22 23:57:01 2026", "waiting.held"),
        ("job held, too many failed attempts to run", "waiting.held"),
        ("Job was sent for execution at Mon Nov 23 at 00:40 on (pbs01:ncpus=1)", "waiting.starting"),
        ("Resources", "waiting.nodes_busy"),
        ("(Resources)", "waiting.nodes_busy"),
        ("Priority", "waiting.priority"),
        ("None", "waiting.starting"),
        ("PartitionConfig", "waiting.never"),
        ("PartitionTimeLimit", "waiting.never_time"),
        ("QOSMaxWallDurationPerJobLimit", "waiting.never_time"),
        ("QOSMaxCpuPerJobLimit", "waiting.never_limit"),
        ("QOSMaxCpuPerUserLimit", "waiting.user_limit"),
        ("AccountNotAllowed", "waiting.never_allowed"),
        ("AssocGrpCPUMinutesLimit", "waiting.time_used_up"),
        ("AssocGrpCPURunMinutesLimit", "waiting.project_limit"),
        ("ReqNodeNotAvail, Reserved for maintenance", "waiting.maintenance"),
        ("Not Running: would exceed group physics's limit on resource ncpus in complex", "waiting.project_limit"),
        ("Not Running: would exceed overall limit on resource ncpus in queue workq", "waiting.queue_limit"),
        ("Not Running: Server per-user limit reached on resource ncpus", "waiting.user_limit"),
        ("PartitionDown", "waiting.queue_stopped"),
        ("JobHeldUser", "waiting.held"),
        ("ReqNodeNotAvail, UnavailableNodes:n1", "waiting.nodes_down"),
        ("QOSMaxJobsPerUserLimit", "waiting.user_limit"),
        ("AssocGrpCpuLimit", "waiting.project_limit"),
        ("AssocMaxJobsLimit", "waiting.user_limit"),
        ("BeginTime", "waiting.until"),
    ],
)
def test_words_become_a_code(comment: str, code: str) -> None:
    assert explain(comment).code == code


def test_amounts_are_kept() -> None:
    reason = explain("Can Never Run: Insufficient amount of resource: ncpus (R: 64 A: 8 T: 8)")
    assert reason.params == {"resource": "ncpus", "requested": "64", "available": "8", "total": "8"}


@given(st.text(max_size=5_000))
def test_any_text_has_a_code(comment: str) -> None:
    assert explain(comment).code.startswith("waiting.")
