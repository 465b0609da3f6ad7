"""A real jupyter_server through the proxy: a kernel, an upload, a download, the server's own checks."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from shutil import copyfile
from typing import Any

import aiohttp
import pytest

from tests.integration.proxy_peers import COOKIE, Portal, Upstream, Way, way
from tests.waiting import wait_for

pytestmark = pytest.mark.integration

SECRET = "a-secret-of-forty-three-characters-0123456789"
CONFIG = Path(__file__).parents[2] / "launcher" / "jobfiles" / "jupyter_server.py"


class Jupyter(Upstream):
    """A server in a folder of the test. With ``identity`` it runs the configuration that jobs use."""

    def __init__(self, folder: Path, flavor: str) -> None:
        super().__init__()
        self.folder = folder
        self.flavor = flavor

    def launch(self) -> None:
        """Start it and wait until it listens."""
        environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(self.folder),
            "USER": "alice",
            "JUPYTER_RUNTIME_DIR": str(self.folder / "r"),
            "IPYTHONDIR": str(self.folder / "i"),
        }
        command = [sys.executable, "-m", "jupyter_server", "--no-browser", "--allow-root"]
        if self.flavor == "identity":
            copyfile(CONFIG, self.folder / "server_config.py")
            (self.folder / "secret").write_text(SECRET)
            settings = {
                "session": "session1",
                "listen_address": "127.0.0.1",
                "base_url": "/",
                "idle_stop_seconds": 0,
                "secret_header": "X-Footbridge-Secret",
                "secret_name": "secret",
                "connection_name": "connection.json",
            }
            (self.folder / "settings.json").write_text(json.dumps(settings))
            command.append(f"--config={self.folder / 'server_config.py'}")
        else:
            command += ["--port=0", f"--IdentityProvider.token={SECRET}", "--ServerApp.allow_remote_access=True"]
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        try:
            wait_for(self._listens, seconds=60, what="Jupyter to listen")
        except BaseException:
            self.end()
            sys.stdout.write((self.folder / "log").read_text())
            raise

    def _listens(self) -> bool:
        if self.flavor == "identity":
            files = list(self.folder.glob("connection.json"))
        else:
            files = [path for path in (self.folder / "r").glob("jpserver-*.json") if "port" in path.read_text()]
        if files:
            self.port = json.loads(files[0].read_text())["port"]
        return bool(self.port)

    def end(self) -> None:
        """End it with its kernels."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="module", params=["identity", "token"])
def jupyter(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jupyter]:
    server = Jupyter(tmp_path_factory.mktemp("j"), request.param)
    server.launch()
    yield server
    server.end()


@pytest.fixture(params=["tcp", "ssh"])
async def by(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Way]:
    (tmp_path / "ssh").mkdir()
    async with way(request.param, tmp_path / "ssh") as found:
        yield found


@pytest.fixture
async def portal(jupyter: Jupyter, by: Way) -> AsyncIterator[Portal]:
    async with by.portal(jupyter, flavor=jupyter.flavor, secret=SECRET).running() as portal:
        yield portal


class Browser:
    """What JupyterLab's pages do, with their cookies and their XSRF header."""

    def __init__(self, portal: Portal) -> None:
        self.portal = portal
        self.xsrf = ""
        # Names below localhost resolve in browsers, not on every machine: so the address, with the right Host.
        self.address = f"http://127.0.0.1:{portal.port}{portal.base_url[:-1]}"
        self.session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())

    def fields(self) -> dict[str, str]:
        return {
            "Host": self.portal.host.decode(),
            "Origin": self.portal.origin.decode(),
            "Cookie": f"footbridge={COOKIE}; _xsrf={self.xsrf}",
            "X-XSRFToken": self.xsrf,
        }

    async def ask(self, method: str, path: str, **options: Any) -> aiohttp.ClientResponse:
        headers = {**self.fields(), **options.pop("headers", {})}
        answer = await self.session.request(method, self.address + path, headers=headers, **options)
        await answer.read()
        for cookie in answer.headers.getall("Set-Cookie", []):
            if cookie.startswith("_xsrf="):
                self.xsrf = cookie.split(";")[0].removeprefix("_xsrf=")
        return answer


@pytest.fixture
async def visitor(portal: Portal) -> AsyncIterator[Browser]:
    visitor = Browser(portal)
    await visitor.ask("GET", "/api/me")
    await visitor.ask("GET", "/lab/api/none")  # a page's answer brings the XSRF cookie
    yield visitor
    await visitor.session.close()


async def run(visitor: Browser, code: str) -> str:
    """Start a kernel, run a cell over its WebSocket, and return what it gave."""
    answer = await visitor.ask("POST", "/api/kernels", json={})
    assert answer.status == 201, await answer.text()
    kernel = (await answer.json())["id"]
    address = f"{visitor.address}/api/kernels/{kernel}/channels?session_id={uuid.uuid4().hex}"
    message = {
        "header": {"msg_id": uuid.uuid4().hex, "username": "", "session": "", "msg_type": "execute_request",
                   "version": "5.3", "date": ""},
        "parent_header": {}, "metadata": {}, "channel": "shell", "buffers": [],
        "content": {"code": code, "silent": False, "store_history": True, "user_expressions": {},
                    "allow_stdin": False, "stop_on_error": True},
    }  # fmt: skip
    async with asyncio.timeout(60):
        async with visitor.session.ws_connect(address, headers=visitor.fields(), max_msg_size=0) as socket:
            await socket.send_json(message)
            text = ""
            async for received in socket:
                reply = received.json()
                if reply["parent_header"].get("msg_id") != message["header"]["msg_id"]:  # type: ignore[index]  # the kernel sends a JSON object
                    continue
                if reply["msg_type"] == "stream":
                    text += reply["content"]["text"]
                if reply["msg_type"] == "execute_result":
                    text += reply["content"]["data"]["text/plain"]
                if reply["msg_type"] == "status" and reply["content"]["execution_state"] == "idle":
                    return text
    raise AssertionError("the socket closed before the cell had run")


async def test_a_cell_runs_over_the_kernels_websocket(visitor: Browser) -> None:
    assert await run(visitor, "6*7") == "42"


async def test_a_cell_with_20_mb_of_output_arrives_whole(visitor: Browser) -> None:
    # A result: of what is printed, Jupyter itself lets through a million bytes a second.
    assert len(await run(visitor, "'x' * 20_000_000")) == 20_000_002


async def test_a_file_goes_up_and_comes_down_whole_and_in_part(visitor: Browser, jupyter: Jupyter) -> None:
    await carry_a_file(visitor, jupyter.folder)


async def carry_a_file(visitor: Browser, folder: Path) -> None:
    """Up, and down again whole and in part. ``folder``: where the server keeps it."""
    text = "é" * 500_000
    model = json.dumps({"type": "file", "format": "text", "content": text}).encode()
    answer = await visitor.ask("PUT", "/api/contents/a%20b%23.txt", data=io.BytesIO(model))
    assert answer.status in (200, 201), await answer.text()  # the file may be there from an earlier test
    assert (folder / "a b#.txt").read_text() == text
    whole = await visitor.ask("GET", "/files/a%20b%23.txt")
    assert (await whole.read()).decode() == text
    part = await visitor.ask("GET", "/files/a%20b%23.txt", headers={"Range": "bytes=0-3"})
    assert (part.status, await part.read()) == (206, "éé".encode())


async def test_a_kernel_that_does_not_exist_is_404_to_the_handshake(visitor: Browser) -> None:
    await ask_for_no_kernel(visitor)


async def ask_for_no_kernel(visitor: Browser) -> None:
    """A handshake with a kernel that was never there."""
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await visitor.session.ws_connect(
            f"{visitor.address}/api/kernels/{uuid.uuid4()}/channels", headers=visitor.fields()
        )
    assert caught.value.status == 404


async def test_the_server_knows_its_user_and_nothing_of_the_portals_cookie(visitor: Browser) -> None:
    answer = await visitor.ask("GET", "/api/status")
    assert answer.status == 200
    assert COOKIE not in await answer.text()
