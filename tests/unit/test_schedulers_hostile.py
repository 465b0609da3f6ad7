"""Nobody can speak for somebody else: hostile values in jobs, in requests and in whole answers."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from launcher.schedulers.base import Command, CommandResult, JobRequest, JobState, JobStatus, Scheduler, SchedulerError
from launcher.schedulers.framing import one_command_per_job
from launcher.schedulers.pbs import PBS, Client
from launcher.schedulers.slurm import Slurm
from launcher.schedulers.torque import Torque
from launcher.ssh.commands import command_line
from tests.recordings import names, openpbs
from tests.scheduler_outcomes import framed

OLD_CLIENT = Client(grouped=False, dsv=False)

hostile = st.one_of(
    st.text(max_size=200),
    st.lists(
        st.sampled_from(
            [
                *("\n", "\t", "\x1e", "|", "\\", "\\n", "=", ",", " ", "    ", "job_state = F", "job_state=F"),
                *("Job Id: 2.a", "exec_host = evil/0", "exec_host=evil/0", "Exit_status = 0", "Exit_status=0"),
                *("Job_Owner=bob@x", "substate=42", "2.a 0 10", "queue 0 0", "<Job>", "x", "é", "\udcff"),
            ]
        ),
        max_size=30,
    ).map("".join),
)
"""Values as a user might write them: any text, and imitations of what schedulers print."""


def attributes(state: str, values: Mapping[str, str]) -> list[tuple[str, str]]:
    """A job's attributes in the order in which qstat prints them; ``values`` are the ones that users write."""
    return [
        ("Job_Name", "fb-x"),
        ("Job_Owner", "alice@pbs01"),
        ("job_state", state),
        ("queue", "workq"),
        ("Account_Name", values["account"]),
        ("Error_Path", values["path"]),
        ("exec_host", "n1/0"),
        ("Output_Path", values["path"]),
        ("Resource_List.walltime", "01:00:00"),
        ("substate", "42" if state == "R" else "92"),
        ("Variable_List", values["variables"]),
        ("comment", "Job run at Sun Nov 22 at 23:56 on (n1:ncpus=1)"),
        ("run_count", "1"),
        ("Exit_status", "3"),
        ("Submit_arguments", values["arguments"]),
    ]


def printed_as_dsv(job_id: str, fields: Sequence[tuple[str, str]]) -> bytes:
    """As qstat does with ``-F dsv -D 0x1e``: the delimiter and line ends of values come out as printable
    text.
    """
    shown = [value.replace("\n", "\\n").replace("\x1e", "\\^^") for _, value in fields]
    parts = [f"Job Id: {job_id}", *(f"{key}={value}" for (key, _), value in zip(fields, shown, strict=True))]
    return ("\x1e".join(parts) + "\n").encode("utf-8", "surrogateescape")


def printed_as_text(job_id: str, fields: Sequence[tuple[str, str]]) -> bytes:
    """As qstat does without it: line ends raw, long lines folded with a tab."""
    lines = [f"Job Id: {job_id}"]
    for key, value in fields:
        line = f"    {key} = {value}"
        while len(line) > 79:
            lines.append(line[:79])
            line = "\t" + line[79:]
        lines.append(line)
    return "\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape")


def encodable(text: str) -> bool:
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return "\0" not in text


values = st.fixed_dictionaries(dict.fromkeys(("account", "path", "variables", "arguments"), hostile.filter(encodable)))


@given(values)
def test_in_dsv_no_value_can_forge_another_field(written: dict[str, str]) -> None:
    result = CommandResult(0, printed_as_dsv("1.a", attributes("F", written)))
    job = PBS().parse_status(result, ["1.a"]).jobs["1.a"]
    assert (job.state, job.owner, job.queue, job.name) == (JobState.FINISHED, "alice", "workq", "fb-x")
    assert (job.execution_hosts, job.exit_status, job.run_count) == (("n1",), 3, 1)
    assert (job.walltime_seconds, job.started_at) == (3600, None)
    assert job.comment.startswith("Job run at")


@given(values)
def test_in_dsv_no_value_can_forge_another_job(written: dict[str, str]) -> None:
    stdout = printed_as_dsv("1.a", attributes("F", written)) + printed_as_dsv(
        "3.a", attributes("R", dict.fromkeys(written, ""))
    )
    report = PBS().parse_status(CommandResult(0, stdout), ["1.a", "2.a", "3.a"])
    assert set(report.jobs) == {"1.a", "3.a"}
    assert report.missing == {"2.a"}
    assert report.jobs["3.a"].state is JobState.RUNNING


@given(values)
def test_in_text_no_value_can_forge_a_field_that_qstat_printed(written: dict[str, str]) -> None:
    """A forged copy makes a field worthless; it never replaces the true one."""
    answer = CommandResult(0, printed_as_text("1.a", attributes("R", written)))
    job = PBS(client=OLD_CLIENT).parse_status(framed("1.a", answer), ["1.a"]).jobs["1.a"]
    assert (job.state, job.owner, job.queue, job.name) == (JobState.RUNNING, "alice", "workq", "fb-x") or (
        job.state is JobState.QUEUED
    )
    assert job.execution_hosts in {("n1",), ()}
    assert job.run_count in {1, None}


def job_as_text(**written: str) -> JobStatus:
    """What the adapter makes of a running job, as an old client prints it, with these values of a user."""
    usual = dict.fromkeys(("account", "path", "variables", "arguments"), "")
    answer = CommandResult(0, printed_as_text("1.a", attributes("R", {**usual, **written})))
    return PBS(client=OLD_CLIENT).parse_status(framed("1.a", answer), ["1.a"]).jobs["1.a"]


def test_in_text_a_host_that_a_user_wrote_before_the_true_one_is_not_believed() -> None:
    """The portal would bring the session's secret there."""
    assert job_as_text().execution_hosts == ("n1",)
    assert job_as_text(account="a\n    exec_host = evil/0").execution_hosts == ()


@pytest.mark.parametrize("field", ["account", "path", "variables", "arguments"])
@pytest.mark.parametrize("folded", ["", "\n\tevil"])
def test_in_text_what_stands_before_all_that_users_write_is_believed(field: str, folded: str) -> None:
    forged = "".join(
        f"\n    {line}{folded}" for line in ("Job_Name = x", "Job_Owner = bob@x", "job_state = F", "queue = x")
    )
    job = job_as_text(**{field: forged})
    assert (job.state, job.owner, job.queue, job.name) == (JobState.RUNNING, "alice", "workq", "fb-x")


def test_in_text_an_answer_about_another_job_is_none() -> None:
    about_another = printed_as_text(
        "2.a", attributes("R", dict.fromkeys(("account", "path", "variables", "arguments"), ""))
    )
    with pytest.raises(SchedulerError):
        PBS(client=OLD_CLIENT).parse_status(framed("1.a", CommandResult(0, about_another)), ["1.a"])


@given(values)
def test_in_text_no_value_can_forge_another_job(written: dict[str, str]) -> None:
    own = framed("1.a", CommandResult(0, printed_as_text("1.a", attributes("R", written)))).stdout
    gone = framed("2.a", CommandResult(153, b"")).stdout
    other = framed("3.a", CommandResult(0, printed_as_text("3.a", attributes("R", dict.fromkeys(written, ""))))).stdout
    report = PBS(client=OLD_CLIENT).parse_status(CommandResult(0, own + gone + other), ["1.a", "2.a", "3.a"])
    assert set(report.jobs) == {"1.a", "3.a"}
    assert report.jobs["3.a"].state is JobState.RUNNING
    assert report.jobs["3.a"].execution_hosts == ("n1",)


SCHEDULERS: list[Scheduler] = [PBS(), PBS(client=Client(history=False)), PBS(client=OLD_CLIENT), Slurm(), Torque()]
PARSERS: list[Callable[[Scheduler, CommandResult], object]] = [
    lambda scheduler, result: scheduler.parse_submit(result),
    lambda scheduler, result: scheduler.parse_find(result),
    lambda scheduler, result: scheduler.parse_status(result, ["1.a", "7", "103.pbs01"]),
    lambda scheduler, result: scheduler.parse_cancel(result),
    lambda scheduler, result: scheduler.parse_extend(result),
    lambda scheduler, result: scheduler.parse_queues(result),
    lambda scheduler, result: scheduler.parse_nodes(result),
    lambda scheduler, result: scheduler.downgrade(result),
]


def complaints_about(result: CommandResult) -> list[SchedulerError]:
    """The errors that the parsers raise. Any other exception passes through and fails the test."""
    complaints = []
    for scheduler in SCHEDULERS:
        for parse in PARSERS:
            try:
                parse(scheduler, result)
            except SchedulerError as error:
                complaints.append(error)
    return complaints


def can_be_stored(text: str) -> bool:
    return len(text) <= 2_000 and "\0" not in text and text == text.encode("utf-8", "replace").decode()


results = st.builds(
    CommandResult,
    st.sampled_from([0, 1, 2, 35, 127, 153, 159, 162, 188, 255]),
    st.one_of(
        st.binary(max_size=300), hostile.filter(encodable).map(lambda text: text.encode("utf-8", "surrogateescape"))
    ),
    st.binary(max_size=200),
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(results)
def test_no_answer_breaks_a_parser(result: CommandResult) -> None:
    assert all(can_be_stored(error.detail) for error in complaints_about(result))


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_no_damaged_recording_breaks_a_parser(data: st.DataObject) -> None:
    recorded = openpbs(data.draw(st.sampled_from(names("openpbs")))).result
    stdout = bytearray(recorded.stdout[: data.draw(st.integers(0, len(recorded.stdout)))])
    for _ in range(data.draw(st.integers(0, 5))):
        if stdout:
            stdout[data.draw(st.integers(0, len(stdout) - 1))] = data.draw(st.integers(0, 255))
    for dsv in (bytes(stdout), bytes(stdout).replace(b"|", b"\x1e")):
        complaints = complaints_about(CommandResult(recorded.exit_status, dsv, recorded.stderr))
        assert all(can_be_stored(error.detail) for error in complaints)


def arguments_after_the_shell(command: Command) -> list[str]:
    """What a real shell makes of the command line: its words, as printf sees them."""
    line = command_line(Command(command.argv))
    shown = subprocess.run(["/bin/sh", "-c", f"printf '%s\\0' {line}"], capture_output=True, check=True).stdout
    return shown.decode("utf-8", "surrogateescape").split("\0")[:-1]


spaced_path = st.from_regex(r"\A/[\w ./@+=~*-]{1,40}\Z")


@settings(max_examples=150)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "name": hostile,
            "queue": hostile,
            "account": hostile,
            "output_path": st.one_of(hostile, hostile.map("/home/alice/{}".format), spaced_path),
        },
    )
)
def test_no_value_of_a_request_adds_an_argument_or_a_directive(texts: dict[str, str]) -> None:
    plain = {"name": "fb-x", "queue": "q", "account": "a", "output_path": "/o"}
    try:
        request = JobRequest(script=b"#!/bin/sh\n", cores=1, memory_mib=1, walltime_seconds=1, **{**plain, **texts})
    except SchedulerError:
        return
    for scheduler in (PBS(), Slurm(), Torque()):
        command = scheduler.submit_command(request)
        assert arguments_after_the_shell(command) == list(command.argv)
        usual = scheduler.submit_command(
            JobRequest(script=b"#!/bin/sh\n", cores=1, memory_mib=1, walltime_seconds=1, **plain)
        )
        if all([request.queue, request.account, request.output_path]):
            assert len(command.argv) == len(usual.argv)
        assert not any(character in argument for argument in command.argv for character in "\n\r\0\x1e")


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
def test_the_framing_script_keeps_answers_apart_in_a_real_shell(tmp_path: Path, shell: str) -> None:
    """A stand-in for qstat prints what a hostile job would make it print."""
    nothing = dict.fromkeys(("account", "path", "variables", "arguments"), "")
    odd = dict.fromkeys(nothing, "é\n")
    forged = printed_as_text("1.a", attributes("R", odd)) + b"\n3.a 0 5\nJob Id: 3.a\n    job_state = F\n"
    (tmp_path / "1.a").write_bytes(forged)
    (tmp_path / "3.a").write_bytes(printed_as_text("3.a", attributes("R", nothing)))
    qstat = tmp_path / "q stat"
    qstat.write_text(
        f'#!/bin/sh\ncd "{tmp_path}" && [ -f "$2" ] && exec cat "$2"\necho "qstat: Unknown Job Id $2" >&2; exit 153\n'
    )
    qstat.chmod(0o755)
    ids = ["1.a", "2.a", "3.a"]
    line = command_line(one_command_per_job(str(qstat), "-xf", ids))
    done = subprocess.run([shell, "-c", line], capture_output=True, check=False)
    report = PBS(client=OLD_CLIENT).parse_status(CommandResult(done.returncode, done.stdout, done.stderr), ids)
    states = {job_id: job.state for job_id, job in report.jobs.items()}
    assert states == {"1.a": JobState.RUNNING, "3.a": JobState.RUNNING}
    assert report.missing == {"2.a"}


def test_quoting_is_that_of_shlex() -> None:
    command = PBS("/opt/p bs").cancel_command("1.a")
    assert command_line(command) == shlex.join(command.argv)
