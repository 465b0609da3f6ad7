"""Where every sign-in by a page ends: inside, before the second step, or with the words why not."""

from __future__ import annotations

from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render

from launcher.flows import enrolment
from launcher.parts import sign_in_cluster
from portal.accounts import entering, proving, services
from portal.accounts.ways.cluster import ClusterPassword
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


def not_allowed(request: HttpRequest, refusal: proving.SignInRefused) -> HttpResponse:
    """For somebody who has proved who they are and may not enter: whom to ask. Every way to sign in shows it."""
    context = {"account": refusal.params.get("username", "")}
    return render(request, "accounts/not_allowed.html", context, status=403)
