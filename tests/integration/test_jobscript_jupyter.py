"""The job script with a real Jupyter: it starts, is reached only with the secret, and ends without a trace.

``FOOTBRIDGE_JUPYTERS`` may name more Jupyter installations (their bin folders, separated by colons), for example
a classic notebook 5 or 6 and a jupyter_server 1: then the same is tried with each of them.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus

from launcher.connection import CONNECTION_NAME
from launcher.joblog import ExitCode, Failure, failure, steps
from tests.integration.jupyter_job import (
    APPS,
    BASE_URL,
    JUPYTER_BIN,
    OLD_HABITS,
    OTHERS,
    ROOT_MAY,
    Job,
    environment_of,
    write_command,
)
from tests.waiting import wait_for

pytestmark = pytest.mark.integration


@pytest.fixture
def new_job(tmp_path: Path) -> Iterator[Callable[..., Job]]:
    """Makes jobs, and ends what is left of them."""
    jobs: list[Job] = []

    def make(**values: object) -> Job:
        root = tmp_path / f"job{len(jobs)}"
        root.mkdir()
        jobs.append(Job(root, **values))  # type: ignore[arg-type]  # the fields of Job
        return jobs[-1]

    yield make
    for job in jobs:
        job.kill()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Job]:
    """A running session of a user with many old habits in the home folder. Tests leave it as it is."""
    job = Job(tmp_path_factory.mktemp("running"), environment={"JUPYTER_TOKEN": "mine", "PYTHONPATH": "/opt/mine"})
    job.write_home(".jupyter/jupyter_config.py", ROOT_MAY + OLD_HABITS)
    job.write_home(".jupyter/jupyter_lab_config.py", OLD_HABITS)
    job.write_home(".jupyter/jupyter_notebook_config.py", OLD_HABITS)
    job.write_home(".jupyter/jupyter_server_config.py", "raise SystemExit(3)")
    job.start()
    try:
        job.connection()
        yield job
    finally:
        job.kill()


# ---- a running session ----------------------------------------------------------------------------------------------


def test_the_server_answers_a_request_with_the_secret(running: Job) -> None:
    assert running.get("api/status").status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-Footbridge-Secret": ""},
        {"X-Footbridge-Secret": "wrong"},
        {"X-Footbridge-Secret": "ü"},
        {"Authorization": "token mine"},
        {"Authorization": "token "},
    ],
)
def test_without_the_secret_nobody_gets_in(running: Job, headers: dict[str, str]) -> None:
    assert running.get("api/contents", headers=headers).status == 403


def test_the_secret_is_no_token(running: Job) -> None:
    assert running.get(f"api/contents?token={running.secret}", headers={}).status == 403


def test_no_cookie_replaces_the_secret(running: Job) -> None:
    cookies = running.get("lab").headers.get("Set-Cookie", "")
    pair = cookies.partition(";")[0]
    assert running.get("api/contents", headers={"Cookie": pair}).status == 403


def test_the_session_leads_to_jupyterlab(running: Job) -> None:
    path, page = running.follow("")
    assert (path, page.status) == ("lab", 200)
    assert b"JupyterLab" in page.body


def test_the_secret_is_not_in_the_page(running: Job) -> None:
    _, page = running.follow("")
    assert running.secret.encode() not in page.body


def test_the_page_offers_no_button_that_ends_the_server(running: Job) -> None:
    _, page = running.follow("")
    assert re.search(rb'"quitButton":\s*false', page.body)


def test_the_owner_has_the_name_of_the_account(running: Job) -> None:
    assert json.loads(running.get("api/me").body)["identity"]["username"] == "alice"


def test_jupyters_check_against_cross_site_requests_stays_on(running: Job) -> None:
    answer = running.get("api/kernels", method="POST", body="{}")
    assert answer.status == 403
    assert b"_xsrf" in answer.body


def test_a_websocket_from_a_foreign_page_is_refused(running: Job) -> None:
    with pytest.raises(InvalidStatus) as caught, running.kernel(origin="https://evil.example"):
        pass
    assert caught.value.response.status_code == 403


def test_the_connection_file_is_private_and_names_the_server(running: Job) -> None:
    assert (running.folder / CONNECTION_NAME).stat().st_mode & 0o777 == 0o600
    found = running.connection()
    assert (found.base_url, found.flavor) == (BASE_URL, "identity")
    assert found.server.startswith("jupyter_server 2.")


def test_jupyters_own_file_and_log_say_the_same_port(running: Job) -> None:
    port = running.connection().port
    files = list(running.runtime_folder().glob("jpserver-*.json"))
    assert [json.loads(file.read_bytes())["port"] for file in files] == [port]
    assert f"http://127.0.0.1:{port}{BASE_URL}" in running.log


def test_the_server_listens_where_it_was_told(running: Job) -> None:
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", running.connection().port), timeout=60)


def test_the_log_tells_the_steps(running: Job) -> None:
    assert [step.name for step in steps(running.log)] == ["environment", "server", "listening"]


def test_a_cell_runs(running: Job) -> None:
    with running.kernel() as kernel:
        assert kernel.run("print(6 * 7)") == "42"


def test_a_cell_is_answered_at_once(running: Job) -> None:
    with running.kernel() as kernel:

        def took() -> float:
            begun = time.monotonic()
            kernel.run("pass")
            return time.monotonic() - begun

        # Nagle's algorithm makes it 44 ms at least; a machine with other work makes some as slow.
        wait_for(lambda: took() < 0.03, what="a cell that is answered at once")


def test_a_kernel_can_be_interrupted(running: Job) -> None:
    with running.kernel() as kernel:
        kernel.run("import time")
        kernel.send("execute_request", {"code": "print('on', flush=True)\ntime.sleep(60)"})
        while json.loads(kernel.socket.recv(timeout=60))["msg_type"] != "stream":
            pass
        found = {**running_headers(running), "Cookie": "_xsrf=x", "X-XSRFToken": "x"}
        assert running.get(f"api/kernels/{kernel.id}/interrupt", method="POST", headers=found).status == 204
        assert "KeyboardInterrupt" in kernel.result()


def running_headers(job: Job) -> dict[str, str]:
    """The header that carries the secret."""
    return {"X-Footbridge-Secret": job.secret}


def test_a_kernel_talks_through_sockets_that_only_the_owner_reaches(running: Job) -> None:
    with running.kernel() as kernel:
        folder = running.runtime_folder()
        assert json.loads((folder / f"kernel-{kernel.id}.json").read_bytes())["transport"] == "ipc"
        assert folder.stat().st_mode & 0o777 == 0o700


def test_a_kernel_can_be_restarted(running: Job) -> None:
    with running.kernel() as kernel:
        found = {**running_headers(running), "Cookie": "_xsrf=x", "X-XSRFToken": "x"}
        assert running.get(f"api/kernels/{kernel.id}/restart", method="POST", headers=found).status == 200
        with running.reconnected(kernel) as restarted:
            assert restarted.run("print(1 + 1)") == "2"


def test_a_kernel_inherits_the_users_python_path_and_working_interrupts(running: Job) -> None:
    with running.kernel() as kernel:
        assert kernel.run("import os; print(os.environ['PYTHONPATH'])") == "/opt/mine"
        ignored = kernel.run("import subprocess as s; print(s.getoutput('grep SigIgn /proc/self/status'))")
        interrupt = 1 << (signal.SIGINT - 1)
        assert not int(ignored.split()[1], 16) & interrupt


def test_the_secret_is_in_no_command_line_and_no_environment(running: Job) -> None:
    with running.kernel():
        processes = running.processes()
        assert len(processes) >= 3  # the script, the server, a kernel
        assert not any(running.secret in line for line in processes.values())
        assert not any(running.secret in " ".join(environment_of(pid).values()) for pid in processes)


def test_the_secret_is_not_in_the_log(running: Job) -> None:
    assert running.secret not in running.log


def test_files_are_served_from_the_home_folder(running: Job) -> None:
    running.write_home("notes.txt", "hello")
    names = [entry["name"] for entry in json.loads(running.get("api/contents").body)["content"]]
    assert "notes.txt" in names


# ---- the end --------------------------------------------------------------------------------------------------------


def test_term_ends_everything_and_leaves_nothing(new_job: Callable[..., Job]) -> None:
    job = new_job()
    job.start()
    job.connection()
    with job.kernel():
        runtime = job.runtime_folder()
        assert job.process is not None
        job.process.send_signal(signal.SIGTERM)
        assert job.wait() == 0
    assert not job.processes()
    assert not runtime.exists()
    assert not (job.folder / CONNECTION_NAME).exists()
    assert steps(job.log)[-1].name == "ended"


def test_term_for_the_whole_group_ends_it_too(new_job: Callable[..., Job]) -> None:
    job = new_job()
    job.start()
    job.connection()
    assert job.process is not None
    os.killpg(job.process.pid, signal.SIGTERM)
    assert job.wait() == 0
    assert not job.processes()


def test_a_server_that_ends_by_itself_takes_its_secret_along(new_job: Callable[..., Job]) -> None:
    job = new_job()
    job.start()
    unsafe = {**running_headers(job), "Cookie": "_xsrf=x", "X-XSRFToken": "x"}
    assert job.get("api/shutdown", method="POST", headers=unsafe).status == 200
    assert job.wait() == 0
    assert not (job.folder / "secret").exists()


def test_a_job_that_was_killed_can_be_run_again(new_job: Callable[..., Job]) -> None:
    job = new_job()
    job.start()
    first = job.connection()
    job.kill()
    job.start()
    wait_for(lambda: job.connection().port != first.port, what="another port")
    assert job.get("api/status").status == 200


def test_the_exit_status_is_the_servers(new_job: Callable[..., Job], tmp_path: Path) -> None:
    write_command(tmp_path / "bin/jupyter-lab", "exit 3\n")
    assert new_job(path=f"{tmp_path}/bin:/usr/bin:/bin").run() == 3


SLOW_GOODBYE = """
trap 'echo asked >>"$HOME/asked"' TERM
echo up >"$HOME/up"
until [ -e "$HOME/may_end" ]; do sleep 0.02; done
exit 5
"""


def test_a_second_term_does_not_cut_the_servers_goodbye_short(new_job: Callable[..., Job], tmp_path: Path) -> None:
    write_command(tmp_path / "bin/jupyter-lab", SLOW_GOODBYE)
    job = new_job(path=f"{tmp_path}/bin:/usr/bin:/bin")
    job.start()
    asked = job.home / "asked"
    wait_for((job.home / "up").exists, what="the server")
    assert job.process is not None
    job.process.send_signal(signal.SIGTERM)
    wait_for(asked.exists, what="the first signal")
    job.process.send_signal(signal.SIGTERM)
    wait_for(lambda: asked.read_text().count("asked") == 2, what="the second signal")
    assert job.process.poll() is None
    job.write_home("may_end", "")
    assert job.wait() == 5


# ---- what can be missing --------------------------------------------------------------------------------------------


def expect(job: Job, code: ExitCode, subject: str, sentence: str) -> None:
    """The script gives up with this status, this mark and this sentence."""
    assert (job.run(), failure(job.log)) == (code.value, Failure(code.word, subject))
    assert sentence in job.log


def choices(job: Job, **values: object) -> None:
    """Change what the job's user asked for."""
    job.choices = dataclasses.replace(job.choices, **values)  # type: ignore[arg-type]  # the fields of LaunchChoices, by name


def test_no_module_command_is_told(new_job: Callable[..., Job]) -> None:
    job = new_job(environment={"LMOD_PKG": "/nowhere", "MODULESHOME": "/nowhere"})
    choices(job, environment_kind="module", environment_value="anaconda/5.3.0")
    expect(job, ExitCode.MODULE_MISSING, "anaconda/5.3.0", "There is no module command")


MODULE_COMMAND = """
module() {
  : "$PROMPT_THAT_IS_NOT_SET"
  case $2 in
    anaconda/5.3.0) export PATH=$ANACONDA:$PATH ;;
    old/*) echo "ModuleCmd_Load.c(213):ERROR:105: Unable to locate a modulefile for '$2'" >&2 ;;
    *) echo "Lmod has detected the following error: The following module(s) are unknown: \\"$2\\"" >&2; return 1 ;;
  esac
}
"""


@pytest.mark.parametrize("module", ["gone/1.0", "old/1.0"])
def test_a_module_that_does_not_exist_is_told(new_job: Callable[..., Job], tmp_path: Path, module: str) -> None:
    (tmp_path / "env.sh").write_text(MODULE_COMMAND, encoding="utf-8")
    job = new_job(environment={"BASH_ENV": str(tmp_path / "env.sh")})
    choices(job, environment_kind="module", environment_value=module)
    expect(job, ExitCode.MODULE_MISSING, module, f"The module {module} could not be loaded.")


def test_a_module_brings_its_jupyter(new_job: Callable[..., Job], tmp_path: Path) -> None:
    (tmp_path / "env.sh").write_text(MODULE_COMMAND, encoding="utf-8")
    write_command(tmp_path / "anaconda/jupyter-notebook", 'echo "started $*"\n')
    job = new_job(
        path="/usr/bin:/bin", environment={"BASH_ENV": str(tmp_path / "env.sh"), "ANACONDA": f"{tmp_path}/anaconda"}
    )
    choices(job, environment_kind="module", environment_value="anaconda/5.3.0")
    assert job.run() == 0
    assert f"started --config={job.folder}/server_config.py" in job.log


def test_an_environment_that_does_not_exist_is_told(new_job: Callable[..., Job]) -> None:
    job = new_job()
    choices(job, environment_kind="path", environment_value="~/envs/gone")
    expect(job, ExitCode.ENVIRONMENT_MISSING, "~/envs/gone", "no conda or virtual environment")


def test_an_environment_without_jupyter_is_told_although_another_lies_on_the_path(new_job: Callable[..., Job]) -> None:
    job = new_job()
    write_command(job.home / "envs/bare/bin/python", "exit 1\n")
    choices(job, environment_kind="path", environment_value="~/envs/bare")
    expect(job, ExitCode.JUPYTER_MISSING, str(job.home / "envs/bare"), "There is no Jupyter")


def test_a_conda_environment_is_activated(new_job: Callable[..., Job]) -> None:
    job = new_job(path="/usr/bin:/bin")
    folder = job.home / "envs/my conda"
    (folder / "conda-meta").mkdir(parents=True)
    write_command(folder / "bin/python", "exit 1\n")
    write_command(folder / "bin/jupyter-lab", 'echo "prefix $CONDA_PREFIX hook $HOOK first ${PATH%%:*}"\n')
    job.write_home("envs/my conda/etc/conda/activate.d/hook.sh", 'export HOOK="ran$UNSET_BY_NATURE"\n')
    choices(job, environment_kind="path", environment_value=str(folder))
    assert job.run() == 0
    assert f"prefix {folder} hook ran first {folder}/bin" in job.log


def test_a_folder_that_does_not_exist_is_told(new_job: Callable[..., Job]) -> None:
    job = new_job()
    choices(job, folder="no such folder")
    expect(job, ExitCode.FOLDER_MISSING, "no such folder", f"{job.home}/no such folder cannot be entered")


@pytest.mark.parametrize("folder", ["my data", "-e"])
def test_a_folder_below_home_is_the_working_folder(new_job: Callable[..., Job], tmp_path: Path, folder: str) -> None:
    write_command(tmp_path / "bin/jupyter-lab", "pwd\n")
    job = new_job(path=f"{tmp_path}/bin:/usr/bin:/bin")
    (job.home / folder).mkdir()
    choices(job, folder=folder)
    assert job.run() == 0
    assert f"\n{job.home}/{folder}\n" in job.log


def test_no_jupyter_is_told(new_job: Callable[..., Job]) -> None:
    expect(new_job(path="/usr/bin:/bin"), ExitCode.JUPYTER_MISSING, "", "jupyter-lab jupyter-notebook")


def test_a_missing_file_of_the_portal_is_told(new_job: Callable[..., Job]) -> None:
    job = new_job(path="/usr/bin:/bin", environment={"BASH_ENV": "/dev/null"})
    job.app = job.app.model_copy(
        update={"script": job.app.script.replace("begin\n", 'rm "$session_folder/secret"\nbegin\n')}
    )
    expect(job, ExitCode.FILES_MISSING, "secret", "The file secret is missing")


def test_a_server_never_runs_without_the_portals_configuration(new_job: Callable[..., Job]) -> None:
    job = new_job()
    spoil = 'echo "{" > "$session_folder/settings.json"\nbegin\n'
    job.app = job.app.model_copy(update={"script": job.app.script.replace("begin\n", spoil)})
    expect(job, ExitCode.CONFIG_FAILED, "", "could not be applied")


def test_the_schedulers_name_of_the_host_is_used(new_job: Callable[..., Job], tmp_path: Path) -> None:
    write_command(tmp_path / "bin/jupyter-lab", 'echo "host $FOOTBRIDGE_HOST"\n')
    (tmp_path / "nodes").write_text("node07\nnode08\n", encoding="utf-8")
    job = new_job(path=f"{tmp_path}/bin:/usr/bin:/bin", environment={"PBS_NODEFILE": str(tmp_path / "nodes")})
    assert job.run() == 0
    assert "host node07\n" in job.log


# ---- containers -----------------------------------------------------------------------------------------------------

STAND_IN = """
[ "$1" = exec ] || exit 99
shift
while [ "${1#--}" != "$1" ]; do
  case $1 in
    --nv) echo "with GPU" ;;
    --bind) echo "bound $2"; shift ;;
    --pwd) cd "$2" || exit 98; shift ;;
    *) exit 97 ;;
  esac
  shift
done
echo "image $1"
shift
exec "$@"
"""
"""Behaves as "apptainer exec" does, without the isolation."""


@pytest.fixture
def container_job(new_job: Callable[..., Job], tmp_path: Path) -> Job:
    """A job of the container app, with a stand-in for apptainer and an image."""
    (tmp_path / "my image.sif").write_bytes(b"SIF")
    job = new_job(app=APPS["jupyter-container"], path=f"{tmp_path}/bin:{JUPYTER_BIN}:/usr/bin:/bin")
    choices(job, image=str(tmp_path / "my image.sif"))
    return job


@pytest.mark.parametrize("runtime", ["apptainer", "singularity"])
def test_a_container_serves_jupyter(container_job: Job, tmp_path: Path, runtime: str) -> None:
    write_command(tmp_path / "bin" / runtime, STAND_IN)
    container_job.start()
    assert container_job.get("api/status").status == 200
    assert f"image {tmp_path}/my image.sif" in container_job.log
    assert f"bound {container_job.folder}" in container_job.log
    assert "with GPU" not in container_job.log
    assert container_job.process is not None
    container_job.process.send_signal(signal.SIGTERM)
    assert container_job.wait() == 0
    assert not container_job.processes()


def test_a_container_gets_the_gpu(container_job: Job, tmp_path: Path) -> None:
    write_command(tmp_path / "bin/apptainer", STAND_IN)
    write_command(tmp_path / "bin/jupyter-lab", "exit 0\n")
    choices(container_job, gpus=1)
    assert container_job.run() == 0
    assert "with GPU" in container_job.log


def test_an_image_without_jupyter_is_told(container_job: Job, tmp_path: Path) -> None:
    write_command(tmp_path / "bin/apptainer", STAND_IN)
    container_job.path = f"{tmp_path}/bin:/usr/bin:/bin"
    expect(container_job, ExitCode.JUPYTER_MISSING, "", "There is no Jupyter in this image")


def test_an_image_that_does_not_exist_is_told(container_job: Job, tmp_path: Path) -> None:
    write_command(tmp_path / "bin/apptainer", STAND_IN)
    choices(container_job, image="/no/such image.sif")
    expect(container_job, ExitCode.IMAGE_MISSING, "/no/such image.sif", "is not there")


def test_a_host_without_a_container_runtime_is_told(container_job: Job) -> None:
    container_job.path = "/usr/bin:/bin"
    container_job.environment = {"PBS_NODEFILE": "/dev/null"}
    expect(container_job, ExitCode.RUNTIME_MISSING, container_job.host, "neither apptainer nor singularity")


# ---- other releases of Jupyter --------------------------------------------------------------------------------------


@pytest.mark.skipif(not OTHERS, reason="FOOTBRIDGE_JUPYTERS names no other installations")
@pytest.mark.parametrize("bin_folder", OTHERS, ids=lambda path: path.parent.name)
def test_another_release_of_jupyter_serves_a_session(new_job: Callable[..., Job], bin_folder: Path) -> None:
    job = new_job(path=f"{bin_folder}:/usr/bin:/bin")
    job.write_home(".jupyter/jupyter_config.py", ROOT_MAY + OLD_HABITS)
    job.write_home(".jupyter/jupyter_notebook_config.py", OLD_HABITS)
    job.start()
    assert job.get("api/status").status == 200
    assert job.get("api/contents", headers={}).status == 403
    assert job.get("api/contents?token=mine", headers={}).status == 403
    with job.kernel() as kernel:
        assert kernel.run("print(6 * 7)") == "42"
    assert job.secret not in job.log
    assert job.process is not None
    job.process.send_signal(signal.SIGTERM)
    assert job.wait() == 0
    assert not job.processes()
