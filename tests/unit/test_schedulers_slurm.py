"""The Slurm adapter: its commands, and answers that no recording shows."""

from __future__ import annotations

import datetime as dt

import pytest

from launcher.schedulers import adapter
from launcher.schedulers.base import (
    CancelOutcome,
    CommandResult,
    JobRequest,
    JobState,
    JobStatus,
    NotPermitted,
    SchedulerError,
    SchedulerUnavailable,
    SubmitRejected,
)
from launcher.schedulers.slurm import Slurm
from launcher.schedulers.slurm_answers import ACCOUNTING_FIELDS, COLUMNS, NODE_COLUMNS, Columns

SCRIPT = b"#!/bin/sh\nexec true\n"


def columns(layout: Columns, **values: str) -> bytes:
    line = "".join(values.get(name, "").ljust(width)[:width] for name, width in layout.widths.items())
    return line.encode() + b"\n"


def answer(*, queue: bytes = b"", accounting: bytes | None = None, accounting_status: int = 0) -> CommandResult:
    stdout = b"queue 0 %d\n%s\n" % (len(queue), queue)
    if accounting is not None:
        stdout += b"accounting %d %d\n%s\n" % (accounting_status, len(accounting), accounting)
    return CommandResult(0, stdout)


def job_of(**values: str) -> JobStatus:
    row = columns(COLUMNS, **{"JobID": "7", "State": "RUNNING", **values})
    return Slurm().parse_status(answer(queue=row), ["7"]).jobs["7"]


def accounted(**values: str) -> bytes:
    return "\x1e".join(values.get(name, "") for name in ACCOUNTING_FIELDS.split(",")).encode() + b"\n"


def test_submit_names_every_value_and_sends_the_script_on_stdin() -> None:
    request = JobRequest(
        "fb-abc", SCRIPT, 4, 2048, 90 * 60, gpus=2, queue="gpu", account="p7", output_path="/home/alice/a b"
    )
    command = Slurm("/opt/slurm/bin").submit_command(request)
    assert command.argv == (
        *("/opt/slurm/bin/sbatch", "--parsable", "--export=NONE", "--no-requeue", "--job-name=fb-abc"),
        *("--nodes=1", "--ntasks=1", "--cpus-per-task=4", "--mem=2048M", "--time=01:30:00", "--gres=gpu:2"),
        *("--partition=gpu", "--account=p7", "--output=/home/alice/a b"),
    )
    assert command.stdin == SCRIPT


def test_submit_leaves_out_what_was_not_asked_for() -> None:
    argv = " ".join(Slurm().submit_command(JobRequest("fb-abc", SCRIPT, 1, 1, 60)).argv)
    assert not any(option in argv for option in ("--gres", "--partition", "--account", "--output"))


def test_submit_answer_of_a_federation_is_the_job_id() -> None:
    assert Slurm().parse_submit(CommandResult(0, b"17;loop\n")) == "17"


@pytest.mark.parametrize("stdout", [b"", b"17", b"x\n", b"17\n18\n", b"0\n"])
def test_submit_answer_without_exactly_one_id_leaves_the_outcome_open(stdout: bytes) -> None:
    with pytest.raises(SchedulerUnavailable):
        Slurm().parse_submit(CommandResult(0, stdout))


@pytest.mark.parametrize(
    "words",
    [
        "Batch job submission failed: Socket timed out on send/recv operation",
        "Batch job submission failed: Unable to contact slurm controller (connect failure)",
        "Batch job submission failed: Protocol authentication error",
        "Batch job submission failed: Slurm temporarily unable to accept job, sleeping and retrying",
        "something else",
        "",
    ],
)
def test_submit_failure_that_is_no_clear_refusal_leaves_the_outcome_open(words: str) -> None:
    with pytest.raises(SchedulerUnavailable):
        Slurm().parse_submit(CommandResult(1, b"", f"sbatch: error: {words}\n".encode()))


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("Invalid partition name specified", "scheduler.rejected.unknown_queue"),
        ("Invalid account or account/partition combination specified", "scheduler.rejected.bad_account"),
        ("User's group not permitted to use this partition", "scheduler.rejected.not_authorized"),
        ("Requested time limit is invalid (missing or exceeds some limit)", "scheduler.rejected.over_limit"),
        ("Requested node configuration is not available", "scheduler.rejected.never_fits"),
        ("Required partition not available (inactive or drain)", "scheduler.rejected.queue_disabled"),
        ("Brand new reason", "scheduler.rejected"),
    ],
)
def test_a_refusal_is_narrowed_down_by_its_words(words: str, code: str) -> None:
    stderr = f"sbatch: error: Batch job submission failed: {words}\n".encode()
    with pytest.raises(SubmitRejected) as caught:
        Slurm().parse_submit(CommandResult(1, b"", stderr))
    assert caught.value.code == code
    assert words in caught.value.detail


@pytest.mark.parametrize("bad", ["", "0", "-1", "1;rm", "1,2", "1.pbs01", "1_2", "1\n", "٣"])
def test_an_id_that_slurm_cannot_have_issued_is_refused(bad: str) -> None:
    for build in (
        lambda: Slurm().status_command(["1", bad]),
        lambda: Slurm().cancel_command(bad),
        lambda: Slurm().extend_command(bad, walltime_seconds=60),
    ):
        with pytest.raises(SchedulerError):
            build()


def test_status_without_ids_is_refused_because_it_would_list_every_job() -> None:
    with pytest.raises(SchedulerError):
        Slurm().status_command([])


def test_no_value_that_a_user_can_write_is_asked_for() -> None:
    written_by_users = {"name", "comment", "command", "workdir", "wckey", "dependency", "features"}
    assert not written_by_users & {name.lower() for name in COLUMNS.widths}
    assert "JobName" not in ACCOUNTING_FIELDS


@pytest.mark.parametrize(
    ("raw", "reason", "state"),
    [
        ("PENDING", "Priority", JobState.QUEUED),
        ("PENDING", "JobHeldUser", JobState.HELD),
        ("CONFIGURING", "None", JobState.QUEUED),
        ("RUNNING", "None", JobState.RUNNING),
        ("SUSPENDED", "None", JobState.SUSPENDED),
        ("COMPLETING", "None", JobState.EXITING),
        ("OUT_OF_MEMORY", "OutOfMemory", JobState.FINISHED),
        ("BRAND_NEW", "None", JobState.UNKNOWN),
    ],
)
def test_states(raw: str, reason: str, state: JobState) -> None:
    assert job_of(State=raw, Reason=reason).state is state


@pytest.mark.parametrize(
    ("wait_status", "exit_status"), [("0", 0), ("768", 3), ("9", 137), ("15", 143), ("139", 139), ("x", None)]
)
def test_exit_code_is_a_wait_status(wait_status: str, exit_status: int | None) -> None:
    assert job_of(State="FAILED", exit_code=wait_status).exit_status == exit_status


def test_a_waiting_job_has_an_estimate_and_no_host() -> None:
    job = job_of(State="PENDING", Reason="Resources", StartTime="2026-11-23T04:44:10", BatchHost="n/a")
    assert job.estimated_start_at == dt.datetime(2026, 11, 23, 4, 44, 10, tzinfo=dt.UTC)
    assert (job.started_at, job.execution_hosts, job.comment) == (None, (), "Resources")


@pytest.mark.parametrize("text", ["9999-12-31T23:59:59", "0001-01-01T00:00:00"])
def test_a_moment_that_not_every_zone_has_is_none(text: str) -> None:
    assert job_of(State="PENDING", StartTime=text, BatchHost="n/a").estimated_start_at is None


def test_a_running_job_has_a_host_and_times() -> None:
    job = job_of(BatchHost="n1", StartTime="2026-11-23T04:44:10", TimeLimit="1-02:00:00", TimeUsed="2:05")
    assert (job.execution_hosts, job.walltime_seconds, job.walltime_used_seconds) == (("n1",), 93_600, 125)


def test_a_job_that_the_controller_forgot_is_found_in_the_accounting() -> None:
    row = accounted(
        JobIDRaw="7", State="CANCELLED by 1001", ExitCode="0:15", User="alice", NodeList="n1", Elapsed="1:00"
    )
    report = Slurm().parse_status(answer(accounting=row), ["7", "8"])
    assert (report.jobs["7"].raw_state, report.jobs["7"].exit_status) == ("CANCELLED", 143)
    assert report.missing == {"8"}
    assert not report.without_history


def test_accounting_that_still_shows_a_job_as_running_proves_nothing() -> None:
    row = accounted(JobIDRaw="7", State="RUNNING")
    assert Slurm().parse_status(answer(accounting=row), ["7"]).missing == {"7"}


def test_without_accounting_finished_jobs_are_forgotten() -> None:
    report = Slurm().parse_status(answer(accounting=b"", accounting_status=1), ["7"])
    assert report.without_history
    assert report.missing == {"7"}


@pytest.mark.parametrize(
    "result",
    [
        CommandResult(0, b""),
        CommandResult(1, b"queue 0 0\n\n"),
        CommandResult(0, b"queue 0 10\n7 RUN"),
        CommandResult(0, b"queue 0 9\n7 RUNNING\n"),
        CommandResult(0, b"hello\n"),
        CommandResult(0, b"queue 1 0\n\n", b"slurm_load_jobs error: Unable to contact slurm controller\n"),
        CommandResult(0, b"queue 0 0\n\naccounting 0 3\na|b\n"),
    ],
)
def test_a_doubtful_answer_says_nothing_about_any_job(result: CommandResult) -> None:
    with pytest.raises(SchedulerUnavailable):
        Slurm().parse_status(result, ["7"])


@pytest.mark.parametrize(
    ("result", "outcome"),
    [
        (CommandResult(0), CancelOutcome.ACCEPTED),
        (
            CommandResult(1, b"", b"scancel: error: Kill job error on job id 7: Invalid job id specified\n"),
            CancelOutcome.UNKNOWN,
        ),
        (
            CommandResult(
                1, b"", b"scancel: error: Kill job error on job id 7: Job/step already completing or completed\n"
            ),
            CancelOutcome.FINISHED,
        ),
    ],
)
def test_cancel_outcomes(result: CommandResult, outcome: CancelOutcome) -> None:
    assert Slurm().parse_cancel(result) is outcome


def test_users_cannot_extend_a_running_job() -> None:
    with pytest.raises(NotPermitted):
        Slurm().parse_extend(CommandResult(1, b"", b"Access/permission denied for job 12\n"))


def test_extend_over_the_partitions_limit_is_rejected() -> None:
    stderr = b"Requested time limit is invalid (missing or exceeds some limit) for job 12\n"
    with pytest.raises(SubmitRejected) as caught:
        Slurm().parse_extend(CommandResult(1, b"", stderr))
    assert caught.value.code == "scheduler.rejected.over_limit"


def test_extend_asks_for_the_whole_walltime() -> None:
    command = Slurm("/opt/slurm/bin").extend_command("7", walltime_seconds=9_000)
    assert command.argv == ("/opt/slurm/bin/scontrol", "update", "JobId=7", "TimeLimit=02:30:00")


@pytest.mark.parametrize(
    ("state", "accepts", "starts"),
    [("UP", True, True), ("DOWN", True, False), ("DRAIN", False, True), ("INACTIVE", False, False)],
)
def test_a_partitions_state(state: str, accepts: bool, starts: bool) -> None:
    line = f"PartitionName=p Default=NO MaxTime=UNLIMITED MaxCPUsPerNode=8 State={state} TotalCPUs=2\n"
    (queue,) = Slurm().parse_queues(CommandResult(0, line.encode()))
    assert (queue.accepts_jobs, queue.starts_jobs, queue.max_walltime_seconds, queue.max_cores) == (
        *(accepts, starts),
        *(None, 8),
    )


def test_gpus_of_a_node_are_counted() -> None:
    row = columns(
        NODE_COLUMNS,
        NodeList="n1",
        StateLong="mixed",
        CPUsState="8/56/0/64",
        Memory="1000",
        AllocMem="400",
        Gres="gpu:a100:4(S:0-1),shard:8",
        GresUsed="gpu:a100:1(IDX:0),shard:0",
    )
    (node,) = Slurm().parse_nodes(CommandResult(0, row + row))  # a line for each of its partitions
    assert (node.cores, node.cores_free, node.memory_free_mib, node.gpus, node.gpus_free) == (64, 56, 600, 4, 3)


@pytest.mark.parametrize("state", ["down", "drained", "idle*", "idle~", "unknown"])
def test_a_node_that_takes_no_job_has_nothing_free(state: str) -> None:
    row = columns(NODE_COLUMNS, NodeList="n1", StateLong=state, CPUsState="0/64/0/64", Memory="1000")
    (node,) = Slurm().parse_nodes(CommandResult(0, row))
    assert (node.is_up, node.cores, node.cores_free, node.memory_free_mib) == (False, 64, 0, 0)


def test_registry_knows_slurm() -> None:
    assert isinstance(adapter("slurm"), Slurm)
