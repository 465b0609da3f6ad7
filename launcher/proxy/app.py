"""The door to every session's address (``sites``): an ASGI application for what is asked for there.

It decides what may pass and where to (the cookie, the origin, the path), and leaves the carrying to a lane: ``http``
and ``websocket`` here, by ASGI events. The target always comes from the access answer, never from the request. What is
refused though its cookie is good, is said in ``foreign``.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Protocol

from launcher.proxy import http, pages, websocket
from launcher.proxy.access import AccessCache
from launcher.proxy.access_types import Access, Target, Verdict
from launcher.proxy.denials import WRONG_HOST, Denials, Denied, cause_of
from launcher.proxy.entrance import Entrance, query_of
from launcher.proxy.errors import AccessEnded, UpstreamError
from launcher.proxy.fast import pump, tunnel
from launcher.proxy.fast.direct import Direct
from launcher.proxy.fast.lookout import Lookout
from launcher.proxy.foreign import is_ahead, is_of_own_page, why_foreign
from launcher.proxy.guesses import Guesses
from launcher.proxy.headers import BadHead
from launcher.proxy.limits import USUAL, Ceilings, InFlight
from launcher.proxy.moments import Moments
from launcher.proxy.next_page import wanted
from launcher.proxy.outgoing import request_of
from launcher.proxy.pages import Notice, Page
from launcher.proxy.plan import Plan
from launcher.proxy.reading import Reader, Reading
from launcher.proxy.sites import OWN_PATHS, Site
from launcher.proxy.upstream import UpstreamPool
from launcher.proxy.visit import UNDECIDED, Receive, Scope, Send, Visit
from portal.sparselog import SparseLog

log = logging.getLogger(__name__)
refusals = SparseLog(log)

_NEVER = frozenset(("TRACE", "TRACK", "CONNECT"))  # TRACE would show the secret to the page that asks


class Grant(Protocol):
    """What a one-time code is exchanged for."""

    @property
    def cookie_value(self) -> str: ...


class Redeem(Protocol):
    """Exchanges a one-time code; ``None`` when it is unknown, used, late, for another session or for another nonce."""

    async def __call__(self, *, label: str, code: str, nonce: str) -> Grant | None: ...


class Proxy:
    """The application. Belongs to one event loop."""

    def __init__(
        self,
        *,
        site: Site,
        access: AccessCache,
        upstreams: UpstreamPool,
        redeem: Redeem,
        denied: Denied,
        ceilings: Ceilings = USUAL,
        uses_fast_lane: bool = True,
    ) -> None:
        self.access = access
        self.upstreams = upstreams
        self.in_flight = InFlight(ceilings)
        self._site = site
        self._uses_fast_lane = uses_fast_lane
        self._lookout = Lookout(access, upstreams)
        self._redeem = redeem
        self._entrance = Entrance(site)
        self._denials = Denials(denied)
        self._guesses = Guesses()
        self._reader = Reader(site)
        self._moments = Moments(http.Watch.outlast)

    @property
    def is_busy(self) -> bool:
        """Whether a request or WebSocket is under way, in whatever lane."""
        return len(self.in_flight) > 0

    def matches(self, scope: Scope) -> bool:
        """Whether this request is for a session's address."""
        return self._reader.knows(scope)

    def drop(self, *, session_id: str = "", user_id: int | None = None) -> None:
        """Something about a session or a person's rights has changed: ask again, also for what is open."""
        self.access.drop(session_id=session_id, user_id=user_id)
        self._reader.forget()  # heads with a session's secret are no longer needed, or soon made again
        if session_id:
            self.upstreams.drop(session_id)

    async def aclose(self) -> None:
        """Close everything; for the end of the process."""
        await self.access.aclose()
        await self.upstreams.aclose()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request or WebSocket handshake."""
        reading = self._reader.read(scope)
        if scope["type"] == "websocket":
            await receive()  # the connect event
        elif (plan := self._reader.plans.find(reading, scope)) is not None and self._may_pass(plan):
            await self._pass(plan.visit_with(scope), receive, send, plan=plan)
            return
        visit = reading.visit_of(scope)
        if not visit.label:
            await self._denials.tell(visit, UNDECIDED, WRONG_HOST)
            await self._say(visit, send, pages.NOT_FOUND)
            return
        page = await self._decide(visit)
        if page is not None:
            await self._answer(visit, send, page)
            return
        if scope["type"] == "http":
            self._reader.plan_for(reading, scope)
        await self._pass(visit, receive, send)

    def at_once(self, scope: Scope, offer: pump.Offer) -> bool:
        """Begin to answer a request without a body, if nothing has to be waited for; see ``fast.direct``.

        Returns whether that was done; if not, nothing was, and the request is one for ``__call__``.
        """
        whole = offer.whole
        if whole is None or not self._uses_fast_lane:
            return False
        plan = whole.memo
        if not isinstance(plan, Plan):
            reading = whole.block.memo
            if not isinstance(reading, Reading):
                reading = self._reader.read(scope)
                if reading.place.origin.path != b"/":  # then it is the path that says which session is meant
                    return False
                whole.block.memo = reading
            plan = whole.memo = Plan(reading.visit_of(scope))
        if not self._may_pass(plan) or not self.in_flight.enter_again(plan.ticket):
            return False
        connection = self.upstreams.kept_for(plan.key)
        if connection is None:
            plan.leave()
            return False
        method: str = scope["method"]
        Direct(
            connection, plan.visit, offer, request_of(plan.visit), head_only=method == "HEAD", over=plan.leave
        ).begin(method, pool=self.upstreams, lookout=self._lookout, after=self._after)
        return True

    def _may_pass(self, plan: Plan) -> bool:
        """Whether a request goes on to its target, as far as is known without waiting."""
        known = self.access.cached(plan.visit.label, plan.visit.cookie)
        return known is not None and (plan.access is known or self._decide_again(plan, known))

    def _decide_again(self, plan: Plan, known: Access) -> bool:
        """Decide on a request by this answer about permission. Returns whether it may go on to its target."""
        plan.access = None
        plan.visit = visit = replace(plan.visit, access=known, request=None)
        if known.target is None or not self._passes(visit):
            return False
        try:
            visit.request = request_of(visit)
        except BadHead:
            return False
        self._fill(plan, known, known.target)
        return True

    def _fill(self, plan: Plan, known: Access, target: Target, *, is_socket: bool = False) -> None:
        """Set the rest of a plan."""
        plan.ticket = self.in_flight.ticket(session_id=known.session_id, person=known.user_id, is_socket=is_socket)
        plan.leave = partial(self.in_flight.leave, plan.ticket)
        plan.key = self.upstreams.key_of(known.session_id, target)
        plan.access = known

    def _after(self, failed: pump.Relay, offer: pump.Offer) -> Callable[..., Awaitable[None]]:
        """The application that goes on where a request that began at once has failed."""

        async def carry_on(scope: Scope, receive: Receive, send: Send) -> None:
            scope["extensions"] = {pump.EXTENSION: offer}
            await self._pass(replace(failed.visit, scope=scope), receive, send, failed=failed)

        return carry_on

    async def _pass(
        self,
        visit: Visit,
        receive: Receive,
        send: Send,
        *,
        plan: Plan | None = None,
        failed: pump.Relay | None = None,
    ) -> None:
        """Let a visit go on to its target. ``failed`` is an attempt that has been made."""
        scope = visit.scope
        known = visit.access
        assert known.target is not None
        is_socket = scope["type"] == "websocket"
        if plan is None:
            plan = Plan(visit)
            self._fill(plan, known, known.target, is_socket=is_socket)
        if self.upstreams.refuses(plan.key):  # the storm at a dead server costs no dial
            await self._say(visit, send, pages.UNREACHABLE)
            return
        if not self.in_flight.enter_again(plan.ticket):
            refusals.note(f"Session {known.session_id}: {known.username} has too much under way")
            await self._say(visit, send, pages.TOO_MANY)
            return
        leave: Callable[[], None] | None = plan.leave
        offers = scope.get("extensions") or {}
        if not is_socket:
            scope["extensions"] = {}  # the offer knows its scope: a cycle for the garbage collector otherwise
        try:
            tunnel_offer, pump_offer = offers.get(tunnel.EXTENSION), offers.get(pump.EXTENSION)
            if is_socket and tunnel_offer is not None and self._uses_fast_lane:
                done, leave = plan.leave, None
                try:
                    await tunnel.forward(
                        visit, tunnel_offer, receive, send, pool=self.upstreams, access=self.access, done=done
                    )
                except BaseException:
                    leave = done
                    raise
            elif is_socket:
                await websocket.forward(visit, receive, send, pool=self.upstreams, access=self.access)
            elif pump_offer is not None and self._uses_fast_lane:
                await pump.forward(visit, pump_offer, pool=self.upstreams, lookout=self._lookout, failed=failed)
            else:
                await http.forward(
                    visit,
                    receive,
                    send,
                    pool=self.upstreams,
                    access=self.access,
                    moments=self._moments,
                    break_off=_nothing if pump_offer is None else pump_offer.break_off,
                )
        except BadHead as error:
            refusals.note(f"Refused: {error}")
            await self._say(visit, send, pages.BROKEN if error.status == 502 else pages.bad_request(error.status))
        except AccessEnded:
            await self._say(visit, send, _no_entry(visit))
        except UpstreamError as error:
            refusals.note(f"Session {visit.access.session_id}: {error.detail}")
            await self._say(visit, send, pages.notice_for(error))
        finally:
            if leave is not None:
                leave()

    # Deciding

    async def _decide(self, visit: Visit) -> Page | None:
        """``None`` when the visit may go on to its target, otherwise the answer."""
        access = self.access.cached(visit.label, visit.cookie)
        if access is not None:
            visit.access = access
            if self._passes(visit):
                return None
        path = visit.raw_path
        is_socket = visit.scope["type"] == "websocket"
        method = "GET" if is_socket else visit.scope["method"]
        if method in _NEVER:
            return self._page(visit, pages.METHOD)
        cause = why_foreign(visit, method, is_socket)
        own = visit.origin.path + OWN_PATHS
        if path.startswith(own):
            if method != "GET" or is_socket or cause or is_ahead(visit.fields):
                return self._page(visit, pages.NOT_FOUND)
            if path == own + b"begin":
                return self._entrance.begin(visit, query_of(visit).get("next", ""))
            if path == own + b"enter":
                return await self._enter(visit)
            return self._page(visit, pages.NOT_FOUND)
        if access is None:
            is_new = not self.access.has_met(visit.label, visit.cookie)
            if is_new and self._guesses.refuses(visit.client):
                return self._page(visit, pages.TOO_MANY)
            try:
                access = await self.access.look_up(visit.label, visit.cookie)
            except Exception as error:
                refusals.note(f"Access could not be looked up: {type(error).__name__}")
                return self._page(visit, pages.UNSURE)
            if is_new and access.verdict in (Verdict.SIGN_IN, Verdict.UNKNOWN):
                self._guesses.count(visit.client)
        visit.access = access
        if cause:
            await self._denials.tell(visit, access, cause)
            return self._page(visit, pages.REFUSED)
        if access.verdict is Verdict.OPEN and access.target is not None:
            return self._check_prefix(visit, path, access.target.base_url)
        if access.verdict in (Verdict.NOT_READY, Verdict.OPEN):
            return self._page(visit, pages.NOT_READY)
        if access.verdict in (Verdict.SIGN_IN, Verdict.UNKNOWN) and visit.is_navigation:
            if is_ahead(visit.fields):  # nobody enters yet, nor is anybody refused
                return self._page(visit, pages.NOT_FOUND)
            return self._entrance.begin(visit, wanted(visit))
        if refusal := cause_of(access):
            await self._denials.tell(visit, access, refusal)
        if access.verdict is Verdict.ENDED:
            return self._page(visit, pages.ENDED_PAGE if visit.is_navigation else pages.ENDED)
        return self._page(visit, _no_entry(visit))

    @staticmethod
    def _passes(visit: Visit) -> bool:
        """Whether a visit may go on to its target: the only yes there is. ``_decide`` finds the words for a no."""
        access, scope, path = visit.access, visit.scope, visit.raw_path
        is_socket = scope["type"] == "websocket"
        method = "GET" if is_socket else scope["method"]
        return (
            access.verdict is Verdict.OPEN
            and access.target is not None
            and path.startswith(access.target.base_url.encode("ascii"))
            and not path.startswith(visit.origin.path + OWN_PATHS)
            and method not in _NEVER
            and not why_foreign(visit, method, is_socket)
        )

    def _check_prefix(self, visit: Visit, path: bytes, base_url: str) -> Page | None:
        prefix = base_url.encode("ascii")
        if path.startswith(prefix):
            return None
        if path in (b"/", prefix[:-1]) and visit.is_navigation:
            query = "?" + visit.query.decode("latin-1") if visit.query and path != b"/" else ""
            return pages.redirect(base_url + query)
        return self._page(visit, pages.NOT_FOUND)

    async def _enter(self, visit: Visit) -> Page:
        """Exchange a one-time code for the cookie of this address."""
        entry = self._entrance.brought(visit)
        grant = None
        if entry.code:
            if self._guesses.refuses(visit.client):
                return self._page(visit, pages.TOO_MANY)
            try:
                grant = await self._redeem(label=visit.label, code=entry.code, nonce=entry.nonce)
                if grant is None:  # used, late, another session's or browser's: worth knowing, whoever it was
                    self._guesses.count(visit.client)
                    await self._denials.tell(visit, await self.access.look_up(visit.label, visit.cookie), "code")
            except Exception:
                log.exception("A code could not be redeemed")
                return self._page(visit, pages.UNSURE)
        if grant is None:
            return self._entrance.end(entry, self._page(visit, pages.CODE_USED))
        return self._entrance.admit(entry, grant.cookie_value)

    # Answering

    async def _say(self, visit: Visit, send: Send, notice: Notice) -> None:
        await self._answer(visit, send, self._page(visit, notice))

    def _page(self, visit: Visit, notice: Notice) -> Page:
        if not visit.is_navigation:
            return pages.as_json(notice)
        link = self._site.portal_url + "/"
        if notice.to_session and visit.access.session_id:
            link += f"sessions/{visit.access.session_id}/"
        return pages.as_page(notice, language=pages.language_of(visit.fields.get(b"accept-language", b"")), link=link)

    async def _answer(self, visit: Visit, send: Send, page: Page) -> None:
        if visit.scope["type"] == "http":
            body = b"" if visit.scope["method"] == "HEAD" else page.body
            await send({"type": "http.response.start", "status": page.status, "headers": page.headers})
            await send({"type": "http.response.body", "body": body, "more_body": False})
        elif "websocket.http.response" in (visit.scope.get("extensions") or {}):
            # A handshake without permission is answered 403, whatever a page would get: clients expect no other.
            status = 403 if page.status in (302, 404) else page.status
            await send({"type": "websocket.http.response.start", "status": status, "headers": page.headers})
            await send({"type": "websocket.http.response.body", "body": page.body, "more_body": False})
        else:
            await send({"type": "websocket.close", "code": 1008})  # the ASGI server answers 403


def _no_entry(visit: Visit) -> Notice:
    """What somebody is told who may not enter, be there a session or not."""
    return pages.NO_ENTRY if is_of_own_page(visit) else pages.NOT_FOUND


def _nothing() -> None:
    """What a server without our extension can do about an answer that breaks off."""
