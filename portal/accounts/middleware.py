"""Puts a person's language and time zone into force for the request, and ends what was signed out elsewhere."""

from __future__ import annotations

import zoneinfo
from collections.abc import Callable
from urllib.parse import urlencode

from django.conf import settings
from django.contrib import messages
from django.contrib.auth import logout
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone, translation
from django.utils.cache import add_never_cache_headers
from django.utils.translation import gettext

from portal.accounts import factors, web_sessions
from portal.accounts.models import User
from portal.accounts.reauthentication import AskAgain
from portal.accounts.requests import on_this_site
from portal.addresses import address_of

GetResponse = Callable[[HttpRequest], HttpResponse]


class LanguageMiddleware:
    """The language of a visitor who has not signed in: their choice on this browser, else what the browser asks for."""

    def __init__(self, get_response: GetResponse) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer in that language."""
        language = translation.get_language_from_request(request)
        translation.activate(language)
        request.LANGUAGE_CODE = language
        response = self._get_response(request)
        response.headers.setdefault("Content-Language", translation.get_language())
        return response


class PreferencesMiddleware:
    """The language and the time zone that a signed-in person chose."""

    def __init__(self, get_response: GetResponse) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer in the person's language and zone."""
        user = request.user
        if user.is_authenticated:
            chosen = getattr(user, "language", "")
            if chosen and settings.LANGUAGE_COOKIE_NAME not in request.COOKIES:
                translation.activate(chosen)
                request.LANGUAGE_CODE = chosen
            zone = getattr(user, "time_zone", "")
            with timezone.override(_zone(zone)):
                return self._get_response(request)
        return self._get_response(request)


def _zone(name: str) -> zoneinfo.ZoneInfo | None:
    """The zone, or ``None``: the machine's list of zones changes with its updates."""
    try:
        return zoneinfo.ZoneInfo(name) if name else None
    except (zoneinfo.ZoneInfoNotFoundError, ValueError):
        return None


class WebSessionMiddleware:
    """A browser whose sign-in was ended elsewhere is nobody from its next request on; all others are noted as seen.

    Pages of somebody signed in are kept by no browser: after signing out, Back shows nothing of them.
    """

    def __init__(self, get_response: GetResponse) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer as the person, or as nobody."""
        user = request.user
        if not isinstance(user, User):
            return self._get_response(request)
        self._check(request, user)
        response = self._get_response(request)
        if "Cache-Control" not in response.headers:
            add_never_cache_headers(response)
        return response

    def _check(self, request: HttpRequest, user: User) -> None:
        if web_sessions.KEY not in request.session:  # signed in before there were rows
            web_sessions.begin(
                session=request.session,
                user=user,
                user_agent=request.headers.get("User-Agent", ""),
                address=address_of(request),
            )
            return
        row = web_sessions.find(request.session, user)
        if row is None:
            logout(request)
        else:
            web_sessions.seen(row, address=address_of(request))


class ProofMiddleware:
    """Leads those to the second step who must have one and have none, and asks again who administers."""

    def __init__(self, get_response: GetResponse) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer, or lead to the page that comes first."""
        user = request.user
        # A program with a personal token is not asked: second steps are for people. With such a header the API takes
        # no web session, so nobody gets in by adding one.
        is_program = request.path.startswith("/api/") and "Authorization" in request.headers
        is_open = is_program or request.path.startswith(self._open_paths())
        if isinstance(user, User) and not is_open and factors.is_missing(user):
            return self._enrol(request)
        return self._get_response(request)

    @staticmethod
    def _open_paths() -> tuple[str, ...]:
        names = ("add-app", "add-passkey", "confirm", "openid-begin", "sign-out", "language")
        return tuple(reverse(f"accounts:{name}") for name in names)

    @staticmethod
    def _enrol(request: HttpRequest) -> HttpResponse:
        if request.path.startswith("/api/"):
            words = gettext("Set up the second step of your sign-in first, on your profile page.")
            return JsonResponse({"code": "second_step.missing", "message": words}, status=403)
        return redirect("accounts:add-app")

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """The page that asks again; from there back to where the person was. Nothing that was sent is repeated."""
        if not isinstance(exception, AskAgain):
            return None
        target = request.get_full_path()
        if request.method not in ("GET", "HEAD"):
            target = on_this_site(request, request.headers.get("Referer", ""))
            messages.warning(request, gettext("Nothing was done yet. Prove that it is you, then press again."))
        return redirect(f"{reverse('accounts:confirm')}?{urlencode({'next': target})}")
