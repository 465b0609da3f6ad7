"""Why a job ended. Recorded ends are in test_schedulers_recordings."""

from __future__ import annotations

import datetime as dt
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.joblog import ExitCode
from launcher.schedulers.base import JobState, JobStatus
from launcher.schedulers.endings import ending
from launcher.states import EndReason

STARTED = dt.datetime(2026, 11, 23, tzinfo=dt.UTC)


def finished(exit_status: int | None, *, raw_state: str = "F", comment: str = "", owner: str = "alice") -> JobStatus:
    return JobStatus(
        "1.a",
        JobState.FINISHED,
        raw_state=raw_state,
        owner=owner,
        comment=comment,
        exit_status=exit_status,
        started_at=STARTED,
    )


@pytest.mark.parametrize(
    ("line", "code", "params"),
    [
        (
            "ModuleCmd_Load.c(213):ERROR:105: Unable to locate a modulefile for 'anaconda/9.9'",
            "ended.module_missing",
            {"module": "anaconda/9.9"},
        ),
        ('The following module(s) are unknown: "anaconda/9.9"', "ended.module_missing", {"module": "anaconda/9.9"}),
        ("job.sh: line 4: module: command not found", "ended.module_command_missing", {}),
        (
            "EnvironmentNameNotFound: Could not find conda environment: torch",
            "ended.environment_missing",
            {"path": "torch"},
        ),
        (
            "bash: /home/alice/env/bin/activate: No such file or directory",
            "ended.environment_missing",
            {"path": "/home/alice/env"},
        ),
        ("job.sh: line 9: apptainer: command not found", "ended.runtime_missing", {}),
        (
            "FATAL:   could not open image /lib/a.sif: failed to retrieve path",
            "ended.image_missing",
            {"path": "/lib/a.sif"},
        ),
        ("job.sh: line 9: jupyter-lab: command not found", "ended.jupyter_missing", {}),
        ("Jupyter command `jupyter-lab` not found.", "ended.jupyter_missing", {}),
        ("ModuleNotFoundError: No module named 'jupyter_server'", "ended.jupyter_missing", {}),
        ("jupyter-notebook: error: unrecognized arguments: --x", "ended.jupyter_too_old", {}),
        ("The Jupyter server could not be started because no available port could be found.", "ended.port_in_use", {}),
        ("OSError: [Errno 98] Address already in use", "ended.port_in_use", {}),
        ("OSError: [Errno 28] No space left on device: '/home/alice/x'", "ended.disk_full", {}),
        ("cp: error writing 'x': Disk quota exceeded", "ended.disk_full", {}),
        ("job.sh: line 3: cd: /scratch/x: No such file or directory", "ended.folder_missing", {"path": "/scratch/x"}),
        ("sh: 1: cd: can't cd to /scratch/x", "ended.folder_missing", {"path": "/scratch/x"}),
        ("footbridge: failed=module_missing subject=anaconda/9.9", "ended.module_missing", {"module": "anaconda/9.9"}),
        ("footbridge: failed=image_missing subject=/lib/a b.sif", "ended.image_missing", {"path": "/lib/a b.sif"}),
        ("footbridge: failed=jupyter_missing subject=", "ended.jupyter_missing", {}),
    ],
)
def test_a_cause_in_the_log_is_named(line: str, code: str, params: dict[str, str]) -> None:
    found = ending(finished(1), f"hello\n{line}\nbye\n")
    assert (found.reason, found.code, dict(found.params)) == (EndReason.FAILED, code, params)


def test_the_first_cause_counts_because_others_follow_from_it() -> None:
    log = "Unable to locate a modulefile for 'a/1'\njob.sh: line 9: jupyter: command not found\n"
    assert ending(finished(127), log).code == "ended.module_missing"


def test_what_the_job_script_says_itself_goes_before_what_programs_say() -> None:
    log = "sh: module: command not found\nfootbridge: failed=module_missing subject=a/1\n"
    assert ending(finished(71), log).code == "ended.module_missing"


@pytest.mark.parametrize("code", list(ExitCode))
def test_the_job_scripts_own_exit_status_tells_where_the_log_is_lost(code: ExitCode) -> None:
    assert ending(finished(int(code)), "").code == f"ended.{code.word}"


@pytest.mark.parametrize(
    ("status", "reason", "code"),
    [
        (finished(0), EndReason.COMPLETED, "ended.completed"),
        (finished(3), EndReason.FAILED, "ended.exit"),
        (finished(-29), EndReason.WALLTIME, "ended.walltime"),
        (finished(-27), EndReason.OUT_OF_MEMORY, "ended.out_of_memory"),
        (finished(-3), EndReason.FAILED, "ended.output_failed"),
        (finished(-1), EndReason.FAILED, "ended.not_started"),
        (finished(-4), EndReason.NODE_FAILED, "ended.node_failed"),
        (finished(254), EndReason.FAILED, "ended.bad_shell"),
        (finished(271), EndReason.STOPPED_BY_USER, "ended.deleted_outside"),
        (finished(265), EndReason.FAILED, "ended.killed"),
        (finished(137), EndReason.FAILED, "ended.killed"),
        (finished(0, raw_state="TIMEOUT"), EndReason.WALLTIME, "ended.walltime"),
        (finished(0, raw_state="OUT_OF_MEMORY"), EndReason.OUT_OF_MEMORY, "ended.out_of_memory"),
        (finished(0, raw_state="NODE_FAIL"), EndReason.NODE_FAILED, "ended.node_failed"),
        (finished(143, raw_state="CANCELLED"), EndReason.STOPPED_BY_USER, "ended.deleted_outside"),
        (finished(0, raw_state="PREEMPTED"), EndReason.FAILED, "ended.preempted"),
        (finished(None), EndReason.LOST, "ended.lost"),
        (None, EndReason.LOST, "ended.lost"),
    ],
)
def test_without_a_log_the_schedulers_word_decides(status: JobStatus | None, reason: EndReason, code: str) -> None:
    found = ending(status, "")
    assert (found.reason, found.code) == (reason, code)


def test_a_job_deleted_by_somebody_else_names_them() -> None:
    status = finished(271, comment="Job run at Mon Nov 23 on (n1:ncpus=1) and terminated by root@pbs01")
    found = ending(status, "")
    assert (found.reason, dict(found.params)) == (EndReason.STOPPED_BY_ADMIN, {"by": "root"})


def test_a_signal_after_the_walltime_message_is_the_walltime() -> None:
    log = "working\n=>> PBS: job killed: walltime 16 exceeded limit 5\n"
    assert ending(finished(271), log).reason is EndReason.WALLTIME


def test_a_kill_after_the_kernels_words_is_memory() -> None:
    log = "slurmstepd: error: Detected 1 oom-kill event(s) in StepId=5.batch.\n"
    assert ending(finished(137), log).reason is EndReason.OUT_OF_MEMORY


def test_a_session_that_survived_a_kernels_death_and_ended_well_was_completed() -> None:
    assert ending(finished(0), "oom-kill of a kernel\nShutting down\n").reason is EndReason.COMPLETED


def test_memory_trouble_long_before_the_end_is_not_the_reason() -> None:
    log = "oom-kill of a kernel\n" + "GET /lab 200\n" * 100
    assert ending(finished(3), log).code == "ended.exit"


def test_the_servers_own_idle_stop_is_idle() -> None:
    assert ending(finished(0), "footbridge: ended=idle\n").reason is EndReason.IDLE


def test_the_portals_own_stop_goes_before_everything() -> None:
    found = ending(finished(271), "No space left on device", stopped_by=EndReason.STOPPED_BY_ADMIN)
    assert (found.reason, found.code) == (EndReason.STOPPED_BY_ADMIN, "ended.stopped_by_admin")


def test_a_stop_that_stands_for_a_failure_gives_way_to_the_cause() -> None:
    log = "footbridge: failed=module_missing subject=a/1\n"
    found = ending(finished(271), log, stopped_by=EndReason.FAILED, stop_code="start_timeout")
    assert found.code == "ended.module_missing"
    found = ending(finished(271), "", stopped_by=EndReason.FAILED, stop_code="start_timeout")
    assert (found.reason, found.code) == (EndReason.FAILED, "start_timeout")


@pytest.mark.parametrize(
    ("log", "reason", "code"),
    [
        ("The job script ends with status 0.\n", EndReason.COMPLETED, "ended.completed"),
        ("footbridge: ended=idle\nThe job script ends with status 0.\n", EndReason.IDLE, "ended.idle"),
        ("The job script ends with status 5.\n", EndReason.FAILED, "ended.exit"),
        ("The job script ends with status 143.\n", EndReason.FAILED, "ended.killed"),
        ("received signal 15, stopping\nThe job script ends with status 0.\n", EndReason.FAILED, "ended.killed"),
        ("=>> PBS: job killed: walltime 16 exceeded limit 5\n", EndReason.WALLTIME, "ended.walltime"),
        ("DUE TO NODE FAILURE, SEE SLURMCTLD LOG\n", EndReason.NODE_FAILED, "ended.node_failed"),
        ("GET /lab 200\n", EndReason.LOST, "ended.lost"),
    ],
)
def test_where_the_scheduler_forgets_jobs_the_log_has_to_do(log: str, reason: EndReason, code: str) -> None:
    for status in (None, JobStatus("1.a", JobState.FINISHED)):
        found = ending(status, log)
        assert (found.reason, found.code) == (reason, code)


def test_what_is_taken_from_the_log_is_short_and_clean() -> None:
    found = ending(finished(1), "Unable to locate a modulefile for '" + "x\x1b" * 90 + "'\n")
    value = str(found.params["module"])
    assert len(value) <= 200
    assert value.isprintable()


@given(st.text(max_size=3_000), st.one_of(st.none(), st.integers(-300, 300)))
def test_any_log_and_status_have_an_ending(log: str, exit_status: int | None) -> None:
    found = ending(finished(exit_status), log)
    assert found.code
    assert all(len(str(value)) <= 200 for value in found.params.values())


@pytest.mark.parametrize(
    "line",
    [
        "a" * 100_000,
        "image " + "/" * 100_000,
        "cd: /" + "x" * 100_000,
        ("No module named '" * 10_000),
        ("jupyter " * 12_000),
        "module(s) exist" * 6_000,
        ("held by " * 12_000),
    ],
)
def test_a_hostile_log_costs_little(line: str) -> None:
    started = time.perf_counter()
    ending(finished(1), "\n".join([line] * 50))
    assert time.perf_counter() - started < 20


@pytest.mark.parametrize(("by", "reason"), [("alice", EndReason.STOPPED_BY_USER), ("root", EndReason.STOPPED_BY_ADMIN)])
def test_a_job_that_is_forgotten_at_its_end_was_deleted_if_the_last_comment_said_so(by: str, reason: EndReason) -> None:
    comment = f"Job run at Mon Nov 23 at 08:43 on (node01:ncpus=1:mem=1048576kb) and terminated by {by}@pbs01"
    seen = JobStatus("1.a", JobState.RUNNING, owner="alice", comment=comment)
    log = "footbridge: step=ended at=1795423436\nThe job script ends with status 143.\n"
    found = ending(None, log, last_seen=seen)
    assert (found.reason, found.code, found.params) == (reason, "ended.deleted_outside", {"by": by})


def test_a_forgotten_job_of_which_nothing_was_said_is_told_by_its_log() -> None:
    seen = JobStatus("1.a", JobState.RUNNING, owner="alice", comment="Job run at Mon Nov 23 at 08:43")
    found = ending(None, "The job script ends with status 3.\n", last_seen=seen)
    assert (found.code, found.params) == ("ended.exit", {"exit_status": 3})
