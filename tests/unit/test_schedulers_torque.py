"""The TORQUE adapter, against answers written after its documentation: there was no cluster to record."""

from __future__ import annotations

import datetime as dt
from xml.sax.saxutils import escape

import pytest

from launcher.schedulers import adapter
from launcher.schedulers.base import (
    CancelOutcome,
    CommandResult,
    JobRequest,
    JobState,
    NotPermitted,
    SchedulerUnavailable,
    SubmitRejected,
)
from launcher.schedulers.torque import Torque

ID = "123.host.example"


def job_xml(job_id: str = ID, **fields: str) -> bytes:
    inner = "".join(f"<{key}>{value}</{key}>" for key, value in {"job_state": "R", **fields}.items())
    return f"<Data><Job><Job_Id>{job_id}</Job_Id>{inner}</Job></Data>".encode()


def answer(*parts: tuple[str, int, bytes]) -> CommandResult:
    return CommandResult(0, b"".join(b"%s %d %d\n%s\n" % (i.encode(), s, len(x), x) for i, s, x in parts))


def test_submit_speaks_the_old_dialect() -> None:
    request = JobRequest("fb-abcdefghijkl", b"#!/bin/sh\n", 10, 4096, 3600, gpus=1, queue="q", output_path="/h/o")
    assert Torque("/usr/local/bin").submit_command(request).argv == (
        *("/usr/local/bin/qsub", "-N", "fb-abcdefghijkl"),
        *("-l", "nodes=1:ppn=10:gpus=1,mem=4096mb,walltime=01:00:00", "-j", "oe", "-r", "n", "-q", "q", "-o", "/h/o"),
    )


def test_submit_answer_is_the_job_id() -> None:
    assert Torque().parse_submit(CommandResult(0, b"123.host.example\n")) == ID


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("qsub: submit error (Unknown queue MSG=cannot locate queue)", "scheduler.rejected.unknown_queue"),
        ("qsub: submit error (Job exceeds queue resource limits MSG=cannot satisfy)", "scheduler.rejected.over_limit"),
        ("qsub: submit error (Unauthorized Request )", "scheduler.rejected.not_authorized"),
    ],
)
def test_a_refusal_is_narrowed_down_by_its_words(words: str, code: str) -> None:
    with pytest.raises(SubmitRejected) as caught:
        Torque().parse_submit(CommandResult(170, b"", words.encode()))
    assert caught.value.code == code


def test_submit_without_a_server_leaves_the_outcome_open() -> None:
    with pytest.raises(SchedulerUnavailable):
        Torque().parse_submit(CommandResult(111, b"", b"qsub: cannot connect to server host (errno=111)\n"))


def test_status_runs_qstat_once_per_job() -> None:
    argv = Torque("/usr/local/bin").status_command([ID, "124.host.example"]).argv
    assert argv[:2] == ("sh", "-c")
    assert argv[3:] == ("sh", "/usr/local/bin/qstat", "-x", ID, "124.host.example")


def test_status_of_a_running_job() -> None:
    xml = job_xml(
        Job_Name="fb-x",
        Job_Owner="alice@login.example",
        queue="batch",
        exec_host="n1/0+n1/1",
        ctime="1795391801",
        start_time="1795391802",
        Resource_List="<walltime>02:00:00</walltime>",
        resources_used="<mem>6244kb</mem><walltime>00:01:00</walltime>",
    )
    job = Torque().parse_status(answer((ID, 0, xml)), [ID]).jobs[ID]
    assert (job.state, job.name, job.owner, job.queue) == (JobState.RUNNING, "fb-x", "alice", "batch")
    assert (job.execution_hosts, job.walltime_seconds, job.walltime_used_seconds) == (("n1",), 7200, 60)
    assert (job.memory_used_mib, job.started_at) == (7, dt.datetime.fromtimestamp(1795391802, dt.UTC))


def test_a_completed_job_is_finished_with_its_exit_status() -> None:
    job = Torque().parse_status(answer((ID, 0, job_xml(job_state="C", exit_status="271"))), [ID]).jobs[ID]
    assert (job.state, job.exit_status) == (JobState.FINISHED, 271)


def test_an_unknown_job_is_missing_and_the_others_are_answered() -> None:
    result = answer((ID, 0, job_xml()), ("124.host.example", 153, b""))
    report = Torque().parse_status(result, [ID, "124.host.example"])
    assert set(report.jobs) == {ID}
    assert report.missing == {"124.host.example"}
    assert report.without_history


@pytest.mark.parametrize(
    "xml",
    [
        b"",
        b"<Data><Job>",
        b"hello",
        job_xml("999.host.example"),
        job_xml() + job_xml(),
        b'<!DOCTYPE x [<!ENTITY a "b">]>' + job_xml(Job_Name="&a;"),
        job_xml(Job_Name="<![CDATA[x]]>"),
        job_xml(Job_Name="&unknown;"),
        b"<?xml-stylesheet href='x'?>" + job_xml(),
        b"<a>" * 5_000,
    ],
    ids=["empty", "cut", "text", "other-id", "two", "doctype", "cdata", "entity", "instruction", "deep"],
)
def test_a_job_whose_xml_cannot_be_trusted_is_unknown_and_spoils_no_other(xml: bytes) -> None:
    good = "124.host.example"
    jobs = Torque().parse_status(answer((ID, 0, xml), (good, 0, job_xml(good))), [ID, good]).jobs
    assert jobs[ID].state is JobState.UNKNOWN
    assert jobs[good].state is JobState.RUNNING


def test_odd_bytes_in_a_value_are_survived() -> None:
    xml = job_xml(Variable_List="X=" + escape("<job_state>C</job_state>\x01")).replace(b"X=", b"X=\xff")
    assert Torque().parse_status(answer((ID, 0, xml)), [ID]).jobs[ID].state is JobState.RUNNING


def test_a_declaration_of_the_document_is_fine() -> None:
    xml = b'<?xml version="1.0"?>\n' + job_xml()
    assert Torque().parse_status(answer((ID, 0, xml)), [ID]).jobs[ID].state is JobState.RUNNING


@pytest.mark.parametrize(
    "result",
    [
        CommandResult(0),
        CommandResult(127, b"", b"sh: not found"),
        answer((ID, 111, b"")),
        CommandResult(0, b"123.host.example 0 99\n<Data>"),
    ],
)
def test_a_doubtful_answer_says_nothing_about_any_job(result: CommandResult) -> None:
    with pytest.raises(SchedulerUnavailable):
        Torque().parse_status(result, [ID])


@pytest.mark.parametrize(
    ("result", "outcome"),
    [
        (CommandResult(0), CancelOutcome.ACCEPTED),
        (CommandResult(153, b"", b"qdel: nonexistent job id: 123\n"), CancelOutcome.UNKNOWN),
        (
            CommandResult(
                170, b"", b"qdel: Request invalid for state of job MSG=invalid state for job - COMPLETE 123\n"
            ),
            CancelOutcome.FINISHED,
        ),
        (
            CommandResult(
                170, b"", b"qdel: Request invalid for state of job MSG=invalid state for job - EXITING 123\n"
            ),
            CancelOutcome.ACCEPTED,
        ),
    ],
)
def test_cancel_outcomes(result: CommandResult, outcome: CancelOutcome) -> None:
    assert Torque().parse_cancel(result) is outcome


def test_cancel_of_somebody_elses_job_is_not_permitted() -> None:
    with pytest.raises(NotPermitted):
        Torque().parse_cancel(CommandResult(159, b"", b"qdel: Unauthorized Request  123\n"))


def test_users_cannot_extend_a_running_job() -> None:
    with pytest.raises(NotPermitted):
        Torque().parse_extend(CommandResult(159, b"", b"qalter: Unauthorized Request  MSG=... 123\n"))


def test_queues() -> None:
    stdout = (
        b"Queue: batch\n    queue_type = Execution\n    resources_max.walltime = 24:00:00\n"
        b"    enabled = True\n    started = False\n\n"
    )
    (queue,) = Torque().parse_queues(CommandResult(0, stdout))
    assert (queue.name, queue.accepts_jobs, queue.starts_jobs, queue.max_walltime_seconds) == (
        *("batch", True, False),
        86_400,
    )


@pytest.mark.parametrize(("jobs", "free"), [("", 16), ("0/123.h, 1/123.h", 14), ("0-3,8/123.h", 11), ("odd", 16)])
def test_free_cores_of_a_node(jobs: str, free: int) -> None:
    xml = (
        f"<Data><Node><name>n1</name><state>free</state><np>16</np><jobs>{jobs}</jobs>"
        "<status>opsys=linux,physmem=2048kb,availmem=1024kb</status><gpus>2</gpus></Node></Data>"
    )
    (node,) = Torque().parse_nodes(CommandResult(0, xml.encode()))
    assert (node.cores, node.cores_free, node.memory_mib, node.memory_free_mib, node.gpus) == (16, free, 2, 1, 2)


def test_nodes_in_no_xml_are_refused() -> None:
    with pytest.raises(SchedulerUnavailable):
        Torque().parse_nodes(CommandResult(0, b"n1\n  state = free\n"))


def test_registry_knows_torque() -> None:
    assert isinstance(adapter("torque"), Torque)
