"""What the browser tells by itself, in Chromium: once, on whichever pages of the portal are open."""

from __future__ import annotations

import asyncio
import re

from playwright.async_api import BrowserContext, Page, expect

from launcher.demo.folder import Running
from tests.demo_process import StartedDemo
from tests.e2e.conftest import Person
from tests.e2e.test_accessibility import violations
from tests.e2e.test_main_job import READY_MS, launch, stop

KEEP_NOTICES = """
window.shownNotices = [];
window.Notification = class extends window.Notification {
  constructor(title, options) {
    super(title, options);
    window.shownNotices.push({ title, body: options.body, tag: options.tag });
  }
};
"""
"""Notices are the system's, beyond the page: each page keeps what it handed over."""


async def shown(context: BrowserContext) -> list[dict[str, str]]:
    """What all pages of a browser have shown."""
    return [notice for page in context.pages for notice in await page.evaluate("window.shownNotices ?? []")]


async def until_shown(page: Page, title: str) -> list[dict[str, str]]:
    """Wait until a notice with this title is there, and all pages have looked once more; all notices."""
    deadline = asyncio.get_running_loop().time() + READY_MS / 1000
    while not any(title in notice["title"] for notice in await shown(page.context)):
        assert asyncio.get_running_loop().time() < deadline, f"no notice {title!r}"
        await asyncio.sleep(0.1)
    for other in page.context.pages:
        async with other.expect_response(re.compile(r"/notices/$")):
            await other.evaluate("document.dispatchEvent(new CustomEvent('portal:notice'))")
    return await shown(page.context)


async def test_of_several_open_pages_one_shows_the_notice(demo: Running, person: Person) -> None:
    page = await person("alice")
    await page.context.grant_permissions(["notifications"], origin=demo.url)
    await page.context.add_init_script(KEEP_NOTICES)
    others = [await page.context.new_page() for _ in range(2)]
    await others[0].goto("/")
    await others[1].goto("/profile/")
    session_id = await launch(page, title="Told once")
    try:
        notices = await until_shown(page, "Told once is ready")
        assert [notice["title"] for notice in notices] == ["Told once is ready"]
        assert notices[0]["body"] == "Your notebook is ready."
    finally:
        await stop(page, session_id)


async def test_the_profile_asks_for_permission_only_when_somebody_wants_it(demo: Running, person: Person) -> None:
    page = await person("alice")
    await page.context.add_init_script(
        "window.asked = 0;"
        "Object.defineProperty(Notification, 'permission', {get: () => window.asked ? 'granted' : 'default'});"
        "Notification.requestPermission = async () => { window.asked += 1; };"
    )
    await page.goto("/profile/")
    offer = page.get_by_role("button", name="Show notices in this browser")
    await expect(offer).to_be_visible()
    assert await page.evaluate("window.asked") == 0
    await offer.click()
    await expect(page.get_by_text("This browser shows notices while")).to_be_visible()
    await expect(offer).to_be_hidden()
    assert await page.evaluate("window.asked") == 1


WARN = """
from django.db import transaction
from launcher.models import InteractiveSession, NoticeKind
from launcher.services import tell_owner
with transaction.atomic():
    session = InteractiveSession.objects.select_for_update().get(pk="{id}")
    params = {{"ends_at": session.walltime_ends_at.isoformat(), "minutes": 10}}
    assert tell_owner(session, kind=NoticeKind.TIME, key="time:10:0", params=params)
"""


async def test_a_warning_of_the_end_is_shown_heard_and_read(started: StartedDemo, person: Person) -> None:
    page = await person("bob", timezone_id="Asia/Shanghai")
    await page.context.grant_permissions(["notifications"], origin=started.running.url)
    await page.context.add_init_script(KEEP_NOTICES)
    session_id = await launch(page, title="Short")
    try:
        await expect(page.get_by_role("button", name="Connect")).to_be_visible(timeout=READY_MS)
        answer = await asyncio.to_thread(started.manage, "shell", "-c", WARN.format(id=session_id))
        assert answer.returncode == 0, answer.stderr
        notices = await until_shown(page, "Short ends soon")
        read = await page.locator("[data-told=time] p").inner_text(timeout=READY_MS)
        assert re.fullmatch(r"This session ends at (.+, )?\d\d:\d\d. Save your work.", read)
        clock_and_rest = len("23:59. Save your work.")  # the page names the day, too, where it is another one
        assert notices[-1]["body"][-clock_and_rest:] == read[-clock_and_rest:]
        await expect(page.locator("#announcer")).to_have_text(f"Short ends soon. {notices[-1]['body']}")
        assert await violations(page) == []
    finally:
        await stop(page, session_id)
