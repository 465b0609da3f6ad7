"""People and their personal tokens. A user is the account on the cluster; no password is stored here."""

from __future__ import annotations

from typing import ClassVar

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.db import models
from django.utils.translation import gettext_lazy as _


class Role(models.TextChoices):
    """What a person may do beyond their own sessions."""

    USER = "user", _("User")
    AUDITOR = "auditor", _("Auditor")
    ADMINISTRATOR = "administrator", _("Administrator")


def default_warn_minutes() -> list[int]:
    """Minutes before a session's end at which its owner is warned, until they choose others."""
    return [30, 10]


class UserManager(BaseUserManager["User"]):
    """Looks people up by account name."""


class User(AbstractBaseUser):
    """Somebody with an account on the cluster."""

    username = models.CharField(max_length=64, unique=True)
    display_name = models.CharField(max_length=200, blank=True)
    role = models.CharField(max_length=16, choices=Role.choices, default=Role.USER)
    groups_on_cluster = models.JSONField(default=list, blank=True)
    language = models.CharField(max_length=10, blank=True)
    time_zone = models.CharField(max_length=64, blank=True)
    email = models.EmailField(blank=True)
    mail_notices = models.BooleanField(default=True)  # by e-mail what open pages tell: ready, about to end, ended
    warn_minutes = models.JSONField(default=default_warn_minutes, blank=True)  # before a session's end; may be empty
    is_active = models.BooleanField(default=True)
    created_at = models.DateTimeField(auto_now_add=True)

    objects: ClassVar[UserManager] = UserManager()

    USERNAME_FIELD = "username"

    def __str__(self) -> str:
        return self.username

    @property
    def is_administrator(self) -> bool:
        """Whether this person may administer the portal."""
        return self.is_active and self.role == Role.ADMINISTRATOR

    @property
    def may_audit(self) -> bool:
        """Whether this person may read the audit log and see all sessions."""
        return self.is_active and self.role in (Role.ADMINISTRATOR, Role.AUDITOR)


class TokenScope(models.TextChoices):
    """What a personal token may do."""

    READ = "read", _("See apps and sessions")
    WRITE = "write", _("See, launch and stop sessions")


class PersonalToken(models.Model):
    """A key for the API, shown once. Only its SHA-256 is kept."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="tokens")
    name = models.CharField(max_length=80)
    hint = models.CharField(max_length=12)  # its first characters, to tell tokens apart
    digest = models.CharField(max_length=64, unique=True)
    scope = models.CharField(max_length=8, choices=TokenScope.choices, default=TokenScope.READ)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    last_used_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"{self.name} ({self.hint}…)"
