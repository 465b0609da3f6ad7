"""Doors of a person's own pages: home, the launch form, history."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import cache_control, never_cache
from django.views.decorators.http import require_GET

from launcher import credential_state, entitlements, refusalwords, selectors, services, wording
from launcher.cards import app_icon as icon_address
from launcher.cards import card_of
from launcher.flows.launch import default_cluster
from launcher.flows.launch import launch as launch_flow
from launcher.forms import LaunchForm
from launcher.parts import apps
from launcher.services import LaunchRefused
from portal.accounts.models import User
from portal.accounts.requests import signed_in_user
from portal.addresses import address_of

ENDED_ON_HOME = 5
STATUS_OF_REFUSAL = {"launch.limit_reached": 409, "launch.none_allowed": 403}


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
    context = {
        "cards": _live_cards(user),
        "apps": tiles,
        "ended": ended,
        "unconnected": credential_state.unconnected(user.username),
    }
    return render(request, "launcher/home.html", context)


def _live_cards(user: User) -> list[Any]:
    allowed = entitlements.entries_of(user)
    live = selectors.with_notices(selectors.live_sessions(user))
    return [card_of(session, entries=allowed) for session in live]


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
    limit, status = None, 200
    form = LaunchForm(request.POST or None, app=app, cluster=cluster, user=user, again=request.GET.get("again", ""))
    if request.method == "POST":
        try:
            session = launch_flow(user=user, app_id=app_id, raw=form.raw_values(), address=address_of(request))
        except LaunchRefused as refused:
            form.refuse(refused)
            limit, status = refused, STATUS_OF_REFUSAL.get(refused.code, 422)
        else:
            return redirect("launcher:session", session_id=session.pk)
    else:
        limit = services.limit_refusal(user, app=app, cluster=cluster)
    context = {
        "app": app,
        "app_name": wording.translated(app.name),
        "form": form,
        "cluster": cluster,
        "unconnected": credential_state.unconnected(
            user.username, was_refused=limit is not None and limit.code == "launch.key_refused"
        ),
        "existing": card_of(limit.existing) if limit and limit.existing else None,
        "limit_sentence": refusalwords.refusal_sentence(limit.code, limit.params) if limit else "",
    }
    page = "launcher/nothing_allowed.html" if limit and limit.code == "launch.none_allowed" else "launcher/launch.html"
    return render(request, page, context, status=status)


@login_required
@require_GET
def history(request: HttpRequest) -> HttpResponse:
    """My ended sessions."""
    page = Paginator(selectors.history(signed_in_user(request)), 20).get_page(request.GET.get("page"))
    context = {"page_obj": page, "cards": [card_of(session) for session in page]}
    return render(request, "launcher/history.html", context)
