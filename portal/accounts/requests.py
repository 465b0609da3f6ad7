"""Who made a request, with the right type, and where they want to go next."""

from __future__ import annotations

from django.http import HttpRequest
from django.utils.http import url_has_allowed_host_and_scheme

from portal.accounts.models import User


def signed_in_user(request: HttpRequest) -> User:
    """The user of a view behind ``login_required``. Raises TypeError elsewhere."""
    user = request.user
    if not isinstance(user, User):
        raise TypeError("this view must require a signed-in user")
    return user


def safe_next(request: HttpRequest) -> str:
    """The address in ``next`` if it is one of this site; else empty."""
    return on_this_site(request, request.POST.get("next") or request.GET.get("next") or "")


def on_this_site(request: HttpRequest, target: str) -> str:
    """``target`` if it is an address of this site; else empty."""
    is_ours = url_has_allowed_host_and_scheme(
        target, allowed_hosts={request.get_host()}, require_https=request.is_secure()
    )
    return target if is_ours else ""
