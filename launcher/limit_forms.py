"""Forms of the administrators' pages about what people may have: all is checked here, whatever a browser lets pass."""

from __future__ import annotations

import math
import unicodedata
from typing import Any

from django import forms
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from launcher import selectors, wording
from launcher.allowances import LEAST_HOURS, MOST_HOURS, MOST_SESSIONS
from launcher.parts import apps, clusters
from portal.accounts.models import User

PERSON, GROUP = "person", "group"


class NumberForm(forms.Form):
    """How many sessions a person may have in all; empty gives the number of their groups or the site's back."""

    user = forms.IntegerField(widget=forms.HiddenInput)
    sessions_allowed = forms.IntegerField(
        label=gettext_lazy("Sessions at a time"), min_value=0, max_value=MOST_SESSIONS, required=False
    )


class AllowanceForm(forms.Form):
    """What a person or the members of a group may have. ``user`` is the person that was named, after a check."""

    whose = forms.ChoiceField()
    name = forms.CharField(max_length=64)
    app = forms.ChoiceField(required=False)
    cluster = forms.ChoiceField(required=False)
    sessions = forms.IntegerField(min_value=0, max_value=MOST_SESSIONS, required=False)
    hours = forms.FloatField(min_value=LEAST_HOURS, max_value=MOST_HOURS, required=False)

    user: User | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        labels = {
            "whose": _("For"),
            "name": _("Account or group"),
            "app": _("App"),
            "cluster": _("Cluster"),
            "sessions": _("Sessions at a time"),
            "hours": _("Hours of a session"),
        }
        for name, label in labels.items():
            self.fields[name].label = label
        choices = {
            "whose": [(PERSON, _("a person")), (GROUP, _("members of a group"))],
            "app": [("", _("all apps together")), *((app.id, wording.translated(app.name)) for app in apps().values())],
            "cluster": [("", _("all clusters together")), *((one.id, one.name) for one in clusters().values())],
        }
        for name, pairs in choices.items():
            self.fields[name].choices = pairs  # type: ignore[attr-defined]  # a ChoiceField
        self.fields["name"].widget.attrs |= {"autocomplete": "off", "autocapitalize": "none"}
        self.fields["hours"].widget.attrs["step"] = "any"

    def clean_name(self) -> str:
        """One line of plain text: a group may be called anything the cluster calls it."""
        name: str = self.cleaned_data["name"]
        if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in name):
            raise forms.ValidationError(_("Please write this on one line, without control characters."))
        return name

    def clean_hours(self) -> float | None:
        """A finite number."""
        hours: float | None = self.cleaned_data["hours"]
        if hours is not None and not math.isfinite(hours):
            raise forms.ValidationError(_("Please write a number."))
        return hours

    def clean(self) -> dict[str, Any]:
        """The person must be known, and something must be said."""
        values: dict[str, Any] = self.cleaned_data
        if values.get("whose") == PERSON and values.get("name"):
            self.user = selectors.people().filter(username=values["name"]).first()
            if self.user is None:
                self.add_error(
                    "name",
                    _("Nobody with this account has signed in yet. Until then, allow it to one of their groups."),
                )
        if {"sessions", "hours"} <= set(values) and values["sessions"] is None and values["hours"] is None:
            self.add_error("sessions", _("Write a number of sessions, of hours, or both."))
        return values
