"""What was open is closed within two seconds when the right to it ends."""

from __future__ import annotations

import asyncio
import time

from playwright.async_api import Page, WebSocket, expect

from launcher.demo.folder import Running
from tests.e2e.conftest import Person
from tests.e2e.test_main_job import launch, open_notebook, stop

WITHIN_SECONDS = 2.0


def watch_sockets(page: Page) -> tuple[set[WebSocket], asyncio.Event]:
    """The page's open WebSockets, and an event that is set once all of them are closed."""
    open_ones: set[WebSocket] = set()
    all_closed = asyncio.Event()

    def closed(socket: WebSocket) -> None:
        open_ones.discard(socket)
        if not open_ones:
            all_closed.set()

    def opened(socket: WebSocket) -> None:
        open_ones.add(socket)
        socket.on("close", closed)

    page.on("websocket", opened)
    return open_ones, all_closed


async def test_signing_out_closes_the_open_notebook_within_two_seconds(demo: Running, person: Person) -> None:
    page = await person("alice")
    session_id = await launch(page, title="Signed out")
    lab = await open_notebook(page)
    sockets, all_closed = watch_sockets(lab)
    await lab.reload()
    await lab.locator(".jp-LauncherCard[data-category='Notebook']").first.click()
    await expect(lab.locator(".jp-Notebook .jp-CodeCell .cm-content").first).to_be_visible(timeout=90_000)
    assert sockets

    await page.goto("/profile/")
    begin = time.monotonic()
    await page.evaluate("document.querySelector('form[action=\"/sign-out/\"]').requestSubmit()")
    await asyncio.wait_for(all_closed.wait(), 30)
    took = time.monotonic() - begin
    assert took < WITHIN_SECONDS, f"the notebook's sockets were closed after {took:.1f} s"
    assert await lab.evaluate("fetch('/api/status').then(answer => answer.status)") == 404

    page = await person("alice")
    await stop(page, session_id)
