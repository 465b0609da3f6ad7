"""Where every sign-in by a page ends: inside, before the second step, or with the words why not. And every sign-out."""

from __future__ import annotations

from django.conf import settings
from django.contrib import messages
from django.contrib.auth import logout
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render

from launcher.flows import enrolment
from launcher.parts import sign_in_cluster
from portal.accounts import entering, openid_flow, proving, services
from portal.accounts.ways.cluster import ClusterPassword
from portal.accounts.ways.openid import OpenId
from portal.accounts.wording import enrolment_sentence
from portal.addresses import address_of


def enter(request: HttpRequest, first: services.FirstFactor, *, password: str, target: str) -> HttpResponse:
    """Go on with somebody who has proved who they are. If the cluster says so, what the portal needs is got now.

    ``password``: empty where it is not at hand any more.
    """
    waits = entering.wants_second_step(request, first, target=target)
    if first.way == ClusterPassword.name:  # another way's password opens nothing on the cluster
        trouble = enrolment.get_ready(
            cluster=sign_in_cluster(),
            user=first.user,
            password=password,
            web_session_key="" if waits else request.session.session_key or "",
            address=address_of(request),
        )
        if trouble:
            messages.warning(request, enrolment_sentence(trouble))
    return redirect("accounts:second-step" if waits else target or settings.LOGIN_REDIRECT_URL)


def signed_out(request: HttpRequest) -> HttpResponse:
    """Sign this browser out, and lead on: to the sign-in page, or to sign out where it signed in, too."""
    way = entering.way_of(request)
    logout(request)
    address = openid_flow.sign_out_address() if way == OpenId.name else ""
    if address:
        return leave_for(request, address, "accounts/openid_sign_out.html")
    return redirect(settings.LOGOUT_REDIRECT_URL)


def leave_for(request: HttpRequest, address: str, page: str) -> HttpResponse:
    """Send a browser that sent a form on to another site.

    By a page and not by a redirect: browsers hold the whole chain of redirects after a form against form-action.
    """
    response = render(request, page, {"address": address})
    response.headers["Refresh"] = f"0; url={address}"
    return response


def not_allowed(request: HttpRequest, refusal: proving.SignInRefused) -> HttpResponse:
    """For somebody who has proved who they are and may not enter: whom to ask. Every way to sign in shows it."""
    context = {"account": refusal.params.get("username", "")}
    return render(request, "accounts/not_allowed.html", context, status=403)
