"""Who gets in, who does not, and what each sees: entry by a code, the table of refusals, the proxy's own pages."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import AsyncIterator
from urllib.parse import parse_qsl, quote

import pytest

from launcher.proxy.access_types import Access, Verdict
from launcher.proxy.entrance import MOST_ENTRIES
from tests.integration.proxy_peers import (
    BEGUN,
    CODE,
    COOKIE,
    ENTER,
    ENTRY,
    LABEL,
    OTHER_LABEL,
    Answer,
    Portal,
    Upstream,
    answering,
)

pytestmark = pytest.mark.integration

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

CLEARED = BEGUN.partition(b" ")[2].partition(b"=")[0] + b"=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax"


async def test_a_code_is_exchanged_for_a_cookie_of_this_host_alone(portal: Portal) -> None:
    portal.codes[CODE] = COOKIE
    answer = await portal.ask("GET", f"{ENTER}&next=/lab%3Fx%3D1", BEGUN, cookie="")
    assert answer.status == 303
    assert answer.values(b"location") == [b"/lab?x=1"]
    assert answer.values(b"set-cookie") == [
        b"footbridge=" + COOKIE.encode() + b"; Path=/; HttpOnly; SameSite=Lax",
        CLEARED,
    ]
    assert answer.values(b"referrer-policy") == [b"no-referrer"]
    assert answer.values(b"cache-control") == [b"no-store"]
    assert portal.upstream.requests == []


async def test_a_code_works_once(portal: Portal) -> None:
    portal.codes[CODE] = COOKIE
    await portal.ask("GET", ENTER, BEGUN, cookie="")
    answer = await portal.ask("GET", ENTER, BEGUN, PAGE, cookie="")
    assert answer.status == 403
    assert answer.values(b"set-cookie") == [CLEARED]
    assert b"does not open the session" in answer.body
    assert f'href="http://localhost:{portal.port}/"'.encode() in answer.body


OTHER_ENTRY = "0" * 64


@pytest.mark.parametrize(
    ("fields", "entry"),
    [
        pytest.param((), ENTRY, id="no-nonce"),
        pytest.param((BEGUN.replace(b"=a-nonce", b"=b-nonce"),), ENTRY, id="another-nonce"),
        pytest.param((BEGUN.replace(b"=a-nonce", b"=x-a-nonce"),), ENTRY, id="no-nonce-of-ours"),
        pytest.param((BEGUN.partition(b"=")[0] + b"=",), ENTRY, id="an-empty-nonce"),
        pytest.param((BEGUN,), OTHER_ENTRY, id="the-nonce-of-another-entry"),
        pytest.param((BEGUN,), "", id="no-entry"),
        pytest.param((BEGUN,), "x" * 64, id="no-digest"),
    ],
)
async def test_a_code_works_only_in_the_browser_that_began_and_is_used_up_by_any_other(
    portal: Portal, fields: tuple[bytes, ...], entry: str
) -> None:
    portal.codes[CODE] = COOKIE
    answer = await portal.ask("GET", ENTER.replace(ENTRY, entry), *fields, PAGE, cookie="")
    assert answer.status == 403
    assert b"does not open the session" in answer.body
    assert COOKIE.encode() not in answer.head
    assert portal.codes == {}
    assert [item["cause"] for item in portal.denied] == ["code"]


async def test_a_code_does_not_work_at_another_address(portal: Portal) -> None:
    portal.codes[CODE] = COOKIE
    host = f"{OTHER_LABEL}.localhost:{portal.port}".encode()
    assert (await portal.ask("GET", ENTER, BEGUN, cookie="", host=host)).status == 403


@pytest.mark.parametrize("code", ["", "short", "x" * 500, "%00" * 20, "<script>alert(1)</script>"])
async def test_a_code_of_the_wrong_shape_is_not_looked_up_nor_echoed(portal: Portal, code: str) -> None:
    answer = await portal.ask("GET", f"/.footbridge/enter?code={quote(code, safe='%')}", PAGE, cookie="")
    assert answer.status == 403
    assert answer.values(b"set-cookie") == []
    assert b"alert" not in answer.body


@pytest.mark.parametrize("method", ["HEAD", "POST"])
async def test_only_get_uses_a_code_up(portal: Portal, method: str) -> None:
    portal.codes[CODE] = COOKIE
    assert (await portal.ask(method, ENTER, BEGUN, cookie="")).status == 404
    assert CODE in portal.codes


async def test_while_nothing_can_be_looked_up_the_entry_waits(portal: Portal) -> None:
    portal.database_is_away = True
    answer = await portal.ask("GET", ENTER, BEGUN, PAGE, cookie="")
    assert (answer.status, answer.values(b"set-cookie")) == (503, [])
    assert b'http-equiv="refresh"' in answer.body


ELSEWHERE = [
    "//evil.example", "https://evil.example", "/\\evil.example", "\\evil", "/a\r\nSet-Cookie: x=1", "evil", "",
    "/.footbridge/enter?code=x", "/.footbridge/begin", "/\t/evil.example", "javascript:alert(1)", "/" + "x" * 2048,
    "/" + "你" * 300, "/./.footbridge/begin", "/lab/../.footbridge/begin", "/%2E/.footbridge/begin?x=1",
    "/.//evil.example",
]  # fmt: skip


@pytest.mark.parametrize("goal", ELSEWHERE)
async def test_the_way_on_never_leads_to_another_host(portal: Portal, goal: str) -> None:
    portal.codes[CODE] = COOKIE
    answer = await portal.ask("GET", f"{ENTER}&next={quote(goal)}", BEGUN, cookie="")
    assert answer.values(b"location") == [b"/"]


async def test_the_way_on_may_name_a_file_in_any_script(portal: Portal) -> None:
    for goal in (quote("/lab/tree/你好.ipynb"), quote(quote("/lab/tree/你好.ipynb"))):
        portal.codes[CODE] = COOKIE
        answer = await portal.ask("GET", f"{ENTER}&next={goal}", BEGUN, cookie="")
        assert answer.values(b"location") == [quote("/lab/tree/你好.ipynb").encode()]


# Begin


def sent_to_portal(portal: Portal, answer: Answer) -> dict[str, str]:
    """What a browser that begins is to tell the portal."""
    place, _, query = answer.values(b"location")[0].decode().partition("?")
    assert place == f"http://localhost:{portal.port}/sessions/by-address/{LABEL}/"
    return dict(parse_qsl(query))


def nonce_of(answer: Answer) -> tuple[str, str]:
    """The cookie that a browser gets when it begins: its name and value."""
    cookie = answer.values(b"set-cookie")[0]
    pair, _, attributes = cookie.decode().partition("; ")
    assert attributes == "Path=/; Max-Age=120; HttpOnly; SameSite=Lax"
    name, _, value = pair.partition("=")
    return name, value


def ended_by(answer: Answer) -> list[str]:
    """The cookies of older entries that an answer takes back."""
    cookies = [cookie.decode() for cookie in answer.values(b"set-cookie")[1:]]
    assert all(cookie.endswith("=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax") for cookie in cookies)
    return [cookie.partition("=")[0] for cookie in cookies]


async def test_begin_leaves_a_nonce_with_the_browser_and_tells_the_portal_its_digest(portal: Portal) -> None:
    answer = await portal.ask("GET", "/.footbridge/begin?next=/lab%3Fx%3D1", PAGE, cookie="")
    assert answer.status == 302
    assert answer.values(b"cache-control") == [b"no-store"]
    name, nonce = nonce_of(answer)
    digest = hashlib.sha256(nonce.encode()).hexdigest()
    assert name == f"footbridge-entry-{digest[:16]}"
    assert sent_to_portal(portal, answer) == {"entry": digest, "next": "/lab?x=1"}
    assert nonce.encode() not in answer.values(b"location")[0]
    assert portal.lookups == 0


async def test_each_entry_has_a_nonce_of_its_own(portal: Portal) -> None:
    nonces = {nonce_of(await portal.ask("GET", "/.footbridge/begin", PAGE)) for _ in range(5)}
    assert len(nonces) == 5


async def test_a_browser_that_begins_again_and_again_keeps_a_few_nonces(portal: Portal) -> None:
    jar: dict[str, str] = {}
    for _ in range(30):
        cookies = "; ".join(f"{name}={value}" for name, value in jar.items())
        answer = await portal.ask("GET", "/.footbridge/begin", PAGE, f"Cookie: {cookies}".encode(), cookie="")
        name, nonce = nonce_of(answer)
        jar[name] = nonce
        for ended in ended_by(answer):
            del jar[ended]
        assert sent_to_portal(portal, answer)["entry"] == hashlib.sha256(nonce.encode()).hexdigest()
    assert len(jar) == MOST_ENTRIES


async def test_a_page_that_plants_a_thousand_cookies_gets_no_long_answer(portal: Portal) -> None:
    planted = "; ".join(f"footbridge-entry-{number:016x}=x" for number in range(1000))
    answer = await portal.ask("GET", "/.footbridge/begin", PAGE, f"Cookie: {planted}".encode(), cookie="")
    assert ended_by(answer) == [f"footbridge-entry-{number:016x}" for number in range(MOST_ENTRIES)]
    assert len(answer.head) < 4096


async def test_no_nonce_is_one_that_a_page_has_planted(portal: Portal) -> None:
    known = "k" * 43
    planted = "; ".join(f"footbridge-entry-{number:016x}={known}" for number in range(MOST_ENTRIES))
    answer = await portal.ask("GET", "/.footbridge/begin", PAGE, f"Cookie: {planted}".encode(), cookie="")
    assert sent_to_portal(portal, answer)["entry"] != hashlib.sha256(known.encode()).hexdigest()


async def test_cookies_that_only_look_like_an_entrys_are_left_alone(portal: Portal) -> None:
    planted = "; ".join(f"footbridge-entry-é{number}=x" for number in range(MOST_ENTRIES))
    answer = await portal.ask("GET", "/.footbridge/begin", PAGE, f"Cookie: {planted}".encode("latin-1"), cookie="")
    assert nonce_of(answer)
    assert ended_by(answer) == []


@pytest.mark.parametrize("goal", ELSEWHERE)
async def test_a_goal_that_leads_elsewhere_is_left_behind_at_the_beginning(portal: Portal, goal: str) -> None:
    answer = await portal.ask("GET", f"/.footbridge/begin?next={quote(goal)}", PAGE, cookie="")
    assert list(sent_to_portal(portal, answer)) == ["entry"]


@pytest.mark.parametrize("method", ["HEAD", "POST", "OPTIONS"])
async def test_only_get_begins(portal: Portal, method: str) -> None:
    answer = await portal.ask(method, "/.footbridge/begin", PAGE, cookie="")
    assert (answer.status, answer.values(b"set-cookie")) == (404, [])


@pytest.mark.parametrize("target", ["/.footbridge/begin", ENTER])
async def test_a_frame_or_a_picture_of_another_site_neither_begins_nor_enters(portal: Portal, target: str) -> None:
    portal.codes[CODE] = COOKIE
    for mode, goal in ((b"navigate", b"iframe"), (b"no-cors", b"image"), (b"cors", b"empty")):
        fields = (b"Sec-Fetch-Site: cross-site", b"Sec-Fetch-Mode: " + mode, b"Sec-Fetch-Dest: " + goal)
        answer = await portal.ask("GET", target, BEGUN, *fields, cookie="")
        assert (answer.status, answer.values(b"set-cookie")) == (404, [])
    assert CODE in portal.codes


AHEAD = [b"Sec-Purpose: prefetch", b"Sec-Purpose: prefetch;prerender", b"Purpose: prefetch", b"X-Moz: prefetch"]


@pytest.mark.parametrize("purpose", AHEAD)
@pytest.mark.parametrize("target", ["/.footbridge/begin", ENTER, "/lab"])
async def test_a_browser_that_loads_ahead_of_its_person_neither_begins_nor_enters(
    portal: Portal, target: str, purpose: bytes
) -> None:
    portal.codes[CODE] = COOKIE
    fields = (b"Sec-Fetch-Site: none", b"Sec-Fetch-Mode: navigate", b"Sec-Fetch-Dest: document", purpose)
    answer = await portal.ask("GET", target, BEGUN, *fields, PAGE, cookie="")
    assert (answer.status, answer.values(b"set-cookie")) == (404, [])
    assert CODE in portal.codes


async def test_a_page_that_is_loaded_ahead_comes_from_the_server_as_ever(portal: Portal) -> None:
    assert (await portal.ask("GET", "/lab", AHEAD[0], PAGE)).status == 200


async def test_a_nonce_never_reaches_the_server_in_the_job(portal: Portal) -> None:
    cookies = BEGUN + b"; a=1; footbridge=" + COOKIE.encode()
    answer = await portal.ask("GET", "/lab", cookies, cookie="")
    assert answer.status == 200
    assert portal.upstream.requests[0].values(b"cookie") == [b"a=1"]


async def test_a_server_in_a_job_sets_no_nonce(portal: Portal) -> None:
    portal.upstream.handler = answering(
        b"HTTP/1.1 200 OK\r\nSet-Cookie: " + BEGUN[8:] + b"\r\nSet-Cookie: a=1\r\nContent-Length: 0\r\n\r\n"
    )
    assert (await portal.ask("GET", "/lab")).values(b"set-cookie") == [b"a=1"]


async def test_our_own_paths_never_reach_the_server(portal: Portal) -> None:
    assert (await portal.ask("GET", "/.footbridge/anything")).status == 404
    assert portal.upstream.requests == []


# Without permission


async def test_a_stranger_who_opens_a_page_is_sent_to_the_portal(portal: Portal) -> None:
    answer = await portal.ask("GET", "/lab?x=1", PAGE, cookie="")
    assert answer.status == 302
    digest = hashlib.sha256(nonce_of(answer)[1].encode()).hexdigest()
    assert sent_to_portal(portal, answer) == {"entry": digest, "next": "/lab?x=1"}


def _plain(head: bytes) -> bytes:
    """A head without what is random in it."""
    return re.sub(rb"(entry[=-])[0-9a-f]+(=[A-Za-z0-9_-]+)?", rb"\1", head)


async def test_an_address_that_does_not_exist_looks_like_one_that_does(portal: Portal) -> None:
    host = f"{OTHER_LABEL}.localhost:{portal.port}".encode()
    for fields in ((PAGE,), (b"Accept: */*",)):
        known = await portal.ask("GET", "/lab", *fields, cookie="")
        unknown = await portal.ask("GET", "/lab", *fields, cookie="", host=host)
        assert (known.status, known.body) == (unknown.status, unknown.body)
        assert _plain(known.head.replace(LABEL.encode(), OTHER_LABEL.encode())) == _plain(unknown.head)


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_a_program_without_permission_gets_404(portal: Portal, method: str) -> None:
    assert (await portal.ask(method, "/api/contents", cookie="guessed")).status == 404
    assert portal.upstream.requests == []


@pytest.mark.parametrize(("method", "label"), [("GET", LABEL), ("POST", LABEL), ("GET", "z" * 24)])
async def test_a_page_that_was_left_open_gets_403(portal: Portal, method: str, label: str) -> None:
    """JupyterLab takes a 404 for the end of its folder, and asks for the one above: again and again."""
    fields = (b"Sec-Fetch-Site: same-origin", b"Sec-Fetch-Mode: cors")
    host = f"{label}.localhost:{portal.port}".encode()
    answer = await portal.ask(method, "/api/contents", *fields, cookie="expired", host=host)
    assert (answer.status, json.loads(answer.body)["error"]) == (403, "no_entry")
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
