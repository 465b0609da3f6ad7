"""Forms of the accounts pages."""

from __future__ import annotations

import zoneinfo
from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from portal.accounts.models import TokenScope

DAYS_CHOICES = [(7, _("7 days")), (30, _("30 days")), (90, _("90 days")), (365, _("1 year"))]


class SignInForm(forms.Form):
    """Account name and password of the cluster."""

    username = forms.CharField(
        label=_("Account name"),
        max_length=64,
        widget=forms.TextInput(attrs={"autocomplete": "username", "autocapitalize": "none", "autofocus": True}),
    )
    password = forms.CharField(
        label=_("Password"),
        max_length=1024,
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password"}),
    )


class TokenForm(forms.Form):
    """A new personal token."""

    name = forms.CharField(label=_("What is it for?"), max_length=80)
    scope = forms.ChoiceField(label=_("It may"), choices=TokenScope.choices, initial=TokenScope.READ)
    days = forms.TypedChoiceField(label=_("Valid for"), choices=DAYS_CHOICES, coerce=int, initial=30)


class PreferencesForm(forms.Form):
    """Language and time zone."""

    language = forms.ChoiceField(label=_("Language"), required=False)
    time_zone = forms.ChoiceField(label=_("Time zone"), required=False)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        automatic = ("", _("As the browser says"))
        self.fields["language"].choices = [automatic, ("en", "English"), ("zh-hans", "简体中文")]  # type: ignore[attr-defined]  # ChoiceField
        zones = sorted(zone for zone in zoneinfo.available_timezones() if "/" in zone and not zone.startswith("Etc"))
        self.fields["time_zone"].choices = [automatic, ("UTC", "UTC"), *((zone, zone) for zone in zones)]  # type: ignore[attr-defined]  # ChoiceField
