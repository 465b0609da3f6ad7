"""Every recording of a real scheduler that an adapter may meet, against the table of expected outcomes."""

from __future__ import annotations

import pytest

from launcher.schedulers.base import CommandResult, SchedulerUnavailable
from launcher.schedulers.comments import explain
from launcher.schedulers.endings import ending
from launcher.schedulers.pbs import PBS, Client
from launcher.schedulers.slurm import Slurm
from launcher.states import EndReason
from tests.recordings import CAPTURES, names, openpbs, slurm
from tests.scheduler_outcomes import framed, openpbs_outcome, slurm_outcome

EXPECTED = dict(
    line.split("\t", 1)
    for line in (CAPTURES / "expected.tsv").read_text(encoding="utf-8").split("\n")
    if line and not line.startswith("#")
)
LOGS = {"finished-walltime-stderr", "finished-mem-stderr", "jupyter-04-log"}
"""Ends of logs: tests of their own below."""


@pytest.mark.parametrize("name", [name for name in EXPECTED if not name.startswith("slurm/")])
def test_openpbs_recording_gives_the_expected_outcome(name: str) -> None:
    assert openpbs_outcome(openpbs(name)) == EXPECTED[name]


@pytest.mark.parametrize("name", [name for name in EXPECTED if name.startswith("slurm/")])
def test_slurm_recording_gives_the_expected_outcome(name: str) -> None:
    assert slurm_outcome(slurm(name.removeprefix("slurm/"))) == EXPECTED[name]


def test_every_recording_of_openpbs_has_an_expected_outcome() -> None:
    assert set(names("openpbs")) - LOGS == {name for name in EXPECTED if not name.startswith("slurm/")}


def test_every_recording_of_the_slurm_adapters_commands_has_an_expected_outcome() -> None:
    """Those called ``native-…`` were made with other formats; tests below meet the ones that matter."""
    ours = {f"slurm/{name}" for name in names("slurm") if name.startswith("adapter-")}
    assert ours == {name for name in EXPECTED if name.startswith("slurm/")}


def test_every_case_that_was_left_out_is_listed_with_a_reason() -> None:
    text = (CAPTURES / "openpbs" / "LEFT_OUT.txt").read_text(encoding="utf-8")
    for paragraph in text.strip().split("\n\n")[1:]:
        reason, *cases = paragraph.split("\n")
        assert reason.endswith(".")
        assert cases
        assert all(case.startswith("  ") for case in cases)
        assert not {case.strip() for case in cases} & set(names("openpbs"))


TWINS = [name for name in EXPECTED if name.endswith("-json") and f"{name.removesuffix('-json')}-text" in EXPECTED]


@pytest.mark.parametrize("name", [name for name in TWINS if name != "hook-changed-json"])  # made at two moments
def test_text_and_dsv_say_the_same_about_a_job(name: str) -> None:
    same = EXPECTED[name].removesuffix(" ; without history")
    assert same == EXPECTED[name.removesuffix("-json") + "-text"]


@pytest.mark.parametrize(
    "name", ["native-sbatch", "native-sbatch-queued", "native-sbatch-stdin", "native-sbatch-too-big"]
)
def test_slurm_submit_recordings(name: str) -> None:
    result = slurm(name).result
    assert Slurm().parse_submit(result) == result.stdout.decode().strip()


def test_slurm_one_unknown_job_recording() -> None:
    """squeue alone fails for it; within the adapter's command that is no failure."""
    recorded = slurm("native-squeue-unknown").result
    report = Slurm().parse_status(framed("queue", recorded), ["99999"])
    assert report.missing == {"99999"}


@pytest.mark.parametrize(
    ("name", "code", "reason"),
    [
        ("finished-walltime-stderr", "ended.walltime", EndReason.WALLTIME),
        ("finished-mem-stderr", "ended.out_of_memory", EndReason.OUT_OF_MEMORY),
        ("jupyter-04-log", "ended.lost", EndReason.LOST),
    ],
)
def test_end_of_a_recorded_log_without_a_word_of_the_scheduler(name: str, code: str, reason: EndReason) -> None:
    found = ending(None, openpbs(name).result.stdout.decode())
    assert (found.code, found.reason) == (code, reason)


ENDINGS = {
    "bad-shell-text": (EndReason.FAILED, "ended.bad_shell", {}),
    "finished-fail1-text": (EndReason.FAILED, "ended.exit", {"exit_status": 1}),
    "finished-fail127-text": (EndReason.FAILED, "ended.exit", {"exit_status": 127}),
    "finished-segv-text": (EndReason.FAILED, "ended.killed", {"signal": 11, "exit_status": 139}),
    "finished-mem-enforced-text": (EndReason.OUT_OF_MEMORY, "ended.out_of_memory", {}),
    "finished-walltime-text": (EndReason.WALLTIME, "ended.walltime", {}),
    "finished-qdel-waiting-text": (EndReason.STOPPED_BY_USER, "ended.deleted_outside", {}),
    "after-qdel-W-force-later-text": (EndReason.STOPPED_BY_USER, "ended.deleted_outside", {"by": "alice"}),
    "momdown-after-force-text": (EndReason.STOPPED_BY_USER, "ended.deleted_outside", {}),
    "finished-after-failed-stageout-text": (EndReason.COMPLETED, "ended.completed", {}),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_reason_of_a_recorded_end(name: str) -> None:
    result = openpbs(name).result
    job_id = result.stdout.split(b"\n")[0].removeprefix(b"Job Id: ").decode()
    report = PBS(client=Client(dsv=False)).parse_status(framed(job_id, result), [job_id])
    found = ending(report.jobs[job_id], "")
    assert (found.reason, found.code, dict(found.params)) == ENDINGS[name]


SLURM_ENDINGS = {
    "17": (EndReason.WALLTIME, "ended.walltime", {}),
    "18": (EndReason.FAILED, "ended.exit", {"exit_status": 7}),
    "19": (EndReason.STOPPED_BY_USER, "ended.deleted_outside", {}),
    "21": (EndReason.FAILED, "ended.killed", {"signal": 9, "exit_status": 137}),
}


def test_reasons_of_recorded_ends_in_slurm() -> None:
    ids = ["17", "18", "19", "20", "21", "99999"]
    jobs = Slurm().parse_status(slurm("adapter-status-later").result, ids).jobs
    found = {job_id: ending(jobs[job_id], "") for job_id in SLURM_ENDINGS}
    assert {key: (end.reason, end.code, dict(end.params)) for key, end in found.items()} == SLURM_ENDINGS


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("comment-stopped-queue", "waiting.queue_stopped"),
        ("comment-too-many-ncpus", "waiting.never"),
        ("comment-too-much-mem", "waiting.never"),
        ("comment-user-run-limit-text", "waiting.user_limit"),
        ("comment-node-offline-text", "waiting.nodes_busy"),
        ("momdown-queued-text", "waiting.cores_busy"),
        ("qstat-json-held-by-admin", "waiting.held"),
        ("fold-text-raw", "waiting.starting"),
        ("comment-scheduling-off-text", "waiting.other"),
    ],
)
def test_reason_why_a_recorded_job_waits(name: str, code: str) -> None:
    comment = EXPECTED[name].partition("“")[2].partition("”")[0]
    assert explain(comment).code == code


def test_a_json_answer_to_the_status_command_is_refused() -> None:
    """The adapter never asks for JSON of jobs, which one user's odd variable can spoil for everybody."""
    with pytest.raises(SchedulerUnavailable):
        PBS().parse_status(CommandResult(0, openpbs("qstat-json-running").result.stdout), ["103.pbs01"])
