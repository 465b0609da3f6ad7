"""The form of an administrator who wants to open somebody's session."""

from __future__ import annotations

from django import forms
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from launcher.services import LONGEST_REASON, VisitRefused


class ReasonForm(forms.Form):
    """Why an administrator opens somebody's session."""

    reason = forms.CharField(
        label=_("Reason"),
        help_text=_("Its owner reads it, and it is kept in the audit log."),
        max_length=LONGEST_REASON,
        widget=forms.TextInput(attrs={"autocomplete": "off", "autofocus": True}),
    )

    def refuse(self, refused: VisitRefused) -> None:
        """Say why the service did not take it."""
        words = gettext("Please write a sentence of %(least)s to %(most)s characters that its owner understands.")
        if refused.code == "visit.reason":
            self.add_error("reason", words % refused.params)
        else:
            self.add_error(None, gettext("This session can no longer be opened so."))
