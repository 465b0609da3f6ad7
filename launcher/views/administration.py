"""Doors of the administrators' pages: everybody's sessions, and people."""

from __future__ import annotations

from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from launcher import entitlements, selectors, services
from launcher.cards import card_of
from launcher.filters import PeopleFilter, SessionFilter
from launcher.limit_forms import NumberForm
from launcher.overview import overview
from launcher.views.limits import administrator_or_404
from portal.accounts.requests import signed_in_user
from portal.addresses import address_of


@login_required
@require_GET
def all_sessions(request: HttpRequest) -> HttpResponse:
    """Everybody's sessions that are live or, with days in the filter, that ran on one of these; for auditors and
    administrators.
    """
    user = signed_in_user(request)
    if not user.may_audit:
        raise Http404
    filters = SessionFilter(request.GET)
    page = Paginator(filters.chosen, 50).get_page(request.GET.get("page"))
    context = {
        "filter": filters,
        "owner": filters.form.cleaned_data.get("owner", ""),
        "page_obj": page,
        "cards": [card_of(session, user) for session in page],
    }
    return render(request, "launcher/all_sessions.html", context)


@login_required
@never_cache
@require_GET
def clusters(request: HttpRequest) -> HttpResponse:
    """How each cluster is, what it is asked, and what is free on it; for auditors and administrators."""
    user = signed_in_user(request)
    if not user.may_audit:
        raise Http404
    return render(request, "launcher/clusters.html", {"clusters": overview(user)})


@login_required
def users(request: HttpRequest) -> HttpResponse:
    """Everybody who has signed in, or whom the filter leaves, and how many sessions they may have."""
    actor = administrator_or_404(request)
    form = NumberForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        person = selectors.people().filter(pk=form.cleaned_data["user"]).first()
        if person is None:
            raise Http404
        number = form.cleaned_data["sessions_allowed"]
        services.set_sessions_of(user=person, sessions=number, actor=actor, address=address_of(request))
        return redirect(request.get_full_path())
    filters = PeopleFilter(request.GET, entitlements.people_with_numbers())
    page = Paginator(filters.chosen, 50).get_page(request.GET.get("page"))
    context = {
        "filter": filters,
        "page_obj": page,
        "form": form,
        "mistaken": form.cleaned_data.get("user") if form.errors else None,  # whose number makes no sense
        "site_default": settings.CONF.sessions_per_user,
    }
    return render(request, "launcher/users.html", context)
