"""Other releases of Jupyter in a real job script, through the proxy: what a browser does with each of them.

``FOOTBRIDGE_JUPYTERS`` names installations (their bin folders, separated by colons); ``make jupyters`` makes some. Each
goes three ways: straight by the fast lane, through SSH by the portable one, and through SSH to a Unix socket.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.integration.jupyter_job import BASE_URL, OTHERS, ROOT_MAY, Job
from tests.integration.proxy_peers import Portal, Upstream, way
from tests.integration.test_proxy_jupyter import Browser, ask_for_no_kernel, carry_a_file, run
from tests.waiting import wait_for

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not OTHERS, reason="FOOTBRIDGE_JUPYTERS names no other installations; `make jupyters` does"),
]

WAYS = ("tcp-fast", "ssh-portable", "socket-fast")


@pytest.fixture(scope="module", params=OTHERS, ids=lambda path: path.parent.name)
def bin_folder(request: pytest.FixtureRequest) -> Path:
    """Where an installation has its commands."""
    assert isinstance(request.param, Path)
    return request.param


@pytest.fixture(scope="module")
def jobs(bin_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Job]]:
    """A job whose server listens on a port, and one on a socket."""
    found = {
        name: Job(tmp_path_factory.mktemp("j"), path=f"{bin_folder}:/usr/bin:/bin", listens_on_socket=name == "socket")
        for name in ("port", "socket")
    }
    for job in found.values():
        job.write_home(".jupyter/jupyter_config.py", ROOT_MAY)
        job.start()
    yield found
    for job in found.values():
        job.kill()


@pytest.fixture(params=WAYS)
def kind(request: pytest.FixtureRequest) -> str:
    """Transport and lane."""
    return str(request.param)


@pytest.fixture
def job(kind: str, jobs: dict[str, Job]) -> Job:
    return jobs["socket" if kind.startswith("socket") else "port"]


@pytest.fixture
async def portal(kind: str, job: Job, tmp_path: Path) -> AsyncIterator[Portal]:
    transport, lane = kind.split("-")
    found = job.connection()
    upstream = Upstream()
    upstream.host, upstream.port = (found.socket, 1) if found.socket else ("127.0.0.1", found.port)
    async with way("tcp" if transport == "tcp" else "ssh", tmp_path, lane=lane) as by:
        made = by.portal(upstream, flavor=found.flavor, secret=job.secret, base_url=BASE_URL)
        async with made.running() as portal:
            yield portal


@pytest.fixture
async def visitor(portal: Portal) -> AsyncIterator[Browser]:
    visitor = Browser(portal)
    await visitor.ask("GET", "/tree")  # a page's answer brings the cookie against forged requests
    yield visitor
    await visitor.session.close()


async def test_the_first_page_is_a_notebooks(visitor: Browser, job: Job) -> None:
    answer = await visitor.ask("GET", "/")
    text = await answer.text()
    assert answer.status == 200
    assert "upyter" in text
    assert answer.url.path.startswith(BASE_URL)


async def test_a_cell_runs_over_the_kernels_websocket(visitor: Browser) -> None:
    assert await run(visitor, "6*7") == "42"


async def test_a_cell_with_20_mb_of_output_arrives_whole(visitor: Browser) -> None:
    assert len(await run(visitor, "'x' * 20000000")) == 20_000_002


async def test_a_terminal_answers(visitor: Browser) -> None:
    answer = await visitor.ask("POST", "/api/terminals", json={})
    if answer.status == 404:
        pytest.skip("this installation has no terminals")
    name = (await answer.json())["name"]
    address = f"{visitor.address}/terminals/websocket/{name}"
    seen = ""
    async with visitor.session.ws_connect(address, headers=visitor.fields()) as socket:
        await socket.send_json(["stdin", "echo $((6*7))0\r"])
        while "420" not in seen:
            seen += str(await socket.receive_json(timeout=60))


async def test_a_file_goes_up_and_comes_down_whole_and_in_part(visitor: Browser, job: Job) -> None:
    await carry_a_file(visitor, job.home)


async def test_a_kernel_that_does_not_exist_is_404_to_the_handshake(visitor: Browser) -> None:
    await ask_for_no_kernel(visitor)


async def test_a_token_in_the_address_changes_nothing(visitor: Browser) -> None:
    assert (await visitor.ask("GET", "/api/contents?token=wrong")).status == 200


async def test_no_page_shows_the_secret(visitor: Browser, job: Job) -> None:
    if job.connection().flavor == "token":
        pytest.skip("these releases know no other way than a token, and print it into their pages")
    for path in ("/", "/tree", "/lab", "/api/status"):
        assert job.secret not in await (await visitor.ask("GET", path)).text()


def test_a_program_that_computes_in_the_background_counts_as_work(jobs: dict[str, Job]) -> None:
    job = jobs["port"]
    program = "import time\nends_at = time.time() + 90\nwhile time.time() < ends_at: pass"
    with job.kernel() as kernel:
        kernel.run(f"import subprocess, sys\nprogram = subprocess.Popen([sys.executable, '-c', {program!r}])")
        worked_at = last_activity(job)
        wait_for(lambda: last_activity(job) > worked_at, what=lambda: f"the program to count\n{job.log}")
        kernel.run("program.kill()")
    assert "Traceback" not in job.log


def last_activity(job: Job) -> str:
    """When somebody or something last worked, as the server says."""
    return str(json.loads(job.get("api/status").body)["last_activity"])
