"""Fixtures of the browser tests.

demo       the whole portal as ``make demo`` starts it: every process, a real cluster, its own folder and free ports
started    the same with ``manage``, which runs a management command on its data
browser    Debian's Chromium; skipped with the reason where it is not installed
person     opens a browser of its own for a person and signs them in
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

from launcher.demo.folder import Running
from launcher.democluster.settings import DEFAULT_ACCOUNTS
from tests.demo_process import StartedDemo, started_demo

PASSWORDS = {account.name: account.password for account in DEFAULT_ACCOUNTS}

PATIENCE_MS = 90_000
"""How long a page may take to do what is asked of it: a machine with other work is slow, and that is no failure."""
expect.set_options(timeout=60_000)

Person = Callable[..., Awaitable[Page]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test here drives a browser, and may take longer than others."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(300))


@pytest.fixture(scope="session")
def started() -> Iterator[StartedDemo]:
    """A demo that runs, with its management commands."""
    with started_demo("fb-e2e-") as demo:
        yield demo


@pytest.fixture(scope="session")
def demo(started: StartedDemo) -> Running:
    """A running demo."""
    return started.running


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """Debian's Chromium."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed (Debian's package chromium)")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=chromium,
            args=["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"],
        )
        yield browser
        await browser.close()


@pytest.fixture
def person(browser: Browser, demo: Running) -> Person:
    """``page = await person("alice")``: a signed-in browser of one's own; keywords go to the browser context."""

    async def open_and_sign_in(name: str, **options: object) -> Page:
        context = await browser.new_context(base_url=demo.url, **options)  # type: ignore[arg-type]  # names of Playwright
        context.set_default_timeout(PATIENCE_MS)
        page = await context.new_page()
        await page.goto("/")
        await page.locator("[name=username]").fill(name)
        await page.locator("[name=password]").fill(PASSWORDS[name])
        await page.locator("[name=password]").press("Enter")
        await page.wait_for_url(demo.url + "/")
        return page

    return open_and_sign_in
