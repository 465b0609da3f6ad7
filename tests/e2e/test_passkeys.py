"""Passkeys by real WebAuthn: Chromium's own authenticator, made of software, in place of a key in the hand."""

from __future__ import annotations

import json

from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Page, expect

from launcher.demo.folder import Running
from tests.demo_process import StartedDemo
from tests.e2e.conftest import PASSWORDS, Person
from tests.e2e.test_accessibility import RULES


async def with_authenticator(page: Page) -> None:
    """Plug a security key in."""
    session = await page.context.new_cdp_session(page)
    await session.send("WebAuthn.enable")
    options = {
        "protocol": "ctap2",
        "transport": "usb",
        "hasResidentKey": False,
        "hasUserVerification": True,
        "isUserVerified": True,
    }
    await session.send("WebAuthn.addVirtualAuthenticator", {"options": options})


async def violations(page: Page) -> list[str]:
    found = await Axe().run(page, options=RULES)
    return [f"{page.url}: {rule['id']}: {rule['nodes'][0]['html']}" for rule in found.response["violations"]]


async def sign_in(page: Page, name: str) -> None:
    """Name and password, as far as they lead."""
    await page.goto("/sign-in/")
    await page.locator("[name=username]").fill(name)
    await page.locator("[name=password]").fill(PASSWORDS[name])
    await page.locator("[name=password]").press("Enter")


async def test_a_passkey_is_made_signs_in_proves_again_and_is_removed(
    demo: Running, started: StartedDemo, person: Person
) -> None:
    page = await person("bob")
    await with_authenticator(page)
    found = []
    try:
        await page.goto("/profile/second-steps/app/")
        found += await violations(page)
        await page.goto("/profile/second-steps/passkey/")
        found += await violations(page)
        await page.get_by_label("Name, to tell it from others").fill("Yellow key")
        await page.get_by_role("button", name="Make the passkey").click()
        await expect(page.get_by_role("heading", name="Recovery codes")).to_be_visible()
        found += await violations(page)
        await page.get_by_role("link", name="I have kept them").click()
        await expect(page.locator("#second-steps")).to_contain_text("Yellow key")
        found += await violations(page)

        await page.evaluate("document.querySelector('form[action=\"/sign-out/\"]').requestSubmit()")
        await page.wait_for_url("**/sign-in/")
        await sign_in(page, "bob")
        await page.wait_for_url("**/sign-in/second-step/")
        found += await violations(page)
        await page.get_by_role("button", name="Use a passkey").click()
        await page.wait_for_url(demo.url + "/")

        await page.goto("/confirm/?next=/profile/")
        found += await violations(page)
        await page.get_by_role("button", name="Use a passkey").click()
        await page.wait_for_url("**/profile/")
        await page.get_by_role("button", name="Remove Yellow key").click()
        await expect(page.locator("#second-steps")).not_to_contain_text("Yellow key")
    finally:
        started.manage("resetfactor", "bob")
    assert found == []


async def test_an_answer_made_for_another_origin_is_refused(
    demo: Running, started: StartedDemo, person: Person, browser: Browser
) -> None:
    """A notebook's page at a subdomain may ask for passkeys of the parent; what it gets must be of no use."""
    page = await person("bob")
    await with_authenticator(page)
    await page.goto("/profile/second-steps/passkey/")
    form = page.locator("form[data-passkey]")
    options = json.loads(await form.get_attribute("data-options") or "")
    client_data = {"type": "webauthn.create", "challenge": options["challenge"]}
    await page.evaluate(
        """async (clientData) => {
          const create = navigator.credentials.create.bind(navigator.credentials);
          navigator.credentials.create = async (asked) => {
            const made = await create(asked);
            const answer = { id: made.id, rawId: made.rawId, type: made.type };
            const text = JSON.stringify({ ...clientData, origin: location.origin.replace("//", "//evil.") });
            answer.response = {
              clientDataJSON: new TextEncoder().encode(text).buffer,
              attestationObject: made.response.attestationObject,
            };
            return answer;
          };
        }""",
        client_data,
    )
    await page.get_by_role("button", name="Make the passkey").click()
    await expect(page.get_by_role("alert").first).to_contain_text("could not be checked")
    await page.goto("/profile/")
    assert await page.locator("#second-steps table").count() == 0
