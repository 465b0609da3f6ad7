"""The main job as a person does it, in Chromium: sign in, launch, connect, run a cell, stop, read why it ended."""

from __future__ import annotations

import re
from urllib.parse import urljoin

from playwright.async_api import Page, expect

from launcher.demo.folder import Running
from tests.e2e.conftest import Person

READY_MS = 60_000
NOTEBOOK_MS = 90_000


async def launch(page: Page, *, app: str = "jupyter", title: str = "Trial") -> str:
    """Fill in the form and send it; the session's id."""
    await page.goto(f"/launch/{app}/")
    await page.locator("details.fold > summary").click()
    await page.locator("[name=title]").fill(title)
    await page.get_by_role("button", name="Launch").click()
    await page.wait_for_url(re.compile(r"/sessions/[a-z0-9]{12}/$"))
    return page.url.rstrip("/").rsplit("/", 1)[-1]


async def open_notebook(page: Page) -> Page:
    """Wait for Connect, click it, and wait for JupyterLab in the new tab."""
    button = page.get_by_role("button", name="Connect")
    await expect(button).to_be_visible(timeout=READY_MS)
    async with page.context.expect_page() as opened:
        await button.click()
    lab = await opened.value
    await lab.wait_for_selector("#jp-main-dock-panel", timeout=NOTEBOOK_MS)
    return lab


async def new_notebook(lab: Page) -> None:
    """Load JupyterLab once more and make a notebook. What an earlier session left open is not shown again: JupyterLab
    keeps its windows in the person's home folder, and with one open there is no launcher to click."""
    await lab.goto(urljoin(lab.url, "/lab?reset"))
    await lab.locator(".jp-LauncherCard[data-category='Notebook']").first.click(timeout=NOTEBOOK_MS)


async def stop(page: Page, session_id: str) -> None:
    """Stop the session and wait for its end."""
    await page.goto(f"/sessions/{session_id}/")
    await page.get_by_role("button", name=re.compile("^Stop")).first.click()
    confirm = page.get_by_role("dialog").get_by_role("button", name=re.compile("^Stop"))
    await confirm.click()
    await expect(page.locator("#live")).to_contain_text("You stopped it.", timeout=READY_MS)


async def test_a_person_runs_a_cell_and_stops_and_a_stranger_sees_nothing(demo: Running, person: Person) -> None:
    page = await person("alice")
    session_id = await launch(page, title="My first notebook")
    lab = await open_notebook(page)
    address = lab.url

    await new_notebook(lab)
    await expect(lab.get_by_role("button", name=re.compile("ipykernel.* Idle"))).to_be_visible(timeout=NOTEBOOK_MS)
    cell = lab.locator(".jp-Notebook .jp-CodeCell .cm-content").first
    await cell.click()
    await cell.press_sequentially("6*7")
    await expect(cell).to_have_text("6*7")
    await cell.press("Shift+Enter")
    await expect(lab.locator(".jp-OutputArea-output").first).to_have_text("42", timeout=NOTEBOOK_MS)

    stranger = await person("bob")
    answer = await stranger.goto(address)
    assert answer is not None
    assert answer.status == 404
    answer = await stranger.goto(f"{demo.url}/sessions/{session_id}/")
    assert answer is not None
    assert answer.status == 404

    await stop(page, session_id)
    await page.goto("/history/")
    await expect(page.locator("main")).to_contain_text("My first notebook")
    await expect(page.locator("main")).to_contain_text("You stopped it.")

    auditor = await person("admin")
    await auditor.goto(f"/audit/?session={session_id}")
    await expect(auditor.locator("main")).to_contain_text("session.access_denied")
    await expect(auditor.locator("main")).to_contain_text("bob")


async def test_a_double_click_on_launch_makes_one_session(demo: Running, person: Person) -> None:
    page = await person("bob")
    await page.goto("/launch/jupyter/")
    await page.get_by_role("button", name="Launch").dblclick()
    await page.wait_for_url(re.compile(r"/sessions/[a-z0-9]{12}/$"))
    session_id = page.url.rstrip("/").rsplit("/", 1)[-1]

    await page.goto("/launch/jupyter/")
    await expect(page.locator("main")).to_contain_text("You already have a session")
    await page.goto("/")
    await expect(page.locator("article[data-session]")).to_have_count(1)
    await stop(page, session_id)


async def test_a_wrong_password_is_answered_in_words(demo: Running, browser: object) -> None:
    page = await browser.new_page(base_url=demo.url)  # type: ignore[attr-defined]  # a playwright Browser
    await page.goto("/sign-in/")
    await page.get_by_label("Account name").fill("alice")
    await page.get_by_label("Password").fill("wrong")
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("alert")).to_contain_text("did not accept")
    await expect(page.get_by_label("Account name")).to_have_value("alice")
    await expect(page.get_by_label("Password")).to_have_value("")
