"""Doors of the launcher's pages: parse, call one service or selector, render."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode, urlsplit

from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import get_language
from django.views.decorators.cache import cache_control, never_cache
from django.views.decorators.http import require_GET, require_POST

from launcher import grants, live_log, selectors, services, wording
from launcher.cards import app_icon as icon_address
from launcher.cards import card_of, timeline_of
from launcher.flows.launch import default_cluster
from launcher.flows.launch import launch as launch_flow
from launcher.forms import LaunchForm, LimitForm
from launcher.models import InteractiveSession
from launcher.parts import apps
from launcher.services import LaunchRefused
from portal.accounts.models import User
from portal.accounts.requests import signed_in_user
from portal.accounts.services import set_sessions_allowed
from portal.addresses import address_of

ENDED_ON_HOME = 5


def _session_or_404(request: HttpRequest, session_id: str) -> InteractiveSession:
    """The session if this person may know of it; otherwise 404, and the attempt is kept."""
    user = signed_in_user(request)
    session = selectors.find(session_id)
    if session is None:
        raise Http404
    if not selectors.may_see(user, session):
        _note_denied(request, session, "stranger")
        raise Http404
    return session


def _note_denied(request: HttpRequest, session: InteractiveSession, cause: str) -> None:
    services.record_access_denied(
        session_id=session.pk,
        username=signed_in_user(request).username,
        door="portal",
        cause=cause,
        address=address_of(request),
    )


@login_required
@require_GET
def home(request: HttpRequest) -> HttpResponse:
    """My sessions, and the apps."""
    user = signed_in_user(request)
    tiles = [
        {
            "id": app.id,
            "name": wording.translated(app.name),
            "description": wording.translated(app.description),
            "icon_url": icon_address(app.id),
        }
        for app in apps().values()
    ]
    ended = [card_of(session) for session in selectors.history(user)[:ENDED_ON_HOME]]
    return render(request, "launcher/home.html", {"cards": _live_cards(user), "apps": tiles, "ended": ended})


def _live_cards(user: User) -> list[Any]:
    return [card_of(session) for session in selectors.live_sessions(user)]


@login_required
@never_cache
@require_GET
def cards(request: HttpRequest) -> HttpResponse:
    """The live cards alone, for pages that are open."""
    return render(request, "launcher/_cards.html", {"cards": _live_cards(signed_in_user(request))})


@require_GET
@cache_control(max_age=3600)
def app_icon(request: HttpRequest, app_id: str) -> HttpResponse:
    """An app's icon."""
    app = apps().get(app_id)
    if app is None or app.icon is None:
        raise Http404
    return HttpResponse(app.icon, content_type="image/svg+xml")


@login_required
def launch(request: HttpRequest, app_id: str) -> HttpResponse:
    """The app's form; sent, it launches."""
    user, app, cluster = signed_in_user(request), apps().get(app_id), default_cluster()
    if app is None:
        raise Http404
    existing, status = None, 200
    form = LaunchForm(request.POST or None, app=app, cluster=cluster, user=user, again=request.GET.get("again", ""))
    if request.method == "POST":
        try:
            session = launch_flow(user=user, app_id=app_id, raw=form.raw_values(), address=address_of(request))
        except LaunchRefused as refused:
            form.refuse(refused)
            existing, status = refused.existing, 409 if refused.existing else 422
        else:
            return redirect("launcher:session", session_id=session.pk)
    elif refused_now := services.limit_refusal(user):
        existing = refused_now.existing
    card = card_of(existing) if existing else None
    context = {"app": app, "app_name": wording.translated(app.name), "form": form, "cluster": cluster, "existing": card}
    return render(request, "launcher/launch.html", context, status=status)


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
    session = _session_or_404(request, session_id)
    user = signed_in_user(request)
    card = card_of(session, user)
    return {
        "card": card,
        "timeline": timeline_of(session),
        "log": live_log.log_of(session) if selectors.may_open(user, session) else session.log_tail,
        "settings": wording.settings_rows(session),
        "details": card.details,
        "job_id": session.job_id,
        "may_stop": selectors.may_stop(user, session),
        "language": get_language(),
    }


@login_required
@require_POST
def connect(request: HttpRequest, session_id: str) -> HttpResponse:
    """Into the notebook: a one-time code, then the session's own address."""
    session = _session_or_404(request, session_id)
    if not selectors.may_open(signed_in_user(request), session):
        _note_denied(request, session, "not_owner")
        raise Http404
    if not session.is_live:
        return redirect("launcher:session", session_id=session.pk)
    return _enter(request, session)


def _enter(request: HttpRequest, session: InteractiveSession, *, wanted: str = "") -> HttpResponse:
    """A redirect to the session's own address with a one-time code; ``wanted`` is judged there, as any path is."""
    code = grants.create_entry_code(
        session=session,
        user=signed_in_user(request),
        web_session_key=request.session.session_key or "",
        address=address_of(request),
    )
    portal = urlsplit(settings.CONF.portal_url)
    port = f":{portal.port}" if portal.port else ""
    host = f"{session.host_label}.{settings.CONF.sessions_domain}{port}"
    response = HttpResponse(status=303)
    query = urlencode({"code": code, **({"next": wanted[:2048]} if wanted else {})})
    response.headers["Location"] = f"{portal.scheme}://{host}/.footbridge/enter?{query}"
    response.headers["Cache-Control"] = "no-store"
    response.headers["Referrer-Policy"] = "no-referrer"
    return response


@login_required
@never_cache
@require_GET
def by_address(request: HttpRequest, label: str) -> HttpResponse:
    """Somebody came to a session's own address without a cookie for it: the owner is let in, others see nothing."""
    session = selectors.session_at(label)
    if session is None:
        raise Http404
    session = _session_or_404(request, session.pk)
    if not selectors.may_open(signed_in_user(request), session) or not session.is_live:
        return redirect("launcher:session", session_id=session.pk)
    return _enter(request, session, wanted=request.GET.get("next", ""))


@login_required
@require_POST
def stop(request: HttpRequest, session_id: str) -> HttpResponse:
    """End the session."""
    session = _session_or_404(request, session_id)
    user = signed_in_user(request)
    if not selectors.may_stop(user, session):
        _note_denied(request, session, "may_not_stop")
        raise Http404
    services.request_stop(session=session, actor=user, address=address_of(request))
    return redirect("launcher:session", session_id=session.pk)


@login_required
@require_GET
def history(request: HttpRequest) -> HttpResponse:
    """My ended sessions."""
    page = Paginator(selectors.history(signed_in_user(request)), 20).get_page(request.GET.get("page"))
    context = {"page_obj": page, "cards": [card_of(session) for session in page]}
    return render(request, "launcher/history.html", context)


@login_required
@require_GET
def all_sessions(request: HttpRequest) -> HttpResponse:
    """Live sessions of everybody, for auditors and administrators."""
    user = signed_in_user(request)
    if not user.may_audit:
        raise Http404
    page = Paginator(selectors.all_live_sessions(), 50).get_page(request.GET.get("page"))
    context = {"page_obj": page, "cards": [card_of(session, user) for session in page]}
    return render(request, "launcher/all_sessions.html", context)


@login_required
def users(request: HttpRequest) -> HttpResponse:
    """Everybody who has signed in, and how many sessions they may have."""
    actor = signed_in_user(request)
    if not actor.is_administrator:
        raise Http404
    form = LimitForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        person = selectors.people().filter(pk=form.cleaned_data["user"]).first()
        if person is None:
            raise Http404
        set_sessions_allowed(
            user=person,
            sessions_allowed=form.cleaned_data["sessions_allowed"],
            actor=actor,
            address=address_of(request),
        )
        return redirect("launcher:admin-users")
    page = Paginator(selectors.people(), 50).get_page(request.GET.get("page"))
    context = {"page_obj": page, "form": form, "site_default": settings.CONF.sessions_per_user}
    return render(request, "launcher/users.html", context)
