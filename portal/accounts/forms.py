"""Forms of the accounts pages."""

from __future__ import annotations

import re
import zoneinfo
from typing import Any

from django import forms
from django.conf import settings
from django.utils.translation import gettext_lazy as _

from launcher.endwarnings import MOST_MINUTES, MOST_WARNINGS
from launcher.ssh.questions import LONGEST_ANSWER, Round
from portal.accounts.models import TokenScope, User

DAYS_CHOICES = [(7, _("7 days")), (30, _("30 days")), (90, _("90 days")), (365, _("1 year"))]


def _password_field(label: object, *, autofocus: bool) -> forms.CharField:
    return forms.CharField(
        label=label,  # type: ignore[arg-type]  # a text that is translated later
        max_length=1024,
        strip=False,
        widget=forms.PasswordInput(
            attrs={"autocomplete": "current-password"} | ({"autofocus": True} if autofocus else {})
        ),
    )


def _name_field() -> forms.CharField:
    return forms.CharField(
        label=_("Name, to tell it from others"),
        max_length=80,
        required=False,
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )


class SignInForm(forms.Form):
    """Account name and password of the cluster."""

    username = forms.CharField(
        label=_("Account name"),
        max_length=64,
        widget=forms.TextInput(attrs={"autocomplete": "username", "autocapitalize": "none", "autofocus": True}),
    )
    password = _password_field(_("Password"), autofocus=False)


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


class NoticesForm(forms.Form):
    """What somebody is told, and how. Without a mail server nothing is asked about mail."""

    warn_minutes = forms.CharField(
        label=_("Warn me before a session ends"),
        help_text=_("Minutes, separated by commas; empty: no warning."),
        max_length=60,
        required=False,
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )
    email = forms.EmailField(
        label=_("E-mail address"),
        required=False,
        max_length=254,
        widget=forms.EmailInput(attrs={"autocomplete": "email"}),
    )
    mail_notices = forms.BooleanField(label=_("Tell me by e-mail, too"), required=False)

    def __init__(self, data: Any = None, *, user: User) -> None:
        initial = {
            "warn_minutes": ", ".join(str(minutes) for minutes in user.warn_minutes),
            "email": user.email,
            "mail_notices": user.mail_notices,
        }
        super().__init__(data, initial=initial)
        if not settings.EMAIL_HOST:
            del self.fields["email"], self.fields["mail_notices"]

    def clean_warn_minutes(self) -> list[int]:
        """The numbers, largest first."""
        words = [word for word in re.split(r"[\s,;，；、]+", self.cleaned_data["warn_minutes"]) if word]
        if not all(re.fullmatch(r"[0-9]{1,4}", word) and 1 <= int(word) <= MOST_MINUTES for word in words):
            raise forms.ValidationError(
                _("Please write whole minutes from 1 to %(max)s, separated by commas: 30, 10."),
                params={"max": MOST_MINUTES},
            )
        minutes = sorted({int(word) for word in words}, reverse=True)
        if len(minutes) > MOST_WARNINGS:
            raise forms.ValidationError(_("At most %(max)s numbers, please."), params={"max": MOST_WARNINGS})
        return minutes

    def choices_of(self, user: User) -> dict[str, Any]:
        """What to keep; where the form did not ask, what ``user`` has."""
        return {"email": user.email, "mail_notices": user.mail_notices} | self.cleaned_data


def _code_field(*, required: bool) -> forms.CharField:
    return forms.CharField(
        label=_("Code"),
        max_length=40,
        required=required,
        widget=forms.TextInput(
            attrs={"autocomplete": "one-time-code", "autocapitalize": "none", "spellcheck": "false", "autofocus": True}
        ),
    )


class SecondStepForm(forms.Form):
    """A code of an app or a recovery code, or what a passkey answered."""

    code = _code_field(required=False)
    passkey = forms.CharField(required=False, widget=forms.HiddenInput)

    def clean(self) -> dict[str, Any]:
        """One of both must be there."""
        values = {"code": "", "passkey": ""} | (super().clean() or {})
        if not self.errors and not values["code"] and not values["passkey"]:
            self.add_error("code", _("Please enter the code."))
        return values


class ConfirmForm(forms.Form):
    """The password once more."""

    password = _password_field(_("Password"), autofocus=True)


class AppForm(forms.Form):
    """The first code of a new app."""

    code = _code_field(required=True)
    name = _name_field()


class NameForm(forms.Form):
    """A new passkey's name, and what the browser made."""

    name = _name_field()
    passkey = forms.CharField(widget=forms.HiddenInput)


class ConnectForm(forms.Form):
    """The cluster's password, of the account that who is signed in has there: there is no name to type."""

    password = _password_field(_("Password on the cluster"), autofocus=True)


class AnswersForm(forms.Form):
    """One field for each question, with the cluster's own words."""

    def __init__(self, data: object = None, *, asked: Round) -> None:
        super().__init__(data)  # type: ignore[arg-type]  # a QueryDict
        for place, question in enumerate(asked.questions):
            attributes = {"autocomplete": "one-time-code", "autocapitalize": "none", "autofocus": place == 0}
            widget = forms.TextInput if question.is_shown else forms.PasswordInput
            self.fields[f"answer_{place}"] = forms.CharField(
                label=question.text.rstrip(": ") or "?",
                max_length=LONGEST_ANSWER,
                strip=False,
                required=False,
                widget=widget(attrs=attributes),
            )

    @property
    def answers(self) -> list[str]:
        """In the order of the questions."""
        return [self.cleaned_data[name] for name in self.fields]
