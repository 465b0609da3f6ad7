"""Fixtures of the browser tests.

demo       the whole portal as ``make demo`` starts it: every process, a real cluster, its own folder and free ports
browser    Debian's Chromium; skipped with the reason where it is not installed
person     opens a browser of its own for a person and signs them in
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, async_playwright

from launcher.demo import ports
from launcher.demo.folder import DemoFolder, Running
from launcher.democluster.settings import DEFAULT_ACCOUNTS
from portal.conf import PROJECT
from tests.conftest import wait_for

PASSWORDS = {account.name: account.password for account in DEFAULT_ACCOUNTS}

Person = Callable[..., Awaitable[Page]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test here drives a browser, and may take longer than others."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(300))


@pytest.fixture(scope="session")
def demo() -> Iterator[Running]:
    """A running demo."""
    root = Path(tempfile.mkdtemp(prefix="fb-e2e-"))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PORTAL_")} | {
        "PORTAL_DATA_FOLDER": str(root),
        "PORTAL_PORT": str(ports.free_port()),
        "PORTAL_DEMO_CLUSTER_PORT": "0",
        "DJANGO_SETTINGS_MODULE": "portal.settings",
    }
    with (root / "start.log").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, str(PROJECT / "manage.py"), "demo", "--end-with-parent"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    folder = DemoFolder(root)
    try:
        wait_for(
            lambda: folder.running() or process.poll() is not None,
            seconds=120,
            what=lambda: "the demo to start:\n" + (root / "start.log").read_text("utf-8", "replace"),
        )
        running = folder.running()
        assert running is not None, (root / "start.log").read_text("utf-8", "replace")
        yield running
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        shutil.rmtree(root, ignore_errors=True)


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
        page = await context.new_page()
        await page.goto("/")
        await page.locator("[name=username]").fill(name)
        await page.locator("[name=password]").fill(PASSWORDS[name])
        await page.locator("[name=password]").press("Enter")
        await page.wait_for_url(demo.url + "/")
        return page

    return open_and_sign_in
