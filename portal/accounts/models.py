"""People and their personal tokens. A user is the account on the cluster; no password is stored here."""

from __future__ import annotations

from typing import ClassVar

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.db import models
from django.db.models.functions import Lower
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

    class Meta:
        # one person, however a way to sign in spells the account
        constraints = [models.UniqueConstraint(Lower("username"), name="one_user_each_name")]

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


class WebSession(models.Model):
    """A browser in which somebody is signed in. Django's session holds the row's number; without it, it is void."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="web_sessions")
    key_digest = models.CharField(max_length=64, unique=True)  # SHA-256 of the key of Django's session
    user_agent = models.CharField(max_length=300, blank=True)
    address = models.CharField(max_length=64, blank=True)  # the one seen last
    created_at = models.DateTimeField()
    last_seen_at = models.DateTimeField()  # written at most once a minute

    def __str__(self) -> str:
        return f"web session of {self.user_id}"


class OpenIdTie(models.Model):
    """Who an account is at an OpenID provider, since its first sign-in that way: nobody else there becomes it."""

    user = models.OneToOneField(User, on_delete=models.CASCADE, related_name="openid_tie")
    issuer = models.CharField(max_length=500)
    subject = models.CharField(max_length=255)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["issuer", "subject"], name="one_account_each_openid_subject")]

    def __str__(self) -> str:
        return f"OpenID of {self.user_id}"


class FactorKind(models.TextChoices):
    """What a second step at sign-in is done with."""

    TOTP = "totp", _("Code from an app")
    PASSKEY = "passkey", _("Passkey")


class SecondFactor(models.Model):
    """Something a person has beside the password: an app that shows codes, or a passkey."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="second_factors")
    kind = models.CharField(max_length=8, choices=FactorKind.choices)
    name = models.CharField(max_length=80)
    secret_encrypted = models.BinaryField()  # the codes' secret, or the passkey's public key
    last_step = models.BigIntegerField(default=0)  # of the last code that was used: no code of it or before it counts
    sign_count = models.BigIntegerField(default=0)  # a passkey's own counter; stays 0 with those that do not count
    created_at = models.DateTimeField()
    last_used_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"{self.kind} of {self.user_id}"


class RecoveryCode(models.Model):
    """A code for the day the phone is lost. Works once; only its SHA-256 is kept."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="recovery_codes")
    digest = models.CharField(max_length=64)
    used_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "digest"], name="one_recovery_code_each")]

    def __str__(self) -> str:
        return f"recovery code of {self.user_id}"
