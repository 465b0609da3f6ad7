"""Administrators narrow their lists down in a browser: by keyboard, without JavaScript, and while the list lives."""

from __future__ import annotations

import pytest
from playwright.async_api import Locator, Response, expect

from launcher.demo.folder import Running
from tests.e2e.conftest import Person


async def test_people_are_found_with_the_keyboard_and_without_javascript(demo: Running, person: Person) -> None:
    await (await person("alice")).context.close()  # who has never signed in is nobody here
    page = await person("admin", java_script_enabled=False, viewport={"width": 390, "height": 900})
    await page.goto("/administration/users/")
    await page.get_by_label("Account, name or e-mail").focus()
    await page.keyboard.type("ALIC")
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("1 person", exact=True)).to_be_visible()
    await page.get_by_role("link", name="Live sessions alice").press("Enter")
    await expect(page).to_have_url(f"{demo.url}/administration/sessions/?owner=alice")


async def _top_and_bottom(locator: Locator) -> tuple[float, float]:
    box = await locator.bounding_box()
    assert box is not None
    return box["y"], box["y"] + box["height"]


@pytest.mark.parametrize("path", ["/administration/sessions/", "/audit/"])
@pytest.mark.parametrize("days", ["", "?since=2026-03-11&until=2026-03-10"])
@pytest.mark.parametrize("width", [390, 1280])
async def test_the_first_and_the_last_day_stand_side_by_side(person: Person, path: str, days: str, width: int) -> None:
    page = await person("admin", viewport={"width": width, "height": 900})
    await page.goto(path + days)
    place = await _top_and_bottom(page.get_by_label("From", exact=True))
    assert await _top_and_bottom(page.get_by_label("To", exact=True)) == place
    if width == 1280:
        assert await _top_and_bottom(page.get_by_role("button", name="Filter")) == pytest.approx(place, abs=1)


async def test_the_list_of_sessions_keeps_the_filter_while_it_lives(demo: Running, person: Person) -> None:
    page = await person("admin")
    query = "text=nobody+is+called+so&state=ready"

    def is_news(response: Response) -> bool:
        return "hx-request" in response.request.headers and response.url.endswith(f"/administration/sessions/?{query}")

    async with page.expect_response(is_news) as news:
        await page.goto(f"/administration/sessions/?{query}")
    assert "No session fits this filter." in await (await news.value).text()
