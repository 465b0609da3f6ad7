"""Into a session in Chromium, by other ways than Connect: with somebody's link, and with a bookmark."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urljoin

from playwright.async_api import Page, expect

from launcher.demo.folder import Running
from tests.e2e.conftest import Person
from tests.e2e.test_main_job import NOTEBOOK_MS, launch, open_notebook, stop


async def caught_link(lab: Page) -> str:
    """Begin an entry in this tab, and stop at the address with the code; that address."""
    caught: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
    devtools = await lab.context.new_cdp_session(lab)  # Playwright's own routes do not see redirects
    devtools.on("Fetch.requestPaused", lambda paused: caught.set_result(paused))
    await devtools.send("Fetch.enable", {"patterns": [{"urlPattern": "*/.footbridge/enter*"}]})
    going = asyncio.create_task(lab.goto(urljoin(lab.url, "/.footbridge/begin")))
    paused = await asyncio.wait_for(caught, 60)
    await devtools.send("Fetch.failRequest", {"requestId": paused["requestId"], "errorReason": "Aborted"})
    await asyncio.wait([going])
    assert going.exception() is not None
    await devtools.detach()
    return str(paused["request"]["url"])


async def test_a_link_opens_nothing_in_another_browser_and_a_bookmark_still_leads_to_its_page(
    demo: Running, person: Person
) -> None:
    page = await person("alice")
    session_id = await launch(page, title="Entering")
    lab = await open_notebook(page)
    bookmark = urljoin(lab.url, "/lab/tree/")

    link = await caught_link(lab)
    stranger = await person("bob")
    for browser in (stranger, lab):  # the second try is in the right browser, but the link is used up by then
        answer = await browser.goto(link)
        assert answer is not None
        assert answer.status == 403
        await expect(browser.get_by_role("heading")).to_have_text("This link does not open the session")

    await page.context.clear_cookies(name="footbridge")
    answer = await lab.goto(bookmark)
    assert answer is not None
    assert answer.status == 200
    assert lab.url.startswith(bookmark.rstrip("/"))
    await lab.wait_for_selector("#jp-main-dock-panel", timeout=NOTEBOOK_MS)
    kept = {cookie["name"] for cookie in await page.context.cookies(bookmark)}
    assert "footbridge" in kept
    assert not any(name.startswith("footbridge-entry-") for name in kept)
    await stop(page, session_id)
