"""What was open is closed within two seconds of signing out."""

from __future__ import annotations

import asyncio
import time

import pytest
from playwright.async_api import Page, Request, WebSocket, expect

from launcher.demo.folder import Running
from tests.e2e.conftest import Person
from tests.e2e.test_main_job import launch, new_notebook, open_notebook, stop

WITHIN_SECONDS = 2.0


def watch_sockets(page: Page) -> dict[WebSocket, asyncio.Event]:
    """Every WebSocket that the page opens from now on, with an event that is set when it is closed."""
    sockets: dict[WebSocket, asyncio.Event] = {}

    def opened(socket: WebSocket) -> None:
        closed = sockets[socket] = asyncio.Event()
        socket.on("close", lambda _: closed.set())

    page.on("websocket", opened)
    return sockets


@pytest.mark.parametrize("door", ["/sign-out/", "/profile/browsers/sign-out-everywhere/"])
async def test_signing_out_closes_the_open_notebook_within_two_seconds(
    demo: Running, person: Person, door: str
) -> None:
    page = await person("bob")
    session_id = await launch(page, title="Signed out")
    lab = await open_notebook(page)
    sockets = watch_sockets(lab)
    await new_notebook(lab)
    await expect(lab.locator(".jp-Notebook .jp-CodeCell .cm-content").first).to_be_visible(timeout=90_000)
    still_open = [closed for closed in sockets.values() if not closed.is_set()]
    assert still_open

    await page.goto("/profile/")
    await page.evaluate("door => document.querySelector(`form[action='${door}']`).requestSubmit()", door)
    await page.wait_for_url("**/sign-in/")
    begin = time.monotonic()
    await asyncio.wait_for(asyncio.gather(*(closed.wait() for closed in still_open)), 30)
    took = time.monotonic() - begin
    assert took < WITHIN_SECONDS, f"the notebook's sockets were closed after {took:.1f} s"
    assert await lab.evaluate("fetch('/api/status').then(answer => answer.status)") == 403

    page = await person("bob")
    await stop(page, session_id)


async def test_a_tab_that_is_left_open_does_not_ask_without_end(person: Person) -> None:
    page = await person("bob")
    session_id = await launch(page, title="Left open")
    lab = await open_notebook(page)
    await page.goto("/profile/")
    await page.evaluate("document.querySelector(`form[action='/sign-out/']`).requestSubmit()")
    await page.wait_for_url("**/sign-in/")

    listings: list[Request] = []
    lab.on("request", lambda request: listings.append(request) if "/api/contents?" in request.url else None)
    async with lab.expect_response(lambda answer: "/api/contents?" in answer.url and answer.status == 403):
        # a dialog of JupyterLab's own may lie over it by now: what it asked for by itself was refused, too
        await lab.locator("[data-command='filebrowser:refresh']").first.dispatch_event("click")
    for _ in range(50):
        await lab.evaluate("fetch('/api/status').then(answer => answer.text())")
    assert len(listings) < 10

    page = await person("bob")
    await stop(page, session_id)
