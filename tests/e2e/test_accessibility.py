"""Every page passes axe (WCAG 2.2 AA), in light and dark, wide and narrow."""

from __future__ import annotations

import re

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page, expect

from launcher.demo.folder import Running
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
        "/administration/limits/",
        "/administration/sessions/",
        "/administration/clusters/",
    ):
        await page.goto(path)
        await expect(page.locator("html")).to_have_attribute("lang", re.compile("zh"))
        found += await violations(page)
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


async def test_the_sign_in_page_has_no_violations(demo: Running, browser: object) -> None:
    page = await browser.new_page(base_url=demo.url)  # type: ignore[attr-defined]  # a playwright Browser
    await page.goto("/sign-in/")
    assert await violations(page) == []
