"""Doors of signing in by OpenID Connect: to the provider, and back from it."""

from __future__ import annotations

from urllib.parse import urlencode

import structlog
from django.conf import settings
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from portal.accounts import entering, factors, openid_flow, proving, reauthentication, services
from portal.accounts.models import User
from portal.accounts.requests import safe_next
from portal.accounts.thresholds import leave_for, not_allowed
from portal.accounts.ways.openid_http import ProviderAway, ProviderRefused
from portal.addresses import address_of

log = structlog.get_logger(__name__)


def _only_where_used() -> None:
    if "openid" not in settings.CONF.auth:
        raise Http404


@never_cache
@require_POST
def begin(request: HttpRequest) -> HttpResponse:
    """Send the browser to the provider, to sign in or to prove anew who somebody is."""
    _only_where_used()
    user, target = request.user, safe_next(request)
    confirms = user.pk if isinstance(user, User) and request.POST.get("again") and not factors.has_any(user) else 0
    try:
        address = openid_flow.begin(request.session, target=target, confirms=confirms)
    except ProviderAway as error:
        return _failed(request, error, target)
    return leave_for(request, address, "accounts/openid_leave.html")


@never_cache
@require_GET
def answer(request: HttpRequest) -> HttpResponse:
    """The provider sent the browser back."""
    _only_where_used()
    question = openid_flow.take(request.session, request.GET.get("state", ""))
    try:
        if question is None or request.GET.get("iss", settings.CONF.openid_issuer) != settings.CONF.openid_issuer:
            raise ProviderRefused("no question of this browser has this answer")
        if "error" in request.GET or not 0 < len(request.GET.get("code", "")) <= 4096:
            raise ProviderRefused("the provider sent no code")
        found = openid_flow.prove(question, code=request.GET["code"], address=address_of(request))
        if question.confirms:
            return _confirmed(request, question, found)
        if request.user.is_authenticated:  # by another tab, meanwhile
            return redirect(question.target or settings.LOGIN_REDIRECT_URL)
        first = services.admit(proved=found.proved, address=address_of(request))
        openid_flow.tie(user=first.user, subject=found.subject, address=address_of(request))
    except (ProviderAway, ProviderRefused) as error:
        return _failed(request, error, question.target if question else "")
    except proving.SignInRefused as error:
        return not_allowed(request, error)
    waits = entering.wants_second_step(request, first, target=question.target)
    return redirect("accounts:second-step" if waits else question.target or settings.LOGIN_REDIRECT_URL)


def _confirmed(request: HttpRequest, question: openid_flow.Question, found: openid_flow.Answer) -> HttpResponse:
    user = request.user
    if not isinstance(user, User) or user.pk != question.confirms or factors.has_any(user):
        raise ProviderRefused("somebody else is signed in meanwhile")
    proving.confirm(user=user, proved=found.proved, address=address_of(request))
    openid_flow.tie(user=user, subject=found.subject, address=address_of(request))
    reauthentication.note_proof(request.session)
    return redirect(question.target or settings.LOGIN_REDIRECT_URL)


def _failed(request: HttpRequest, error: ProviderAway | ProviderRefused, target: str) -> HttpResponse:
    """Back to the page with the button, which leads on to where they wanted to go."""
    log.warning("openid_failed", error=error.code, detail=error.detail)
    if isinstance(error, ProviderAway):
        messages.warning(request, _("Your organisation's sign-in does not answer properly. Try again in a minute."))
    else:
        messages.warning(request, _("Your organisation's sign-in did not say who you are. Please try again."))
    page = reverse("accounts:confirm" if request.user.is_authenticated else "accounts:sign-in")
    return redirect(f"{page}?{urlencode({'next': target})}" if target else page)
