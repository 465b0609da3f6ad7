"""Doors of one session: its page, Connect, Stop."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlencode

from django.contrib.auth.decorators import login_required
from django.contrib.auth.views import redirect_to_login
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import get_language
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from launcher import credential_state, grants, joblog, live_log, selectors, services, wording
from launcher.cards import card_of, timeline_of
from launcher.models import InteractiveSession
from launcher.parts import clusters
from launcher.proxy.entrance import is_digest
from launcher.proxy.foreign import is_ahead
from launcher.proxy.next_page import MOST_BYTES
from portal.accounts import reauthentication
from portal.accounts.models import User
from portal.accounts.requests import signed_in_user
from portal.addresses import address_of

Right = Callable[[User, InteractiveSession], bool]
"""One of the selectors: whether this person may do that with this session."""


def session_or_404(request: HttpRequest, session_id: str) -> InteractiveSession:
    """The session if this person may know of it; otherwise 404, and the attempt is kept."""
    user = signed_in_user(request)
    session = selectors.find(session_id)
    if session is None:
        raise Http404
    if not selectors.may_see(user, session):
        note_denied(request, session, "stranger")
        raise Http404
    return session


def session_for(request: HttpRequest, session_id: str, may: Right, *, denied: str) -> InteractiveSession:
    """The session if ``may`` says that this person may; otherwise 404, and the attempt is kept with its cause."""
    session = session_or_404(request, session_id)
    if not may(signed_in_user(request), session):
        note_denied(request, session, denied)
        raise Http404
    return session


def note_denied(request: HttpRequest, session: InteractiveSession, cause: str) -> None:
    services.record_access_denied(
        session_id=session.pk,
        username=signed_in_user(request).username,
        door="portal",
        cause=cause,
        address=address_of(request),
    )


@login_required
@require_GET
def session(request: HttpRequest, session_id: str) -> HttpResponse:
    """One session: timeline, log, what was asked for."""
    return render(request, "launcher/session.html", _session_context(request, session_id))


@login_required
@never_cache
@require_GET
def session_live(request: HttpRequest, session_id: str) -> HttpResponse:
    """The changing part of a session's page."""
    return render(request, "launcher/_live.html", _session_context(request, session_id))


def _session_context(request: HttpRequest, session_id: str) -> dict[str, object]:
    session = session_or_404(request, session_id)
    user = signed_in_user(request)
    card = card_of(session, user)
    log = live_log.log_of(session) if selectors.may_open(user, session) else session.log_tail
    return {
        "card": card,
        "is_others": not selectors.may_open(user, session),
        "timeline": timeline_of(session),
        "log": joblog.without_markers(log),
        "settings": wording.settings_rows(session, clusters().get(session.cluster)),
        "details": card.details,
        "job_id": session.job_id,
        "unconnected": credential_state.to_connect_for(session) if selectors.owns(user, session) else [],
        "may_stop": selectors.may_stop(user, session),
        "may_give_up": selectors.may_give_up(user, session),
        "may_visit": selectors.may_visit(user, session),
        "language": get_language(),
    }


@login_required
@require_POST
def connect(request: HttpRequest, session_id: str) -> HttpResponse:
    """Into the notebook: the session's own address begins every entry."""
    session = session_for(request, session_id, selectors.may_open, denied="not_owner")
    if not session.is_live:
        return redirect("launcher:session", session_id=session.pk)
    return begin(session, selectors.opening_page(session))


def begin(session: InteractiveSession, wanted: str) -> HttpResponse:
    """To the session's own address, which begins an entry from this browser; ``wanted`` is judged there."""
    return _to_address(session, "begin", wanted)


def _to_address(session: InteractiveSession, step: str, wanted: str, **values: str) -> HttpResponse:
    if 0 < len(wanted) <= MOST_BYTES:
        values["next"] = wanted
    query = f"?{urlencode(values)}" if values else ""
    response = HttpResponse(status=303)
    response.headers["Location"] = f"{selectors.address_of(session)}.footbridge/{step}{query}"
    response.headers["Cache-Control"] = "no-store"
    response.headers["Referrer-Policy"] = "no-referrer"
    return response


def _is_opened(request: HttpRequest) -> bool:
    """Whether somebody opens this as a page: no picture or frame asks for it, nor a browser ahead of its person. What
    is done here is in the audit log as that person's doing."""
    fields = {name.lower().encode(): value.encode() for name, value in request.headers.items()}
    return request.headers.get("Sec-Fetch-Dest", "document") == "document" and not is_ahead(fields)


@never_cache
@require_GET
def by_address(request: HttpRequest, label: str) -> HttpResponse:
    """An entry on its way through the portal: the owner is sent back with a one-time code, others see nothing."""
    if not _is_opened(request):
        raise Http404
    wanted = request.GET.get("next", "")
    if not request.user.is_authenticated:  # signing in may outlast the entry: it begins again after that
        query = f"?{urlencode({'next': wanted})}" if wanted else ""
        return redirect_to_login(reverse("launcher:by-address", args=[label]) + query)
    session = selectors.session_at(label)
    if session is None:
        raise Http404
    session = session_or_404(request, session.pk)
    user, entry = signed_in_user(request), request.GET.get("entry", "")
    if not selectors.may_open(user, session) or not session.is_live:
        return redirect("launcher:session", session_id=session.pk)
    if not is_digest(entry):
        return begin(session, wanted)
    code = grants.create_entry_code(
        session=session,
        user=user,
        web_session_key=request.session.session_key or "",
        entry=entry,
        address=address_of(request),
    )
    return _to_address(session, "enter", wanted, code=code, entry=entry)


@login_required
@require_POST
def stop(request: HttpRequest, session_id: str) -> HttpResponse:
    """End the session."""
    session = session_for(request, session_id, selectors.may_stop, denied="may_not_stop")
    user = signed_in_user(request)
    if session.owner_id != user.pk:
        reauthentication.require(request)
    services.request_stop(session=session, actor=user, address=address_of(request))
    return redirect("launcher:session", session_id=session.pk)


@login_required
@require_POST
def give_up(request: HttpRequest, session_id: str) -> HttpResponse:
    """End a session whose cluster cannot be asked."""
    session = session_for(request, session_id, selectors.may_give_up, denied="may_not_give_up")
    reauthentication.require(request)
    services.give_up(session=session, actor=signed_in_user(request), address=address_of(request))
    return redirect("launcher:session", session_id=session.pk)


@login_required
@require_POST
def keep(request: HttpRequest, session_id: str) -> HttpResponse:
    """Keep the session running though nobody has used it."""
    session = session_for(request, session_id, selectors.owns, denied="not_owner")
    services.keep_running(session=session, actor=signed_in_user(request), address=address_of(request))
    return redirect("launcher:session", session_id=session.pk)
