"""Connecting one's account in a browser, on a cluster that knows passwords alone, and every page of it under axe.

The portal runs in this process: the demo's own cluster takes certificates, and nothing is connected there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest
from django.conf import settings
from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.test.testcases import LiveServerThread
from playwright.async_api import Browser, Page, expect

from launcher import parts
from portal.accounts.models import User
from tests.conftest import RunningCluster, _signed_in
from tests.e2e.test_accessibility import LOOKS, violations
from tests.settings import FOLDER

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def portal(demo_cluster: RunningCluster, site: Callable[..., None]) -> Iterator[str]:
    """A portal with this cluster, into which nobody signs in with the cluster's password."""
    (FOLDER / "clusters.toml").write_text(demo_cluster.toml(credential="password"), encoding="utf-8")
    parts.forget()
    site(auth=("openid",))
    server = LiveServerThread("127.0.0.1", StaticFilesHandler)
    server.daemon = True
    server.start()
    assert server.is_ready.wait(60)
    assert server.error is None
    yield f"http://127.0.0.1:{server.port}"
    server.terminate()
    parts.hands_loop().run(parts.hands().pool.close_user("demo", "alice"), 60)
    parts.forget()


@pytest.fixture
def key(alice: User) -> str:
    """The key of a web session in which alice is signed in."""
    return _signed_in(alice).session.session_key or ""


@asynccontextmanager
async def signed_in(browser: Browser, portal: str, key: str, scheme: str, width: int) -> AsyncIterator[Page]:
    context = await browser.new_context(
        base_url=portal,
        color_scheme=scheme,
        viewport={"width": width, "height": 900},  # type: ignore[arg-type]  # a name of Playwright's
    )
    await context.add_cookies([{"name": settings.SESSION_COOKIE_NAME, "value": key, "url": portal}])
    yield await context.new_page()
    await context.close()


@pytest.mark.parametrize(("scheme", "width"), LOOKS)
async def test_who_cannot_launch_yet_is_led_to_connect_and_back(
    portal: str, key: str, demo_cluster: RunningCluster, browser: Browser, scheme: str, width: int
) -> None:
    async with signed_in(browser, portal, key, scheme, width) as page:
        found = []
        for path in ("/", "/profile/", "/launch/jupyter/"):
            await page.goto(path)
            found += await violations(page)
        pointer = page.get_by_role("link", name="Connect your cluster account")
        await pointer.click()
        for password in ("wrong", demo_cluster.password("alice")):
            await page.get_by_label("Password on the cluster").wait_for()  # the page is there, then look at it
            found += await violations(page)
            await page.get_by_label("Password on the cluster").fill(password)
            await page.get_by_role("button", name="Connect account").click()
            if password == "wrong":
                await expect(page.get_by_role("alert")).to_contain_text("did not accept this password")
        await page.wait_for_url(portal + "/launch/jupyter/")
        await expect(pointer).to_have_count(0)
        await page.goto("/profile/")
        await expect(page.get_by_text("Connected", exact=True)).to_be_visible()
        found += await violations(page)
        wide = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert found == []
    assert wide == 0
