"""What people do in JupyterLab for a day, in Chromium, through the portal: cells, an interrupt, long output, files up
and down, a terminal, a second tab, and a portal that is restarted under it all.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Locator, Page, expect

from launcher.demo.browser import Browser
from launcher.demo.folder import Running
from tests.demo_process import StartedDemo
from tests.e2e.conftest import Person
from tests.e2e.test_main_job import NOTEBOOK_MS, launch, new_notebook, open_notebook, stop
from tests.integration.secret_search import children_of
from tests.waiting import until, wait_for

MIB = 1 << 20
UPLOAD_BYTES = (200 if os.environ.get("CONFORMANCE") == "full" else 24) * MIB
OUTPUT_LETTERS = 20_000_000

GET = """async ([path, range]) => {
  const answer = await fetch(path, {headers: range ? {Range: range} : {}});
  const body = new Uint8Array(await answer.arrayBuffer());
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", body));
  return [answer.status, body.length, [...digest].map(byte => byte.toString(16).padStart(2, "0")).join("")];
}"""


@pytest.fixture
async def lab(started: StartedDemo, person: Person) -> AsyncIterator[Page]:
    """JupyterLab with a notebook whose kernel waits."""
    page = await person("alice")
    session_id = await launch(page, title="A day")
    lab = await open_notebook(page)
    await new_notebook(lab)
    await idle(lab)
    yield lab
    await lab.close()
    await stop(page, session_id)


async def idle(lab: Page) -> None:
    """Until the kernel waits for something to do."""
    button = lab.get_by_role("button", name=re.compile("ipykernel.* Idle"))
    await expect(button).to_be_visible(timeout=NOTEBOOK_MS)


async def run(lab: Page, code: str) -> Locator:
    """Run code in the last cell of the open notebook; its output area. A new cell is behind it then."""
    cells = lab.locator(".jp-Notebook:visible .jp-CodeCell")
    number = await cells.count() - 1
    editor = cells.nth(number).locator(".cm-content")
    await editor.click()
    await lab.keyboard.insert_text(code)
    await expect(editor).to_contain_text(code.splitlines()[0])
    await lab.keyboard.press("Shift+Enter")
    return cells.nth(number).locator(".jp-OutputArea")


def home_of(started: StartedDemo) -> Path:
    return started.folder.cluster / "home" / "alice"


async def test_a_day_in_jupyterlab(started: StartedDemo, lab: Page, tmp_path: Path) -> None:
    # a cell, and one that is interrupted
    await expect(await run(lab, "6 * 7")).to_contain_text("42", timeout=NOTEBOOK_MS)
    endless = await run(lab, "print('begun', flush=True)\nwhile True: pass")
    await expect(endless).to_contain_text("begun", timeout=NOTEBOOK_MS)
    await lab.get_by_role("button", name=re.compile("^Interrupt the kernel")).first.click()
    await expect(endless).to_contain_text("KeyboardInterrupt", timeout=NOTEBOOK_MS)

    # an output of 20 MB, whole
    long = await run(lab, f"from IPython.display import HTML; HTML('<i>' + 'x' * {OUTPUT_LETTERS} + '</i><b>end</b>')")
    await expect(long.locator("b")).to_have_text("end", timeout=NOTEBOOK_MS)
    assert await long.locator("i").evaluate("shown => shown.textContent.length") == OUTPUT_LETTERS
    await run(lab, "from IPython.display import clear_output; clear_output()")

    # a file up, in JupyterLab's own way, and down, whole and in part
    content = os.urandom(MIB) * (UPLOAD_BYTES // MIB)
    (tmp_path / "long.bin").write_bytes(content)
    async with lab.expect_file_chooser() as chosen:
        await lab.get_by_role("button", name=re.compile("^Upload Files")).first.click()
    await (await chosen.value).set_files(tmp_path / "long.bin")
    if UPLOAD_BYTES > 15 * MIB:  # JupyterLab asks before so long a file
        await lab.get_by_role("button", name="Upload", exact=True).click()
    arrived = home_of(started) / "long.bin"
    await until(lambda: arrived.exists() and arrived.stat().st_size == UPLOAD_BYTES, "the upload", seconds=120)
    assert arrived.read_bytes() == content
    status, size, _ = await lab.evaluate(GET, ["/files/long.bin", ""])
    assert (status, size) == (200, UPLOAD_BYTES)
    status, size, _ = await lab.evaluate(GET, ["/files/long.bin", "bytes=1048570-1048580"])
    assert (status, size) == (206, 11)

    # a terminal
    name = await lab.evaluate(
        """async () => {
          const token = document.cookie.match(/_xsrf=([^;]*)/);
          const headers = token ? {"X-XSRFToken": token[1]} : {};
          return (await (await fetch("/api/terminals", {method: "POST", headers})).json()).name;
        }"""
    )
    await lab.evaluate(
        """name => new Promise((resolve, reject) => {
          const socket = new WebSocket(`ws://${location.host}/terminals/websocket/${name}`);
          socket.onerror = reject;
          socket.onmessage = event => {
            const [kind] = JSON.parse(event.data);
            if (kind === "setup") socket.send(JSON.stringify(["stdin", "echo $((6*7)) > answer.txt; exit\\r"]));
            if (kind === "disconnect") { socket.close(); resolve(); }
          };
        })""",
        name,
    )
    assert (home_of(started) / "answer.txt").read_text() == "42\n"

    # a second tab beside the first
    second = await lab.context.new_page()
    await second.goto(lab.url)
    await second.wait_for_selector("#jp-main-dock-panel", timeout=NOTEBOOK_MS)
    await second.close()
    await expect(await run(lab, "'still ' + 'here'")).to_contain_text("still here", timeout=NOTEBOOK_MS)

    # the portal's web process ends and comes back: the notebook goes on with the kernel that it had
    await run(lab, "kept = 2027")
    await idle(lab)
    restart_web(started.running)
    told = lab.get_by_role("dialog", name=re.compile("^Server Connection Error"))
    # it says Unknown until the kernel speaks again
    await lab.add_locator_handler(told, lambda shown: shown.get_by_role("button").last.click())
    connected = lab.get_by_role("button", name=re.compile("ipykernel.* (Idle|Unknown)"))
    await expect(connected).to_be_visible(timeout=NOTEBOOK_MS)
    shown = await run(lab, "print('kept', kept)")
    await expect(shown).to_contain_text("kept 2027", timeout=NOTEBOOK_MS)


def restart_web(demo: Running) -> None:
    """Kill the web process; the demo starts it again."""

    def web() -> list[int]:
        found = []
        for pid in children_of(demo.pid):
            with contextlib.suppress(OSError):  # it has ended meanwhile
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
                if b"uvicorn" in command and b"keeper" not in command:
                    found.append(pid)
        return found

    def answers() -> bool:
        with contextlib.suppress(OSError):
            return Browser("127.0.0.1").get(f"{demo.url}/health/").status == 200
        return False

    (before,) = web()
    os.kill(before, signal.SIGKILL)
    wait_for(lambda: before not in web() and answers(), seconds=90, what="another web process")
