"""Every page passes axe (WCAG 2.2 AA), in light and dark, wide and narrow."""

from __future__ import annotations

import asyncio
import re

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page, expect

from launcher.demo.folder import Running
from tests.demo_process import StartedDemo
from tests.e2e.conftest import Person
from tests.e2e.test_main_job import launch, stop

RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}
LOOKS = [("light", 1280), ("dark", 390)]


async def violations(page: Page) -> list[str]:
    """What axe finds on the page as it is, with the place of each."""
    found = await Axe().run(page, options=RULES)
    return [f"{page.url}: {rule['id']}: {rule['nodes'][0]['html']}" for rule in found.response["violations"]]


@pytest.mark.parametrize(("scheme", "width"), LOOKS)
async def test_pages_of_a_user_have_no_violations(demo: Running, person: Person, scheme: str, width: int) -> None:
    page = await person("alice", color_scheme=scheme, viewport={"width": width, "height": 900})
    found = []
    for path in ("/", "/launch/jupyter/", "/launch/jupyter-container/", "/history/", "/profile/", "/no-such-page/"):
        await page.goto(path)
        found += await violations(page)
    session_id = await launch(page)
    await expect(page.get_by_role("button", name="Connect")).to_be_visible(timeout=60_000)
    found += await violations(page)
    await page.goto("/")
    found += await violations(page)
    await stop(page, session_id)
    found += await violations(page)
    assert found == []


@pytest.mark.parametrize(("scheme", "width"), LOOKS)
async def test_pages_of_an_administrator_have_no_violations(
    demo: Running, person: Person, scheme: str, width: int
) -> None:
    page = await person("admin", color_scheme=scheme, viewport={"width": width, "height": 900}, locale="zh-CN")
    found = []
    for path in (
        "/audit/",
        "/administration/users/",
        "/administration/users/?text=admin",
        "/administration/users/?text=nobody-is-called-so",
        "/administration/limits/",
        "/administration/sessions/",
        "/administration/sessions/?since=2026-01-01",
        "/administration/sessions/?text=nobody-is-called-so&owner=%00&state=no-such-state",
        "/administration/clusters/",
        "/administration/check-up/",
    ):
        await page.goto(path)
        await expect(page.locator("html")).to_have_attribute("lang", re.compile("zh"))
        found += await violations(page)
        wide = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide == 0, f"{page.url} is {wide} pixels too wide"
    assert found == []


@pytest.mark.parametrize(("scheme", "width"), LOOKS)
async def test_the_page_of_limits_has_no_violations_with_a_row_and_with_a_mistake(
    demo: Running, person: Person, scheme: str, width: int
) -> None:
    page = await person("admin", color_scheme=scheme, viewport={"width": width, "height": 900})
    await page.goto("/administration/limits/")
    await page.locator("[name=whose]").select_option(label="members of a group")
    await page.get_by_label("Account or group").fill("nobody-is-in-it")
    await page.get_by_label("Sessions at a time").fill("3")
    await page.get_by_role("button", name="Save").click()
    remove = page.get_by_role("button", name="Remove nobody-is-in-it")
    await expect(remove).to_be_visible()
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_role("alert")).to_be_visible()
    found = await violations(page)
    await remove.click()
    await expect(remove).to_have_count(0)
    assert found == []


SHOWN = """
import datetime as dt
from django.db import transaction
from launcher.models import InteractiveSession, NoticeKind
from launcher.services import tell_owner
from portal.accounts.models import User
from portal.clock import now
me = User.objects.get(username="bob")
InteractiveSession.objects.filter(title="Shown").delete()
common = dict(
    owner=me, username="bob", title="Shown", app="jupyter", cluster="demo", created_at=now(), submitted_at=now(),
    choices={"cores": 2, "memory_mib": 4096, "walltime_seconds": 3600, "gpus": 0, "queue": "workq"},
)
runs = dict(
    state="ready", started_at=now(), server_at=now(), ready_at=now(), upstream_host="n1", upstream_port=9,
    execution_host="n1", job_state="running", walltime_seconds=3600, walltime_ends_at=now() + dt.timedelta(minutes=9),
)
rows = [
    dict(state="queued", estimated_start_at=now() + dt.timedelta(hours=1)),
    dict(state="queued", job_comment="Can Never Run: Insufficient amount of resource: ncpus (R: 64 A: 8 T: 8)"),
    dict(runs, extension_refused="scheduler.rejected.over_limit", extension_refused_detail="qalter: no"),
    dict(runs, active_at=now() - dt.timedelta(hours=2), idle_stop_at=now() + dt.timedelta(minutes=9)),
    dict(runs, job_state="suspended"),
    dict(runs, unreachable_since=now()),
    dict(runs, unreachable_since=now(), unreachable_code="ssh.login_refused"),
    dict(state="stopping", stop_requested_at=now(), unreachable_since=now()),
    dict(state="ended", ended_at=now(), end_reason="walltime", end_code="ended.walltime", log_tail="the end"),
    dict(state="ended", ended_at=now(), end_reason="stopped_by_user", end_code="ended.stopped_by_user"),
]
made = []
for number, row in enumerate(rows):
    before = made[-1] if number == 3 else None
    made.append(InteractiveSession.objects.create(**common, continues=before, **row))
with transaction.atomic():
    ends_at = made[2].walltime_ends_at.isoformat()
    tell_owner(made[2], kind=NoticeKind.TIME, key="time:10:0", params={"ends_at": ends_at, "minutes": 10})
print(" ".join(session.pk for session in made))
"""
"""Sessions in states that are rare or short. They have no job, so no poll round changes them."""

GONE = "from launcher.models import InteractiveSession; InteractiveSession.objects.filter(title='Shown').delete()"


@pytest.mark.parametrize(("scheme", "width"), LOOKS)
async def test_no_state_of_a_session_has_violations(
    started: StartedDemo, person: Person, scheme: str, width: int
) -> None:
    page = await person("bob", color_scheme=scheme, viewport={"width": width, "height": 900})
    answer = await asyncio.to_thread(started.manage, "shell", "-v0", "-c", SHOWN)
    assert answer.returncode == 0, answer.stderr
    try:
        found = []
        for path in ("/", "/history/", "/launch/jupyter/", *(f"/sessions/{pk}/" for pk in answer.stdout.split())):
            await page.goto(path)
            found += await violations(page)
            wide = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert wide == 0, f"{page.url} is {wide} pixels too wide"
        assert found == []
    finally:
        await asyncio.to_thread(started.manage, "shell", "-c", GONE)


async def test_the_sign_in_page_has_no_violations(demo: Running, browser: object) -> None:
    page = await browser.new_page(base_url=demo.url)  # type: ignore[attr-defined]  # a playwright Browser
    await page.goto("/sign-in/")
    assert await violations(page) == []
