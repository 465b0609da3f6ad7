"""Jobs of the demonstration cluster as real processes: their life, their output, faults, and that none is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import asyncssh
import pytest

from launcher.democluster import faults
from launcher.democluster.cluster import ClusterError
from launcher.democluster.pbs.job import Job
from launcher.democluster.settings import DemoSettings
from tests.democluster_recordings import recorded, text_fields
from tests.integration.demo_host import QUICK, DemoHost, Result
from tests.waiting import wait_for

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoHost]:
    """A cluster with its usual queues and nodes."""
    host = DemoHost(DemoSettings(root=tmp_path_factory.mktemp("jobs"), port=0, delays=QUICK))
    yield host
    host.stop()


@pytest.fixture
def host(running: DemoHost) -> Iterator[DemoHost]:
    """The same, mended and emptied after each test."""
    yield running

    async def mend() -> None:
        running.cluster.faults.clear()
        for job in list(running.cluster.scheduler.jobs.values()):
            if job.state.value != "F":
                running.cluster.scheduler.delete(job, "admin", force=True)

    running.call(mend)


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _pid(path: Path) -> int:
    return int(wait_for(lambda: path.exists() and path.read_text().strip(), what=f"{path} never came"))


def test_a_job_runs_at_home_in_a_login_shell_with_the_variables_of_pbs(host: DemoHost) -> None:
    script = "pwd; umask; echo $0; cat $PBS_NODEFILE; env; type module | head -1\n"
    job = host.wait(host.submit("-N look -l select=1:ncpus=2:mem=100mb -j oe", script), "F")
    text = (host.home() / f"look.o{job.sequence}").read_text()
    lines = text.split("\n")
    assert lines[:2] == [str(host.home()), "0077"]
    assert lines[2].endswith(f"{job.job_id}.SC")
    assert lines[3] == "demo-node01"
    names = set(dict(line.split("=", 1) for line in lines[4:] if "=" in line and not line.startswith(" ")))
    recorded_names = {
        line.partition("=")[0]
        for line in recorded("jobenv-01-default").stdout.decode().split("\n")
        if line.startswith(("PBS_", "NCPUS", "OMP_", "TMPDIR", "ENVIRONMENT", "HOME", "USER", "LOGNAME", "SHELL"))
    }
    assert recorded_names - names == {"PBS_MOMPORT"}
    assert "module is a function" in text
    assert (host.home() / f"look.o{job.sequence}").stat().st_mode & 0o777 == 0o600
    assert not Path(job_folder(host, job.job_id)).exists()


def job_folder(host: DemoHost, job_id: str) -> Path:
    """A job's TMPDIR."""
    return host.settings.root / "tmp" / f"pbs.{job_id}"


@pytest.mark.parametrize(
    ("script", "exit_status", "substate", "ending"),
    [("exit 0", 0, 92, "finished"), ("exit 1", 1, 93, "failed"), ("kill -SEGV $$", 139, 93, "failed")],
)
def test_a_job_ends_with_the_recorded_status_and_comment(
    host: DemoHost, script: str, exit_status: int, substate: int, ending: str
) -> None:
    job = host.wait(host.submit("", script + "\n"), "F")
    assert (job.exit_status, job.substate) == (exit_status, substate)
    assert job.comment.endswith(f" and {ending}")


def test_an_ended_job_has_the_recorded_attributes(host: DemoHost) -> None:
    job = host.wait(host.submit("-N fail1", "exit 1\n"), "F")
    ours = [name for name, _ in text_fields(host.run(f"qstat -x -f {job.job_id}").stdout)]
    theirs = [name for name, _ in text_fields(recorded("finished-walltime-text").stdout)]
    assert ours == theirs


def test_a_job_goes_through_the_states_of_pbs(host: DemoHost, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[int, list[tuple[str, int]]] = {}

    def noted(job: Job, name: str, value: object) -> None:
        object.__setattr__(job, name, value)
        if name == "substate":  # it is set together with the letter, and after it
            seen.setdefault(job.sequence, []).append((job.state.value, job.substate))

    monkeypatch.setattr(Job, "__setattr__", noted)
    job = host.wait(host.submit("", "sleep 0.3\n"), "F")
    assert [step for step in seen[job.sequence] if step[0] not in "QF"] == [("R", 41), ("R", 42), ("E", 51)]


def test_qdel_asks_first_and_the_job_may_clean_up(host: DemoHost) -> None:
    job_id = host.submit(
        "-N trap -j oe", "trap 'echo bye; exit 0' TERM\ntouch ~/trapped\nwhile :; do sleep 0.05; done\n"
    )
    wait_for((host.home() / "trapped").exists)
    assert host.run(f"qdel {job_id}").exit_status == 0
    assert host.run(f"qdel {job_id}").exit_status in (0, 168)  # harmless; 168 once it is exiting
    job = host.wait(job_id, "F")
    assert (job.exit_status, job.substate) == (271, 91)
    assert job.comment.endswith(" and terminated by alice@demo-login")
    assert "bye" in (host.home() / f"trap.o{job.sequence}").read_text()


def test_a_job_that_ignores_the_request_is_killed(host: DemoHost) -> None:
    pid_file = host.home() / "stubborn"
    job_id = host.submit("", f"trap '' TERM\necho $$ >{pid_file}\nwhile :; do sleep 0.05; done\n")
    pid = _pid(pid_file)
    host.run(f"qdel {job_id}")
    assert host.wait(job_id, "F").exit_status == 271
    assert not _is_alive(pid)


def test_processes_that_leave_the_session_die_with_the_job(host: DemoHost) -> None:
    pid_file = host.home() / "detached"
    script = f"setsid bash -c 'trap \"\" TERM HUP; echo $$ >{pid_file}; exec sleep 600' >/dev/null 2>&1 &\nsleep 0.4\n"
    job_id = host.submit("", script)
    pid = _pid(pid_file)
    host.wait(job_id, "F")
    assert not _is_alive(pid)


def test_walltime_ends_a_job_with_the_recorded_words(host: DemoHost) -> None:
    job = host.wait(host.submit("-N wtkill -l walltime=1", "sleep 60\n"), "F")
    said = (host.home() / f"wtkill.e{job.sequence}").read_text()
    expected = recorded("finished-walltime-stderr").stdout.decode()
    assert said.split("walltime")[0] == expected.split("walltime")[0]
    assert said.endswith("exceeded limit 1\n")
    assert job.exit_status == -29
    assert job.comment.endswith(" and exceeded resource walltime")


def test_output_goes_where_it_was_asked_for(host: DemoHost) -> None:
    (host.home() / "logs").mkdir(exist_ok=True)
    first = host.wait(host.submit("-o logs -j oe", "echo here\n"), "F")
    assert (host.home() / "logs" / f"{first.job_id}.OU").read_text() == "here\n"
    host.wait(host.submit(f"-o {host.home()}/out.txt -e err.txt", "echo out; echo err >&2\n"), "F")
    assert [(host.home() / name).read_text() for name in ("out.txt", "err.txt")] == ["out\n", "err\n"]


def test_output_sent_to_the_null_device_leaves_the_device_open_to_all(host: DemoHost) -> None:
    before = Path("/dev/null").stat().st_mode
    host.wait(host.submit("-o /dev/null -j oe", "echo nothing\n"), "F")
    assert Path("/dev/null").stat().st_mode == before


def test_direct_output_can_be_read_while_the_job_runs(host: DemoHost) -> None:
    job = host.job(host.submit("-N live -k oed -j oe", "echo early; sleep 30\n"))
    path = host.home() / f"live.o{job.sequence}"
    wait_for(lambda: path.exists() and path.read_text() == "early\n")
    assert job.state.value == "R"


def test_output_that_cannot_be_delivered_stays_behind(host: DemoHost) -> None:
    job = host.wait(host.submit("-o /nosuch/dir/file -j oe", "echo lost\n"), "F")
    assert not job.staged_out
    assert (host.settings.root / "spool" / "undelivered" / f"{job.job_id}.OU").read_text() == "lost\n"


def test_directives_in_the_script_count_and_the_command_line_wins(host: DemoHost) -> None:
    job = host.job(host.submit("-N cli", "#!/bin/bash\n#PBS -N script\n#PBS -l walltime=00:10:00\ntrue\n"))
    assert (job.request.name, job.request.walltime_seconds) == ("cli", 600)


def test_a_shell_that_cannot_start_gives_the_recorded_status(host: DemoHost) -> None:
    assert host.wait(host.submit("-S /no/such/shell", "true\n"), "F").exit_status == 254


def test_a_held_job_waits_for_its_release(host: DemoHost) -> None:
    job_id = host.submit("-h", "true\n")
    assert host.wait(job_id, "H").hold_types == "u"
    host.run(f"qrls {job_id}")
    host.wait(job_id, "F")


def test_a_user_may_shorten_and_only_an_operator_lengthen_a_running_job(host: DemoHost) -> None:
    job_id = host.submit("-l walltime=01:00:00")
    host.wait(job_id, "R")
    assert host.run(f"qalter -l walltime=00:30:00 {job_id}").exit_status == 0
    assert host.run(f"qalter -l walltime=02:00:00 {job_id}").exit_status == 159
    assert host.run(f"qalter -l walltime=02:00:00 {job_id}", user="admin").exit_status == 0
    assert host.job(job_id).request.walltime_seconds == 7200


def test_a_lengthened_job_outlives_its_first_limit(host: DemoHost) -> None:
    job_id = host.submit("-l walltime=2", "sleep 3.5; exit 5\n")
    host.wait(job_id, "R", substate=42)
    assert host.run(f"qalter -l walltime=100 {job_id}", user="admin").exit_status == 0
    assert host.wait(job_id, "F").exit_status == 5


def test_jobs_are_found_by_their_name(host: DemoHost) -> None:
    job_id = host.submit("-N needle-1", "true\n")
    assert host.run("qselect -x -N needle-1 -u alice").text == f"{job_id}\n"
    host.wait(job_id, "F")
    assert host.run("qselect -N needle-1 -u alice").text == ""
    assert host.run("qselect -x -N needle -u alice").text == ""


def test_gpus_are_counted(host: DemoHost) -> None:
    first = host.wait(host.submit("-q gpuq -l select=1:ncpus=1:ngpus=2"), "R", substate=42)
    assert first.execution_host == "demo-node02/0"
    second = host.submit("-q gpuq -l select=1:ncpus=1:ngpus=1")
    wait_for(lambda: host.job(second).comment)
    assert "ngpus (R: 1 A: 0 T: 2)" in host.job(second).comment
    host.run(f"qdel {first.job_id}")
    host.wait(second, "R")


def test_a_process_without_an_identity_is_nobody(host: DemoHost) -> None:
    done = host.run("env -u DEMO_PBS_IDENTITY qstat")
    assert done.exit_status == 159
    assert not done.stdout


# Faults


def test_a_lost_answer_leaves_the_job_and_no_word(host: DemoHost) -> None:
    host.fault("qsub_answer", "lost")
    done = host.run("qsub -N lost-1", stdin=b"sleep 60\n")
    assert done.exit_status != 0
    assert (done.stdout, done.stderr.replace(b"Killed", b"").strip()) == (b"", b"")
    host.fault("qsub_answer", "ok")
    assert host.run("qselect -N lost-1").text.endswith(".demo-pbs\n")


def test_a_lost_connection_leaves_the_job(host: DemoHost) -> None:
    host.fault("qsub_answer", "lost_connection")
    with pytest.raises((asyncssh.Error, OSError)):
        _check_ended(host.run("qsub -N lost-2", stdin=b"sleep 60\n"))
    host.fault("qsub_answer", "ok")
    assert host.run("qselect -N lost-2").text.endswith(".demo-pbs\n")


def _check_ended(result: Result) -> None:
    if result.exit_status is None:
        raise asyncssh.ConnectionLost("the session ended without a status")


def test_a_hung_server_answers_when_it_is_mended(host: DemoHost) -> None:
    host.fault("scheduler", "hung")
    started = time.monotonic()
    process = host.run("timeout 0.5 qstat -B")
    assert process.exit_status == 124
    assert time.monotonic() - started >= 0.5
    host.fault("scheduler", "ok")
    assert host.run("qstat -B").exit_status == 0


def test_a_slow_server_takes_its_time(host: DemoHost) -> None:
    host.fault("scheduler", "slow")
    started = time.monotonic()
    assert host.run("qstat -B").exit_status == 0
    assert time.monotonic() - started >= QUICK.slow_seconds


def test_a_garbled_answer_cannot_be_read(host: DemoHost) -> None:
    job_id = host.submit("-h")
    host.fault("scheduler", "garbled")
    done = host.run(f"qstat -f -F json {job_id}")
    assert done.exit_status == 0
    with pytest.raises(ValueError, match=r"."):
        json.loads(done.stdout)


def test_a_killed_job_shows_the_signal(host: DemoHost) -> None:
    job_id = host.submit()
    host.wait(job_id, "R", substate=42)
    host.fault("kill_job", job_id)
    assert host.wait(job_id, "F").exit_status == 265


def test_a_job_on_a_node_that_is_down_stays_running(host: DemoHost) -> None:
    job_id = host.submit()
    host.wait(job_id, "R", substate=42)
    host.fault("node_down", "demo-node01")
    nodes = json.loads(host.run("pbsnodes -a -F json").stdout)["nodes"]
    assert [nodes[name]["state"] for name in ("demo-node01", "demo-node02")] == ["down", "free"]
    assert host.run(f"qdel {job_id}").exit_status == 222
    assert host.job(job_id).state.value == "R"
    assert host.wait(host.submit(), "R").nodes == ("demo-node02",)


def test_a_full_home_gets_no_job_output(host: DemoHost) -> None:
    host.fault("home_full", "alice")
    job = host.wait(host.submit("-N full -j oe", "echo x\n"), "F")
    assert not (host.home() / f"full.o{job.sequence}").exists()


def test_faults_are_switched_from_outside(host: DemoHost, capsys: pytest.CaptureFixture[str]) -> None:
    root = str(host.settings.root)
    assert faults.main(["--root", root, "set", "home_full=alice,bob", "node_down=demo-node02"]) == 0
    assert "home_full=alice,bob\nnode_down=demo-node02\n" in capsys.readouterr().out
    assert faults.main(["--root", root, "set", "no_such=1"]) == 1
    assert faults.main(["--root", root, "set", "scheduler=sleepy"]) == 1
    assert faults.main(["--root", root, "clear"]) == 0
    assert host.cluster.faults.full_homes == frozenset()


# Restarts and ends


def test_ids_and_history_survive_a_restart(tmp_path: Path) -> None:
    settings = DemoSettings(root=tmp_path, port=0, delays=QUICK)
    host = DemoHost(settings)
    ended = host.wait(host.submit("-N first", "exit 4\n"), "F").job_id
    running = host.wait(host.submit("-N second"), "R").job_id
    key = host.cluster.host_public_key
    host.stop()
    host = DemoHost(settings)
    try:
        assert host.cluster.host_public_key == key
        assert host.job(ended).exit_status == 4
        assert host.job(running).state.value == "F"
        assert host.submit("-h") == "2.demo-pbs"
    finally:
        host.stop()


def test_two_clusters_cannot_share_a_folder(host: DemoHost) -> None:
    with pytest.raises(ClusterError, match="another demonstration cluster"):
        DemoHost(host.settings)


def _start(root: Path) -> tuple[subprocess.Popen[bytes], int]:
    process = subprocess.Popen(
        [sys.executable, "-m", "launcher.democluster", "--root", str(root), "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=Path(__file__).parents[2], start_new_session=True,
    )  # fmt: skip
    assert process.stdout
    line = process.stdout.readline().decode()
    assert line.startswith("ready port=")
    return process, int(line.split()[1].partition("=")[2])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
async def test_no_process_is_left_behind(tmp_path: Path, number: signal.Signals) -> None:
    process, port = _start(tmp_path)
    home = tmp_path / "home" / "alice"
    job = f"""setsid bash -c 'trap "" TERM HUP; echo $$ >{home}/a; exec sleep 600' &
env -i setsid -f bash -c 'echo $$ >{home}/b; exec sleep 600'
echo $PPID >{home}/c
sleep 600
"""
    login = f"setsid -f bash -c 'echo $$ >{home}/d; exec sleep 600' >/dev/null 2>&1; echo $$ >{home}/e; sleep 600"
    async with asyncssh.connect(
        "127.0.0.1", port, username="alice", password="alice-demo", known_hosts=None, config=None, agent_path=None,
        client_keys=None,
    ) as connection:  # fmt: skip
        await connection.run(f"{tmp_path}/pbs/bin/qsub", input=job, check=True)
        await connection.create_process(login)
        pids = [_pid(home / name) for name in "abcde"]
        assert all(_is_alive(pid) for pid in pids)
        os.kill(process.pid, number)
        process.wait(60)
        connection.abort()
    wait_for(lambda: not any(_is_alive(pid) for pid in pids), what="a process was left behind")
    if process.stdout:
        process.stdout.close()
    wait_for(lambda: not _named(tmp_path), what="a process of the cluster was left behind")


def _named(root: Path) -> list[Path]:
    """Processes whose command line names the folder."""
    return [path for path in Path("/proc").glob("[0-9]*/cmdline") if str(root).encode() in _content(path)]


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_a_taken_port_is_named(tmp_path: Path, host: DemoHost) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "launcher.democluster", "--root", str(tmp_path), "--port", str(host.cluster.port)],
        capture_output=True, text=True, cwd=Path(__file__).parents[2], timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{host.cluster.port}" in done.stderr
