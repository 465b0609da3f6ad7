"""Django's authentication backend. It only finds users again: letting in is ``portal.accounts.services.admit``."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest

from portal.accounts.models import User


class PortalBackend:
    """Loads the user of a web session. A deactivated user is nobody."""

    def authenticate(self, request: HttpRequest | None, **credentials: Any) -> User | None:
        """Never signs anybody in: passwords are not checked behind Django's back."""
        return None

    def get_user(self, user_id: int) -> User | None:
        """The active user with this key."""
        return User.objects.filter(pk=user_id, is_active=True).first()
