"""The demonstration cluster's PBS beside recordings of a real one: the same commands over SSH, the same answers.

The cluster gets the queues and the node of the recorded site. Names, ids and times are made equal first.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.democluster.pbs.formats import split_variables
from launcher.democluster.settings import DemoSettings, Node, QueueDefinition
from tests.democluster_recordings import CAPTURES, recorded, text_fields
from tests.integration.demo_host import QUICK, DemoHost, Result

pytestmark = pytest.mark.integration

QUEUES = (
    QueueDefinition("workq", default_walltime_seconds=7200),
    QueueDefinition("gpu", max_gpus=1, default_gpus=1, default_walltime_seconds=1800),
    QueueDefinition("short", max_cores=4, max_walltime_seconds=600, default_walltime_seconds=300),
    QueueDefinition("closed", is_enabled=False),
    QueueDefinition("stopped", is_started=False),
    QueueDefinition("bobonly", users=("bob",)),
    QueueDefinition("limited", max_queued_per_user=2, max_running_per_user=1),
    QueueDefinition("route"),
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoHost]:
    """The recorded site: one node of eight cores, jobs as timers."""
    settings = DemoSettings(
        root=tmp_path_factory.mktemp("site"), port=0, queues=QUEUES, delays=QUICK, simulate=True,
        nodes=(Node("pbs01", cores=8, memory_mib=24_105, gpus=1),),
    )  # fmt: skip
    host = DemoHost(settings)
    yield host
    host.stop()


@pytest.fixture
def empty_site(site: DemoHost) -> DemoHost:
    """The same, without a job."""

    async def clear() -> None:
        for job in list(site.cluster.scheduler.jobs.values()):
            if job.state.value != "F":
                site.cluster.scheduler.delete(job, job.request.owner, force=True)

    site.call(clear)
    for job in list(site.cluster.scheduler.jobs.values()):
        site.wait(job.job_id, "F")
    return site


def alike(text: bytes) -> str:
    """An answer with the names, ids and times that differ from run to run made equal."""
    shown = text.decode("utf-8", "surrogateescape").replace("demo-pbs", "pbs01").replace("demo-login", "pbs01")
    shown = re.sub(r"\b\d+(\[\])?\.pbs01", "ID", shown)
    shown = re.sub(r'"timestamp":\d+', '"timestamp":0', shown)
    return shown.rstrip("\n")


def assert_same(result: Result, name: str) -> None:
    """The answer is the recorded one."""
    case = recorded(name)
    assert result.exit_status == case.exit_status
    assert alike(result.stderr) == alike(case.stderr)
    assert alike(result.stdout) == alike(case.stdout)


NEEDS_MORE = {  # files, another user, earlier jobs, or something this PBS does not imitate
    "qsub-03-scriptfile", "qsub-04-scriptfile-dir-space", "qsub-13-block", "qsub-14-huge-script",
    "qsub-J-01-array", "qsub-J-03-array-too-big", "qsub-f-03-script-name-100", "qsub-q-05-acl-queue-bob",
    "qsub-f-04-jobname-from-script-then-queue-unknown", "qsub-q-06-queue-at-server",
    "qsub-q-11-limited-3-over-max-queued", "qsub-08b-crlf-result", "qsub-12b-dashdash-job",
}  # fmt: skip
SUBMISSIONS = sorted(
    path.stem
    for path in (CAPTURES / "openpbs").glob("qsub-*.txt")
    if path.stem not in NEEDS_MORE and recorded(path.stem).command.startswith("qsub")
)


@pytest.mark.parametrize("name", SUBMISSIONS)
def test_qsub_accepts_and_refuses_as_recorded(empty_site: DemoHost, name: str) -> None:
    case = recorded(name)
    assert_same(empty_site.run(case.command, stdin=case.stdin), name)


def test_many_submissions_are_compared() -> None:
    assert len(SUBMISSIONS) > 60


COMMANDS = [
    "qdel-unknown", "qhold-unknown", "qrls-unknown", "qstat-unknown-text", "qstat-json-unknown",
    "qstat-json-unknown-x", "qstat-E-json-only-unknown", "qstat-json-several-two-unknown", "qstat-Fjson-no-f",
    "qstat-u-Fjson", "qstat-queue-arg-unknown", "qstat-queue-arg", "queue-unknown", "node-unknown",
    "qstat-json-malformed-id2", "server-wrong-host", "nodes-avj", "qselect-none",
]  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_without_a_job_answer_as_recorded(empty_site: DemoHost, name: str) -> None:
    assert_same(empty_site.run(recorded(name).command.replace("pbs01", "demo-pbs")), name)


DOWN = ["server-down-qstat", "server-down-qstat-json", "server-down-qsub", "server-down-qdel", "server-down-qhold",
        "server-down-pbsnodes", "server-down-qstat-Q"]  # fmt: skip


@pytest.mark.parametrize("name", DOWN)
def test_commands_fail_as_recorded_when_the_server_is_down(site: DemoHost, name: str) -> None:
    site.fault("scheduler", "down")
    try:
        assert_same(site.run(recorded(name).command), name)
    finally:
        site.fault("scheduler", "ok")


def _attributes(dsv: bytes) -> list[tuple[str, str]]:
    line = alike(dsv).removeprefix("Job Id: ID|")
    pairs = [part.partition("=") for part in line.split("|")]
    return [(name, "" if _varies(name) else _settled(value)) for name, _, value in pairs]


def _varies(name: str) -> bool:
    return name.endswith("time") or name in ("comment", "session_id", "Variable_List", "jobdir", "history_timestamp")


def _settled(value: str) -> str:
    value = re.sub(r"pbs01:/.*/", "pbs01:/", value)
    return re.sub(r"\.([eo])\d+$", r".\1N", value)


@pytest.mark.parametrize(
    ("name", "options", "state"),
    [
        ("qstat-dsv-held", "-N heldjob -h", "H"),
        ("qstat-dsv-waiting-a", "-N waiting -a 203001010000", "W"),
        ("qstat-dsv-queued", "-N queued -l select=1:ncpus=64", "Q"),
        ("qstat-dsv-running", "-N running -l select=1:ncpus=1:mem=100mb -l walltime=00:30:00", "R"),
    ],
)
def test_a_job_has_the_recorded_attributes_in_their_order(
    empty_site: DemoHost, name: str, options: str, state: str
) -> None:
    job_id = empty_site.submit(options)
    empty_site.wait(job_id, state, substate=42 if state == "R" else None)
    # A timer uses nothing and has no session: what only a process reports is compared in test_democluster_jobs.
    theirs = [(key, value) for key, value in _attributes(recorded(name).stdout) if _reported(key)]
    if "comment" in dict(theirs):  # the scheduler says it a moment after the state
        _until_comment(empty_site, job_id)
    ours = _attributes(empty_site.run(f"qstat -f -F dsv {job_id}").stdout)
    assert [pair for pair in ours if _reported(pair[0])] == theirs


def _reported(name: str) -> bool:
    return not name.startswith("resources_used") and name != "session_id"


@pytest.mark.parametrize(
    ("options", "comment"),
    [
        ("-l select=1:ncpus=64", "Can Never Run: Insufficient amount of resource: ncpus (R: 64 A: 8 T: 8)"),
        (
            "-l select=1:ncpus=1:mem=900gb",
            "Can Never Run: Insufficient amount of resource: mem (R: 900gb A: 24105mb T: 24105mb)",
        ),
        ("-q stopped", "Not Running: Queue not started."),
    ],
)
def test_a_job_that_cannot_start_says_why_as_recorded(empty_site: DemoHost, options: str, comment: str) -> None:
    job = empty_site.job(empty_site.submit(options))
    empty_site.wait(job.job_id, "Q")
    _until_comment(empty_site, job.job_id)
    assert job.comment == comment


def _until_comment(site: DemoHost, job_id: str) -> None:
    from tests.waiting import wait_for

    wait_for(lambda: site.job(job_id).comment, what="no comment came")


def test_a_job_waits_for_what_another_uses(empty_site: DemoHost) -> None:
    empty_site.wait(empty_site.submit("-l select=1:ncpus=1"), "R")
    waiting = empty_site.submit("-l select=1:ncpus=8")
    _until_comment(empty_site, waiting)
    expected = "Not Running: Insufficient amount of resource: ncpus (R: 8 A: 7 T: 8)"
    assert empty_site.job(waiting).comment == expected


def test_the_third_job_of_a_limited_queue_is_refused_and_the_second_waits(empty_site: DemoHost) -> None:
    empty_site.wait(empty_site.submit("-q limited"), "R")
    second = empty_site.submit("-q limited")
    _until_comment(empty_site, second)
    assert empty_site.job(second).comment == "Not Running: User has reached queue limited running job limit."
    assert_same(empty_site.run("qsub -q limited"), "qsub-q-11-limited-3-over-max-queued")


VARIABLES = sorted(path.stem for path in (CAPTURES / "openpbs-commands").glob("qsub-v-*-env.txt"))


@pytest.mark.parametrize("name", [name for name in VARIABLES if "unicode" not in name and "latin1" not in name])
def test_variables_are_listed_as_recorded(empty_site: DemoHost, name: str) -> None:
    """The listing holds Variable_List as the server keeps it, and the arguments that led to it."""
    fields = dict(text_fields(recorded(name).stdout))
    words = fields["Submit_arguments"].partition(" ")[2]
    quoted = "'" + words.replace("'", "'\\''") + "'"
    job_id = empty_site.submit(f"-h -v {quoted}")
    listed = dict(text_fields(empty_site.run(f"qstat -f {job_id}").stdout))["Variable_List"]
    assert _own(listed) == _own(fields["Variable_List"])


def _own(listed: str) -> list[tuple[str, str]]:
    pairs = split_variables(listed)
    return [(key, "" if key == "HOME" else value) for key, value in pairs if not key.startswith("PBS_O_")]


def test_queue_tables_have_the_recorded_shape(empty_site: DemoHost) -> None:
    ours, theirs = empty_site.run("qstat -Q").text, recorded("queues-short").stdout.decode()

    def numbers_gone(table: str) -> list[str]:
        return [re.sub(r" +\d+", lambda match: " " * len(match[0]), line) for line in table.split("\n")]

    # The recorded site's last queue routes; ours only executes.
    assert numbers_gone(ours)[:-2] == numbers_gone(theirs)[:-2]


def test_the_server_table_has_the_recorded_shape(empty_site: DemoHost) -> None:
    ours = empty_site.run("qstat -B").text
    assert ours.split("\n")[2] == "demo-pbs             0     0     0     0     0     0     0     0 Active    "


def test_the_short_table_has_the_recorded_columns(empty_site: DemoHost) -> None:
    job_id = empty_site.submit("-h -N arr")
    ours = empty_site.run(f"qstat {job_id}").text.split("\n")
    theirs = recorded("array-noquote").stdout.decode().split("\n")
    assert ours[:2] == theirs[:2]
    assert ours[2] == theirs[2].replace("123[].pbs01 ", f"{job_id:<12}").replace(" B ", " H ")


def test_the_long_table_has_the_recorded_columns(empty_site: DemoHost) -> None:
    job_id = empty_site.submit("-N queued -l select=1:ncpus=64")
    _until_comment(empty_site, job_id)
    ours = empty_site.run(f"qstat -s {job_id}").text
    theirs = recorded("qstat-s").stdout.decode()
    assert ours == theirs.replace(f"{'106.pbs01':<15}", f"{job_id:<15}").replace("pbs01: ", "demo-pbs: ")


def test_a_wide_table_has_the_recorded_columns(empty_site: DemoHost) -> None:
    job_id = empty_site.submit("-N heldjob -h")
    ours = empty_site.run("qstat -w -u alice").text.split("\n")
    theirs = recorded("qstat-u-wide").stdout.decode().split("\n")
    assert ours[2:5] == theirs[2:5]
    row = next(line for line in theirs if line.startswith("104.pbs01"))
    assert ours[5] == row.replace(f"{'104.pbs01':<30}", f"{job_id:<30}")


def test_nodes_have_the_recorded_attributes(empty_site: DemoHost) -> None:
    ours = json.loads(empty_site.run("pbsnodes -a -F json").stdout)["nodes"]["pbs01"]
    theirs = json.loads(recorded("nodes-json").stdout)["nodes"]["pbs01"]
    assert list(ours) == list(theirs)
    assert list(ours["resources_available"]) == list(theirs["resources_available"])
    assert ours["state"] == theirs["state"]


def test_a_node_that_is_down_says_so_as_recorded(empty_site: DemoHost) -> None:
    empty_site.wait(job_id := empty_site.submit(), "R")
    empty_site.fault("node_down", "pbs01")
    try:
        ours = json.loads(empty_site.run("pbsnodes -a -F json").stdout)["nodes"]["pbs01"]
        deleted = empty_site.run(f"qdel {job_id}")
    finally:
        empty_site.fault("node_down", "")
    theirs = json.loads(recorded("momdown-nodes").stdout)["nodes"]["pbs01"]
    assert (ours["state"], ours["comment"], ours["jobs"]) == (theirs["state"], theirs["comment"], [job_id])
    assert list(ours) == list(theirs)
    assert_same(deleted, "momdown-qdel")


def test_strangers_are_refused_as_recorded(empty_site: DemoHost) -> None:
    job_id = empty_site.submit("-h")
    for command, case in (("qhold", "qhold-other-user"), ("qrls", "qrls-other-user")):
        assert_same(empty_site.run(f"{command} {job_id}", user="bob"), case)
    assert_same(empty_site.run(f"qhold -h s {job_id}"), "qhold-system")
    assert empty_site.run(f"qdel {job_id}", user="bob").exit_status == 159


def test_an_ended_job_is_refused_as_recorded(empty_site: DemoHost) -> None:
    job_id = empty_site.submit("-h")
    assert empty_site.run(f"qdel {job_id}").exit_status == 0
    assert_same(empty_site.run(f"qdel {job_id}"), "qdel-finished")
    assert_same(empty_site.run(f"qstat {job_id}"), "qstat-finished-text")


def test_the_last_failure_decides_the_exit_code(empty_site: DemoHost) -> None:
    ended, held = empty_site.submit("-h"), empty_site.submit("-h")
    empty_site.run(f"qdel {ended}")
    assert_same(empty_site.run(f"qdel 999999 {held} {ended}"), "qdel-several-mixed")


def test_version_is_the_imitated_release(site: DemoHost) -> None:
    assert site.run("qsub --version").text == "pbs_version = 23.06.06\n"


def test_commands_start_fast(site: DemoHost) -> None:
    """A real qstat takes 30 ms; on a busy machine ours may take a few times that."""
    result = site.run("TIMEFORMAT=%R; time for i in 1 2 3 4 5; do qstat -B >/dev/null; done")
    assert float(result.stderr.decode().strip()) < 3.0


def test_the_site_is_private(site: DemoHost) -> None:
    root = Path(site.settings.root)
    modes = [(root / name).stat().st_mode & 0o777 for name in ("spool", "home/alice", "pbs/run", "control")]
    assert modes == [0o700] * 4
