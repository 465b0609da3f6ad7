"""Doors of the profile page's list of browsers: sign one out, sign out everywhere."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST

from launcher import leaving
from portal.accounts import thresholds, web_sessions
from portal.accounts.browsers import browser_in_words
from portal.accounts.requests import signed_in_user
from portal.addresses import address_of


def browsers_of(request: HttpRequest) -> list[dict[str, object]]:
    """Where the person who asks is signed in, for the profile page; this browser first."""
    here = request.session.get(web_sessions.KEY)
    rows = [
        {
            "id": row.pk,
            "browser": browser_in_words(row.user_agent),
            "address": row.address,
            "since": row.created_at,
            "seen": row.last_seen_at,
            "is_here": row.pk == here,
        }
        for row in web_sessions.of(signed_in_user(request))
    ]
    return sorted(rows, key=lambda row: not row["is_here"])


@login_required
@require_POST
def sign_out_one(request: HttpRequest, pk: int) -> HttpResponse:
    """Sign another browser out."""
    if leaving.sign_out_one(user=signed_in_user(request), pk=pk, address=address_of(request)):
        messages.success(request, _("That browser is signed out."))
    return redirect("accounts:profile")


@login_required
@require_POST
def sign_out_everywhere(request: HttpRequest) -> HttpResponse:
    """Sign out here and everywhere."""
    with_tokens = request.POST.get("tokens") == "on"
    leaving.sign_out_everywhere(user=signed_in_user(request), with_tokens=with_tokens, address=address_of(request))
    answer = thresholds.signed_out(request)
    messages.success(request, _("You are signed out everywhere."))
    return answer
