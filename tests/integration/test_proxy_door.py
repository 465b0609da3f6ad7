"""Who gets in, who does not, and what each sees: entry by a code, the table of refusals, the proxy's own pages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import quote

import pytest

from launcher.proxy.access_types import Access, Verdict
from tests.integration.proxy_peers import COOKIE, LABEL, OTHER_LABEL, Portal, Upstream

pytestmark = pytest.mark.integration

CODE = "a-code-of-one-use-0123456789"
PAGE = b"Accept: text/html,application/xhtml+xml"


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream().running() as server:
        yield server


@pytest.fixture
async def portal(upstream: Upstream) -> AsyncIterator[Portal]:
    async with Portal(upstream).running() as portal:
        yield portal


# Entry


async def test_a_code_is_exchanged_for_a_cookie_of_this_host_alone(portal: Portal) -> None:
    portal.codes[CODE] = COOKIE
    answer = await portal.ask("GET", f"/.footbridge/enter?code={CODE}&next=/lab%3Fx%3D1", cookie="")
    assert answer.status == 303
    assert answer.values(b"location") == [b"/lab?x=1"]
    assert answer.values(b"set-cookie") == [b"footbridge=" + COOKIE.encode() + b"; Path=/; HttpOnly; SameSite=Lax"]
    assert answer.values(b"referrer-policy") == [b"no-referrer"]
    assert answer.values(b"cache-control") == [b"no-store"]
    assert portal.upstream.requests == []


async def test_a_code_works_once(portal: Portal) -> None:
    portal.codes[CODE] = COOKIE
    await portal.ask("GET", f"/.footbridge/enter?code={CODE}", cookie="")
    answer = await portal.ask("GET", f"/.footbridge/enter?code={CODE}", PAGE, cookie="")
    assert answer.status == 403
    assert answer.values(b"set-cookie") == []
    assert b"has been used" in answer.body
    assert f'href="http://localhost:{portal.port}/"'.encode() in answer.body


async def test_a_code_does_not_work_at_another_address(portal: Portal) -> None:
    portal.codes[CODE] = COOKIE
    host = f"{OTHER_LABEL}.localhost:{portal.port}".encode()
    assert (await portal.ask("GET", f"/.footbridge/enter?code={CODE}", cookie="", host=host)).status == 403


@pytest.mark.parametrize("code", ["", "short", "x" * 500, "%00" * 20, "<script>alert(1)</script>"])
async def test_a_code_of_the_wrong_shape_is_not_looked_up_nor_echoed(portal: Portal, code: str) -> None:
    answer = await portal.ask("GET", f"/.footbridge/enter?code={quote(code, safe='%')}", PAGE, cookie="")
    assert answer.status == 403
    assert b"alert" not in answer.body


@pytest.mark.parametrize("method", ["HEAD", "POST"])
async def test_only_get_uses_a_code_up(portal: Portal, method: str) -> None:
    portal.codes[CODE] = COOKIE
    assert (await portal.ask(method, f"/.footbridge/enter?code={CODE}", cookie="")).status == 404
    assert CODE in portal.codes


@pytest.mark.parametrize(
    "goal",
    ["//evil.example", "https://evil.example", "/\\evil.example", "\\evil", "/a\r\nSet-Cookie: x=1", "evil", "",
     "/.footbridge/enter?code=x", "/\t/evil.example", "javascript:alert(1)"],
)  # fmt: skip
async def test_the_way_on_never_leads_to_another_host(portal: Portal, goal: str) -> None:
    portal.codes[CODE] = COOKIE
    answer = await portal.ask("GET", f"/.footbridge/enter?code={CODE}&next={quote(goal)}", cookie="")
    assert answer.values(b"location") == [b"/"]


async def test_the_way_on_may_name_a_file_in_any_script(portal: Portal) -> None:
    portal.codes[CODE] = COOKIE
    goal = quote("/lab/tree/你好.ipynb")
    answer = await portal.ask("GET", f"/.footbridge/enter?code={CODE}&next={quote(goal)}", cookie="")
    assert answer.values(b"location") == [goal.encode()]
    portal.codes[CODE] = COOKIE
    answer = await portal.ask("GET", f"/.footbridge/enter?code={CODE}&next={goal}", cookie="")
    assert answer.values(b"location") == [goal.encode()]


async def test_our_own_paths_never_reach_the_server(portal: Portal) -> None:
    assert (await portal.ask("GET", "/.footbridge/anything")).status == 404
    assert portal.upstream.requests == []


# Without permission


async def test_a_stranger_who_opens_a_page_is_sent_to_the_portal(portal: Portal) -> None:
    answer = await portal.ask("GET", "/lab", PAGE, cookie="")
    assert answer.status == 302
    assert answer.values(b"location") == [
        f"http://localhost:{portal.port}/sessions/by-address/{LABEL}/?next=%2Flab".encode()
    ]


async def test_an_address_that_does_not_exist_looks_like_one_that_does(portal: Portal) -> None:
    host = f"{OTHER_LABEL}.localhost:{portal.port}".encode()
    for fields in ((PAGE,), (b"Accept: */*",)):
        known = await portal.ask("GET", "/lab", *fields, cookie="")
        unknown = await portal.ask("GET", "/lab", *fields, cookie="", host=host)
        assert (known.status, known.body) == (unknown.status, unknown.body)
        assert known.head.replace(LABEL.encode(), OTHER_LABEL.encode()) == unknown.head


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_a_program_without_permission_gets_404(portal: Portal, method: str) -> None:
    assert (await portal.ask(method, "/api/contents", cookie="guessed")).status == 404
    assert portal.upstream.requests == []


async def test_a_forbidden_visitor_gets_the_page_for_nothing_and_is_reported_once(portal: Portal) -> None:
    portal.access[LABEL, "bobs"] = Access(Verdict.FORBIDDEN, session_id="session-1", username="bob")
    for _ in range(5):
        answer = await portal.ask("GET", "/lab", PAGE, cookie="bobs")
        assert answer.status == 404
        assert b"session-1" not in answer.body
    assert portal.denied == [
        {
            "session_id": "session-1",
            "username": "bob",
            "door": "http",
            "cause": "forbidden",
            "address": "127.0.0.1",
        }
    ]


async def test_a_session_that_is_not_ready_has_a_page_that_waits(portal: Portal) -> None:
    portal.access[LABEL, COOKIE] = Access(Verdict.NOT_READY, session_id="session-1", state="queued")
    answer = await portal.ask("GET", "/lab", PAGE)
    assert (answer.status, answer.values(b"retry-after")) == (503, [b"3"])
    assert b'http-equiv="refresh" content="3"' in answer.body
    assert f'href="http://localhost:{portal.port}/sessions/session-1/"'.encode() in answer.body


async def test_a_session_that_has_ended_says_so_to_people_and_programs(portal: Portal) -> None:
    portal.access[LABEL, COOKIE] = Access(Verdict.ENDED, session_id="session-1", state="ended")
    page = await portal.ask("GET", "/lab", PAGE)
    assert page.status == 410
    assert b"has ended" in page.body
    assert b"/sessions/session-1/" in page.body
    program = await portal.ask("GET", "/api/sessions", b"Accept: application/json")
    assert (program.status, program.values(b"retry-after")) == (503, [b"60"])
    assert program.body == b'{"error": "ended", "message": "This session has ended"}'


async def test_a_database_that_is_away_lets_nobody_in(portal: Portal) -> None:
    portal.database_is_away = True
    assert (await portal.ask("GET", "/lab", PAGE)).status == 503
    assert portal.upstream.requests == []


async def test_pages_allow_no_script_and_no_frame(portal: Portal) -> None:
    portal.access[LABEL, COOKIE] = Access(Verdict.ENDED, session_id="session-1")
    answer = await portal.ask("GET", "/<script>alert(1)</script>?<b>", PAGE)
    policy = answer.values(b"content-security-policy")[0]
    assert b"default-src 'none'" in policy
    assert b"frame-ancestors 'none'" in policy
    assert b"script-src" not in policy
    assert b"alert" not in answer.body


# Other origins

SIBLING = b"Origin: http://xwvutsrqponmlkjihgfedcba.localhost"


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param((b"Origin: http://evil.example",), id="other-origin"),
        pytest.param((SIBLING,), id="sibling"),
        pytest.param((b"Origin: null",), id="null"),
        pytest.param((b"Origin:",), id="empty"),
        pytest.param((b"Sec-Fetch-Site: cross-site",), id="marked-cross-site"),
        pytest.param((b"Sec-Fetch-Site: same-site",), id="marked-same-site"),
        pytest.param((b"Origin: null", b"Sec-Fetch-Site: cross-site"), id="sandboxed-frame"),
    ],
)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_a_change_asked_for_by_another_origin_is_refused(
    portal: Portal, method: str, fields: tuple[bytes, ...]
) -> None:
    answer = await portal.ask(method, "/api/kernels", *fields)
    assert answer.status == 403
    assert portal.upstream.requests == []
    assert len(portal.denied) == 1


async def test_a_change_without_any_origin_is_refused(portal: Portal) -> None:
    raw = await portal.connect()
    raw.writer.write(portal.head("POST", "/api/kernels").replace(b"Origin: " + portal.origin + b"\r\n", b""))
    assert (await raw.answer()).status == 403
    await raw.close()
    assert portal.upstream.requests == []


@pytest.mark.parametrize("origin", [b"", b"Origin: null"])
async def test_a_browsers_own_word_stands_in_for_an_origin_it_withholds(portal: Portal, origin: bytes) -> None:
    raw = await portal.connect()
    head = portal.head("POST", "/api/kernels", b"Sec-Fetch-Site: same-origin")
    raw.writer.write(head.replace(b"Origin: " + portal.origin, origin or b"X-Nothing: 1"))
    assert (await raw.answer()).status == 200
    await raw.close()


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        pytest.param((b"cross-site", b"navigate", b"document"), 200, id="a-link-in-a-tab"),
        pytest.param((b"none", b"navigate", b"document"), 200, id="the-address-bar"),
        pytest.param((b"same-origin", b"cors", b"empty"), 200, id="own-fetch"),
        pytest.param((b"cross-site", b"navigate", b"iframe"), 403, id="a-frame-elsewhere"),
        pytest.param((b"cross-site", b"no-cors", b"image"), 403, id="an-image-elsewhere"),
        pytest.param((b"cross-site", b"no-cors", b"script"), 403, id="a-script-elsewhere"),
        pytest.param((b"same-site", b"cors", b"empty"), 403, id="a-siblings-fetch"),
    ],
)
async def test_what_another_site_may_load(portal: Portal, fields: tuple[bytes, bytes, bytes], status: int) -> None:
    site, mode, goal = fields
    answer = await portal.ask(
        "GET", "/lab", b"Sec-Fetch-Site: " + site, b"Sec-Fetch-Mode: " + mode, b"Sec-Fetch-Dest: " + goal
    )
    assert answer.status == status


async def test_a_refusal_is_the_same_for_everybody_else(portal: Portal) -> None:
    answer = await portal.ask("POST", "/api/kernels", b"Origin: http://evil.example", cookie="")
    assert answer.status == 403
    assert portal.upstream.requests == []
    assert [item["username"] for item in portal.denied] == [""]


# The cache


async def test_a_warm_answer_asks_the_database_nothing(portal: Portal) -> None:
    for _ in range(10):
        await portal.ask("GET", "/")
    assert portal.lookups == 1


async def test_a_dropped_answer_is_asked_for_again(portal: Portal) -> None:
    assert (await portal.ask("GET", "/")).status == 200
    portal.access[LABEL, COOKIE] = Access(Verdict.SIGN_IN, session_id="session-1")
    portal.proxy.drop(session_id="session-1")
    assert (await portal.ask("GET", "/")).status == 404
