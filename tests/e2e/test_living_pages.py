"""Pages that stay open while a session goes on: what they offer, and where the keyboard is."""

from __future__ import annotations

from playwright.async_api import expect

from tests.e2e.conftest import Person
from tests.e2e.test_main_job import launch, stop


async def test_a_page_that_is_open_at_the_end_offers_no_stop_any_more(person: Person) -> None:
    page = await person("alice")
    session_id = await launch(page)
    watching = await page.context.new_page()
    await watching.goto(f"/sessions/{session_id}/")
    await expect(watching.get_by_role("button", name="Stop the session")).to_be_visible()

    await stop(page, session_id)

    await expect(watching.locator("#live")).to_contain_text("You stopped it.")
    await expect(watching.get_by_role("button", name="Stop the session")).to_be_hidden()


async def test_escape_from_the_question_gives_the_keyboard_back_to_the_menu_it_came_from(person: Person) -> None:
    page = await person("alice")
    session_id = await launch(page)
    await page.goto("/")
    await expect(page.get_by_role("button", name="Connect")).to_be_visible()
    menu = page.locator(f"#menu-{session_id} > summary")
    await menu.click()
    await page.locator(f"#menu-{session_id} .menu-item-stop").click()
    await expect(page.get_by_role("dialog")).to_be_visible()

    await page.keyboard.press("Escape")

    await expect(menu).to_be_focused()
    await stop(page, session_id)
