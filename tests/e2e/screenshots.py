"""Takes the pictures of the README from a running demo: ``python -m tests.e2e.screenshots http://localhost:8000``.

Run it after a change of the pages, look at the pictures, commit them.
"""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

from playwright.async_api import Browser, Page, async_playwright

from launcher.democluster.settings import DEFAULT_ACCOUNTS

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "images"
PASSWORDS = {account.name: account.password for account in DEFAULT_ACCOUNTS}
SIZE = {"width": 1280, "height": 800}
WITHOUT_PATHS = r"""log => {
  log.textContent = log.textContent.replaceAll(/\/[\w.\/-]+\/(home|share|site-packages)\//g, '/…/$1/');
}"""
"""The log names folders of the machine on which the pictures are taken."""


async def _signed_in(browser: Browser, url: str, name: str, **look: str) -> Page:
    context = await browser.new_context(base_url=url, viewport=SIZE, **look)  # type: ignore[arg-type]  # Playwright's names
    page = await context.new_page()
    await page.goto("/")
    await page.locator("[name=username]").fill(name)
    await page.locator("[name=password]").fill(PASSWORDS[name])
    await page.locator("[name=password]").press("Enter")
    await page.wait_for_url(url + "/")
    return page


async def _notebook(page: Page) -> None:
    async with page.context.expect_page() as opened:
        await page.get_by_role("button", name="Connect").click()
    lab = await opened.value
    await lab.locator(".jp-LauncherCard[data-category='Notebook']").first.click()
    await lab.get_by_role("button", name=re.compile("ipykernel.* Idle")).wait_for()
    no_news = lab.get_by_role("button", name="No", exact=True)
    await no_news.click()
    await no_news.wait_for(state="detached")  # it slides away, and would be in the picture
    cell = lab.locator(".jp-Notebook .jp-CodeCell .cm-content").first
    await cell.click()
    await cell.press_sequentially("6*7")
    await cell.press("Shift+Enter")
    await lab.locator(".jp-OutputArea-output").first.wait_for()
    await lab.screenshot(path=FOLDER / "notebook.png")
    await lab.close()


async def take(url: str) -> None:
    """All pictures. Needs a demo in which alice has no session."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-background-networking"]
        )
        page = await _signed_in(browser, url, "alice")
        await page.goto("/launch/jupyter/")
        await page.screenshot(path=FOLDER / "launch.png", full_page=True)
        await page.get_by_role("button", name="Launch").click()
        await page.get_by_role("button", name="Connect").wait_for(timeout=60_000)
        await page.locator("#log-text").evaluate(WITHOUT_PATHS)
        await page.screenshot(path=FOLDER / "session.png", full_page=True)
        await _notebook(page)
        await page.goto("/")
        await page.screenshot(path=FOLDER / "home.png")
        chinese = await _signed_in(browser, url, "alice", locale="zh-CN")
        await chinese.screenshot(path=FOLDER / "home-zh.png")
        await page.goto(page.url)
        await page.locator("a[href^='/sessions/']").first.click()
        await page.get_by_role("button", name=re.compile("^Stop")).first.click()
        await page.get_by_role("dialog").get_by_role("button", name=re.compile("^Stop")).click()
        await page.get_by_text("You stopped it.").first.wait_for(timeout=60_000)
        admin = await _signed_in(browser, url, "admin", color_scheme="dark")
        await admin.goto("/audit/")
        await admin.screenshot(path=FOLDER / "audit.png")
        await browser.close()


if __name__ == "__main__":
    asyncio.run(take(sys.argv[1].rstrip("/")))
