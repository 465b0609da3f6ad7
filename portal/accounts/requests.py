"""Who made a request, with the right type."""

from __future__ import annotations

from django.http import HttpRequest

from portal.accounts.models import User


def signed_in_user(request: HttpRequest) -> User:
    """The user of a view behind ``login_required``. Raises TypeError elsewhere."""
    user = request.user
    if not isinstance(user, User):
        raise TypeError("this view must require a signed-in user")
    return user
