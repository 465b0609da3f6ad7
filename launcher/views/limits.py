"""Doors of the administrators' page about what persons and groups may have."""

from __future__ import annotations

from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST

from launcher import entitlements, services, wording
from launcher.limit_forms import AllowanceForm
from launcher.models import Allowance
from launcher.parts import apps, clusters
from portal.accounts import reauthentication
from portal.accounts.models import User
from portal.accounts.requests import signed_in_user
from portal.addresses import address_of


def administrator_or_404(request: HttpRequest) -> User:
    """Who asks, if they may administer; to everybody else the page does not exist. Raises AskAgain."""
    actor = signed_in_user(request)
    if not actor.is_administrator:
        raise Http404
    reauthentication.require(request)
    return actor


@login_required
def limits(request: HttpRequest) -> HttpResponse:
    """All allowances; sent, the form adds one or takes the place of the one that is there."""
    actor = administrator_or_404(request)
    form = AllowanceForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        values = form.cleaned_data
        services.set_allowance(
            user=form.user,
            group="" if form.user else values["name"],
            app=values["app"],
            cluster=values["cluster"],
            sessions=values["sessions"],
            hours=values["hours"],
            actor=actor,
            address=address_of(request),
        )
        return redirect("launcher:admin-limits")
    page = Paginator(entitlements.allowances(), 50).get_page(request.GET.get("page"))
    context = {
        "page_obj": page,
        "rows": [_row(allowance) for allowance in page],
        "form": form,
        "sessions_of_site": settings.CONF.sessions_per_user,
        "hours_of_site": settings.CONF.hours_per_session,
    }
    return render(request, "launcher/limits.html", context, status=422 if form.errors else 200)


def _row(allowance: Allowance) -> dict[str, object]:
    """An allowance in words; an app or cluster that is no longer offered keeps its id."""
    app, cluster = apps().get(allowance.app), clusters().get(allowance.cluster)
    return {
        "id": allowance.pk,
        "username": allowance.user.username if allowance.user else "",
        "group": allowance.group,
        "app": wording.translated(app.name) if app else allowance.app,
        "cluster": cluster.name if cluster else allowance.cluster,
        "sessions": allowance.sessions,
        "hours": allowance.hours,
        "changed_at": allowance.changed_at,
    }


@login_required
@require_POST
def remove(request: HttpRequest, allowance_id: int) -> HttpResponse:
    """Take one back."""
    actor = administrator_or_404(request)
    services.remove_allowance(allowance_id, actor=actor, address=address_of(request))
    return redirect("launcher:admin-limits")
