"""The OpenPBS adapter: the commands it builds, and what it makes of answers that no recording shows."""

from __future__ import annotations

import datetime as dt

import pytest

from launcher.schedulers import adapter
from launcher.schedulers.base import (
    CancelOutcome,
    CommandResult,
    JobRequest,
    JobState,
    NotPermitted,
    SchedulerError,
    SchedulerUnavailable,
    SubmitRejected,
)
from launcher.schedulers.pbs import PBS, Client
from tests.recordings import openpbs

SCRIPT = b"#!/bin/sh\nexec true\n"
PBS_BIN = "/opt/pbs/bin"


def request(**changes: object) -> JobRequest:
    values: dict[str, object] = {
        "name": "fb-abc234def567",
        "script": SCRIPT,
        "cores": 2,
        "memory_mib": 4096,
        "walltime_seconds": 5400,
    }
    return JobRequest(**{**values, **changes})  # type: ignore[arg-type]  # values are wrong on purpose


def dsv(*jobs: dict[str, str]) -> bytes:
    lines = (
        "\x1e".join([f"Job Id: {job['id']}", *(f"{key}={value}" for key, value in job.items() if key != "id")])
        for job in jobs
    )
    return "".join(line + "\n" for line in lines).encode("utf-8", "surrogateescape")


def test_submit_names_every_value_and_sends_the_script_on_stdin() -> None:
    command = PBS(PBS_BIN).submit_command(
        request(gpus=1, queue="gpu", account="proj-7", output_path="/home/alice/a b/job.out")
    )
    assert command.argv == (
        *("/opt/pbs/bin/qsub", "-f", "-N", "fb-abc234def567"),
        *("-l", "select=1:ncpus=2:mem=4096mb:ngpus=1", "-l", "walltime=01:30:00", "-j", "oe", "-r", "n"),
        *("-q", "gpu", "-A", "proj-7", "-o", "/home/alice/a b/job.out"),
    )
    assert command.stdin == SCRIPT


def test_submit_leaves_out_what_was_not_asked_for() -> None:
    argv = PBS().submit_command(request()).argv
    assert argv[0] == "qsub"
    assert not {"-q", "-A", "-o"} & set(argv)
    assert "ngpus" not in "".join(argv)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", "-x"),
        ("name", "a b"),
        ("name", "a\nb"),
        ("name", "é"),
        ("name", "a" * 64),
        ("queue", "-q"),
        ("queue", "work q"),
        ("queue", "short@elsewhere"),
        ("account", "a,b"),
        ("account", "a\nb"),
        ("output_path", "relative"),
        ("output_path", "/home/alice/a:b"),
        ("output_path", "/home/alice/a\nb"),
        ("output_path", "/home/alice/%j"),
        ("cores", 0),
        ("cores", -1),
        ("cores", True),
        ("cores", "2:ngpus=8"),
        ("memory_mib", 0),
        ("walltime_seconds", 0),
        ("walltime_seconds", 10**9),
        ("gpus", -1),
        ("script", b"sleep 1"),
    ],
)
def test_a_request_with_a_value_that_cannot_be_passed_on_is_refused(field: str, value: object) -> None:
    with pytest.raises(SubmitRejected) as caught:
        request(**{field: value})
    assert caught.value.params["field"] == field
    assert caught.value.code.startswith("scheduler.rejected.bad_")


def test_submit_answer_is_the_job_id() -> None:
    assert PBS().parse_submit(CommandResult(0, b"71.pbs01\n")) == "71.pbs01"


def test_submit_answer_of_a_talkative_wrapper_is_understood() -> None:
    assert PBS().parse_submit(CommandResult(0, b"Your balance: 12 hours\n71.pbs01\n")) == "71.pbs01"


@pytest.mark.parametrize("stdout", [b"", b"71.pb", b"hello\n", b"71.pbs01\n72.pbs01\n", b"\xff\xfe\n"])
def test_submit_answer_without_exactly_one_id_leaves_the_outcome_open(stdout: bytes) -> None:
    with pytest.raises(SchedulerUnavailable):
        PBS().parse_submit(CommandResult(0, stdout))


@pytest.mark.parametrize("exit_status", [1, 3, 124, 137, 160, 162, 255])
def test_submit_failure_that_is_no_clear_refusal_leaves_the_outcome_open(exit_status: int) -> None:
    with pytest.raises(SchedulerUnavailable):
        PBS().parse_submit(CommandResult(exit_status, b"", b"qsub: something\n"))


def test_missing_command_has_a_code_of_its_own() -> None:
    with pytest.raises(SchedulerUnavailable) as caught:
        PBS().parse_submit(CommandResult(127, b"", b"bash: line 1: qsub: command not found\n"))
    assert caught.value.code == "scheduler.command_missing"


def test_words_of_a_refusal_are_kept_clean_and_short() -> None:
    noise = b"qsub: \x1b[31mno\x00 " + b"x" * 10_000
    with pytest.raises(SubmitRejected) as caught:
        PBS().parse_submit(CommandResult(32, b"", noise))
    assert caught.value.code == "scheduler.rejected.site_hook"
    assert len(caught.value.detail) <= 2_000
    assert "\x1b" not in caught.value.detail
    assert "\x00" not in caught.value.detail


def test_status_asks_for_all_ids_at_once_in_utc() -> None:
    command = PBS(PBS_BIN).status_command(["1.pbs01", "2.pbs01"])
    assert command.argv == (*("/opt/pbs/bin/qstat", "-E", "-x", "-f", "-F", "dsv", "-D", "\x1e", "1.pbs01", "2.pbs01"),)
    assert command.environment["TZ"] == "UTC"


@pytest.mark.parametrize("bad", ["", "-x", "1.pbs01 2", "1;rm", "1.pbs01\n", "x", "1.é"])
def test_an_id_that_pbs_cannot_have_issued_is_refused(bad: str) -> None:
    for build in (
        lambda: PBS().status_command(["1.pbs01", bad]),
        lambda: PBS().cancel_command(bad),
        lambda: PBS().extend_command(bad, walltime_seconds=60),
    ):
        with pytest.raises(SchedulerError):
            build()


def test_status_without_ids_is_refused_because_it_would_list_every_job() -> None:
    with pytest.raises(SchedulerError):
        PBS().status_command([])


def test_status_of_a_running_job() -> None:
    recorded = openpbs("qstat-dsv-running").result
    result = CommandResult(0, recorded.stdout.replace(b"|", b"\x1e"))
    report = PBS().parse_status(result, ["103.pbs01"])
    job = report.jobs["103.pbs01"]
    assert (job.state, job.raw_state, job.name, job.owner) == (JobState.RUNNING, "R", "running", "alice")
    assert job.execution_hosts == ("pbs01",)
    assert job.started_at == dt.datetime(2026, 11, 22, 23, 56, 41, tzinfo=dt.UTC)
    assert job.walltime_seconds == 1800
    assert job.run_count == 1
    assert not report.missing


def test_jobs_left_out_are_missing_and_jobs_not_asked_for_are_ignored() -> None:
    result = CommandResult(0, dsv({"id": "1.a", "job_state": "R"}, {"id": "9.a", "job_state": "F"}))
    report = PBS().parse_status(result, ["1.a", "2.a"])
    assert set(report.jobs) == {"1.a"}
    assert report.missing == {"2.a"}


def test_an_empty_answer_with_success_means_that_all_are_missing() -> None:
    assert PBS().parse_status(CommandResult(0), ["1.a", "2.a"]).missing == {"1.a", "2.a"}


@pytest.mark.parametrize(
    "result",
    [
        CommandResult(255, b"", b"Connection refused\nqstat: cannot connect to server pbs01 (errno=15010)\n"),
        CommandResult(162, b"", b""),
        CommandResult(1, b"", b"qstat: illegally formed job identifier: 12 34\n"),
        CommandResult(0, b"", b"qstat: cannot connect to server pbs01 (errno=15010)\n"),
        CommandResult(0, b"Job Id: 1.a\x1ejob_state=R"),
        CommandResult(0, b"Job Id: 1.a\x1ejob_st\n"),
        CommandResult(0, b"<html>maintenance</html>\n"),
        CommandResult(0, b"\xff\xfe\x00"),
        CommandResult(0, b"Job Id: \x1ejob_state=R\n"),
    ],
    ids=["down", "no-server", "malformed-id", "down-with-success", "cut", "no-state", "page", "bytes", "no-id"],
)
def test_a_doubtful_answer_says_nothing_about_any_job(result: CommandResult) -> None:
    with pytest.raises(SchedulerUnavailable):
        PBS().parse_status(result, ["1.a"])


def test_a_job_that_is_running_by_its_letter_but_not_yet_on_its_host_is_queued() -> None:
    fields = {"id": "1.a", "job_state": "R", "substate": "41", "exec_host": "n1/0"}
    job = PBS().parse_status(CommandResult(0, dsv(fields)), ["1.a"]).jobs["1.a"]
    assert (job.state, job.raw_state, job.execution_hosts) == (JobState.QUEUED, "R", ())


def test_the_first_state_of_a_job_counts() -> None:
    fields = b"Job Id: 1.a\x1ejob_state=R\x1esubstate=42\x1ejob_state=F\n"
    assert PBS().parse_status(CommandResult(0, fields), ["1.a"]).jobs["1.a"].state is JobState.RUNNING


def test_the_first_line_of_a_job_counts() -> None:
    answer = dsv({"id": "1.a", "job_state": "R"}, {"id": "1.a", "job_state": "F"})
    assert PBS().parse_status(CommandResult(0, answer), ["1.a"]).jobs["1.a"].state is JobState.RUNNING


@pytest.mark.parametrize("letter", ["Q", "W", "T"])
def test_a_job_that_waits_or_is_on_its_way_to_a_queue_is_queued(letter: str) -> None:
    answer = CommandResult(0, dsv({"id": "1.a", "job_state": letter}))
    assert PBS().parse_status(answer, ["1.a"]).jobs["1.a"].state is JobState.QUEUED


def test_exit_status_of_an_earlier_run_does_not_count() -> None:
    fields = {"id": "1.a", "job_state": "H", "Exit_status": "271"}
    assert PBS().parse_status(CommandResult(0, dsv(fields)), ["1.a"]).jobs["1.a"].exit_status is None


def test_a_letter_nobody_knows_is_unknown() -> None:
    job = PBS().parse_status(CommandResult(0, dsv({"id": "1.a", "job_state": "Ω"})), ["1.a"]).jobs["1.a"]
    assert (job.state, job.raw_state) == (JobState.UNKNOWN, "Ω")


def test_text_from_the_scheduler_can_be_stored() -> None:
    fields = {"id": "1.a", "job_state": "Q", "comment": "caf\udce9 \x07\x00" + "x" * 9_000}
    comment = PBS().parse_status(CommandResult(0, dsv(fields)), ["1.a"]).jobs["1.a"].comment
    assert comment.encode()
    assert len(comment) == 2_000
    assert comment.startswith("caf\ufffd")


def test_several_hosts_are_each_named_once() -> None:
    fields = {"id": "1.a", "job_state": "R", "exec_host": "n1.hpc.example/0*2+n2/3+n1.hpc.example/5"}
    job = PBS().parse_status(CommandResult(0, dsv(fields)), ["1.a"]).jobs["1.a"]
    assert job.execution_hosts == ("n1.hpc.example", "n2")


@pytest.mark.parametrize("value", ["n1/0+evil host/0", "-n/0", "n1/0+", "http://x/", "n\ud800/0"])
def test_a_host_that_is_no_host_name_makes_the_value_worthless(value: str) -> None:
    fields = dsv({"id": "1.a", "job_state": "R", "exec_host": value.replace("\ud800", "\udc80")})
    assert PBS().parse_status(CommandResult(0, fields), ["1.a"]).jobs["1.a"].execution_hosts == ()


def test_a_server_without_history_is_asked_without_it_from_then_on() -> None:
    pbs = PBS(PBS_BIN)
    answer = CommandResult(0, b"", b"qstat: PBS is not configured to maintain job history 5207.pbs01\n")
    with pytest.raises(SchedulerUnavailable) as caught:
        pbs.parse_status(answer, ["5207.pbs01"])
    assert caught.value.code == "scheduler.no_history"
    other = pbs.downgrade(answer)
    assert other is not None
    assert "-x" not in other.status_command(["5207.pbs01"]).argv
    assert "-x" not in other.find_command(name="fb-1", user="alice").argv
    assert other.parse_status(CommandResult(0), ["5207.pbs01"]).without_history
    assert other.downgrade(answer) is None


@pytest.mark.parametrize(
    ("stderr", "client"),
    [
        (b"qstat: invalid option -- 'E'\nusage: ...\n", Client(grouped=False)),
        (b"qstat: illegal option -- F\nusage: ...\n", Client(grouped=False, dsv=False)),
        (b"qstat: invalid option -- 'D'\nusage: ...\n", Client(grouped=False, dsv=False)),
        (b"qsub: invalid option -- 'f'\nusage: ...\n", Client(foreground=False)),
    ],
)
def test_an_old_client_is_met_by_another_adapter(stderr: bytes, client: Client) -> None:
    other = PBS(PBS_BIN).downgrade(CommandResult(2, b"", stderr))
    assert isinstance(other, PBS)
    assert other.client == client
    assert other.commands_folder == PBS_BIN


@pytest.mark.parametrize(
    "result",
    [
        CommandResult(0, b"", b"qstat: invalid option -- 'E'"),
        CommandResult(2, b"", b"qsub: illegal -N value\n"),
    ],
)
def test_an_ordinary_answer_asks_for_no_other_adapter(result: CommandResult) -> None:
    assert PBS().downgrade(result) is None


def test_without_history_a_finished_job_is_known_by_the_error_text() -> None:
    stderr = b"".join(
        b"qstat: %d.pbs01 Job has finished, use -x or -H to obtain historical job information\n" % number
        for number in (15, 17)
    )
    report = PBS(client=Client(history=False)).parse_status(CommandResult(35, b"", stderr), ["15.pbs01", "16.pbs01"])
    assert {job_id: job.state for job_id, job in report.jobs.items()} == {"15.pbs01": JobState.FINISHED}
    assert report.missing == {"16.pbs01"}


def test_find_compares_name_and_user() -> None:
    command = PBS(PBS_BIN).find_command(name="fb-abc234def567", user="alice")
    assert command.argv == ("/opt/pbs/bin/qselect", "-x", "-N", "fb-abc234def567", "-u", "alice")


def test_found_jobs_come_oldest_first() -> None:
    assert PBS().parse_find(CommandResult(0, b"103.pbs01\n20.pbs01\n")) == ("20.pbs01", "103.pbs01")


def test_nothing_found_is_an_answer() -> None:
    assert PBS().parse_find(CommandResult(0)) == ()


@pytest.mark.parametrize(
    "result",
    [
        CommandResult(0, b"", b"qselect: PBS is not configured to maintain job history\n"),
        CommandResult(162, b"", b"qselect: cannot connect to server\n"),
        CommandResult(0, b"103.pbs"),
        CommandResult(0, b"103.pbs01\nhello\n"),
        CommandResult(1),
        CommandResult(1, b"103.pbs01\n"),
        CommandResult(0, b"", b"qselect: cannot connect to server\n"),
    ],
)
def test_a_doubtful_search_is_not_taken_for_nothing_found(result: CommandResult) -> None:
    with pytest.raises(SchedulerUnavailable):
        PBS().parse_find(result)


@pytest.mark.parametrize("user", ["", "-u", "alice bob", "a\nb", "a,b"])
def test_a_search_for_a_strange_user_is_refused(user: str) -> None:
    with pytest.raises(SchedulerError):
        PBS().find_command(name="fb-1", user=user)


@pytest.mark.parametrize(
    ("exit_status", "outcome"),
    [
        (0, CancelOutcome.ACCEPTED),
        (168, CancelOutcome.ACCEPTED),
        (35, CancelOutcome.FINISHED),
        (153, CancelOutcome.UNKNOWN),
    ],
)
def test_cancel_outcomes(exit_status: int, outcome: CancelOutcome) -> None:
    assert PBS().parse_cancel(CommandResult(exit_status)) is outcome


def test_cancel_of_somebody_elses_job_is_not_permitted() -> None:
    with pytest.raises(NotPermitted):
        PBS().parse_cancel(CommandResult(159, b"", b"qdel: Unauthorized Request  106.pbs01\n"))


@pytest.mark.parametrize("exit_status", [162, 222, 255, 127])
def test_cancel_that_could_not_be_delivered_is_tried_again(exit_status: int) -> None:
    with pytest.raises(SchedulerUnavailable) as caught:
        PBS().parse_cancel(CommandResult(exit_status))
    assert caught.value.transient


def test_extend_asks_for_the_whole_walltime() -> None:
    command = PBS(PBS_BIN).extend_command("7.pbs01", walltime_seconds=100 * 3600)
    assert command.argv == ("/opt/pbs/bin/qalter", "-l", "walltime=100:00:00", "7.pbs01")


def test_users_cannot_extend_a_running_job() -> None:
    with pytest.raises(NotPermitted):
        PBS().parse_extend(CommandResult(159, b"", b"qalter: Unauthorized Request  7.pbs01\n"))


def test_extend_over_the_queues_limit_is_rejected() -> None:
    with pytest.raises(SubmitRejected) as caught:
        PBS().parse_extend(CommandResult(188, b"", b"qalter: Job violates queue and/or server resource limits\n"))
    assert caught.value.code == "scheduler.rejected.over_limit"


def test_registry_knows_pbs() -> None:
    assert isinstance(adapter("pbs", "/opt/pbs/bin/"), PBS)
    assert adapter("pbs", "/opt/pbs/bin/").command_path("qsub") == "/opt/pbs/bin/qsub"


def test_a_sites_greeting_in_the_error_text_does_not_matter() -> None:
    greeting = b"Welcome. All connections follow the usage protocol. Sessions end after idle time-out.\n"
    result = CommandResult(0, dsv({"id": "1.a", "job_state": "R"}), greeting)
    report = PBS().parse_status(result, ["1.a", "2.a"])
    assert set(report.jobs) == {"1.a"}
    assert report.missing == {"2.a"}
