"""Door of the page on which administrators have portal and clusters checked; auditors see what was found."""

from __future__ import annotations

from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache

from launcher.checkup import last_check_up, parts_of, start_check_up
from portal.accounts import reauthentication
from portal.accounts.requests import signed_in_user
from portal.addresses import address_of


@login_required
@never_cache
def check_up(request: HttpRequest) -> HttpResponse:
    """The last check-up; sent, it begins another."""
    user = signed_in_user(request)
    if not user.may_audit or (request.method == "POST" and not user.is_administrator):
        raise Http404
    if request.method == "POST":
        reauthentication.require(request)
        start_check_up(user, address=address_of(request))
        return redirect("launcher:admin-check-up")
    last = last_check_up()
    return render(request, "launcher/check_up.html", {"last": last, "parts": parts_of(last) if last else []})
