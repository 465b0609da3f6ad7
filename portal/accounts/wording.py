"""What people read when they cannot sign in."""

from __future__ import annotations

from django.conf import settings
from django.utils.translation import gettext as _


def sign_in_sentence(code: str) -> str:
    """The sentence for a refusal. It never tells whether the account exists."""
    sentences = {
        "sign_in.empty": _("Please enter your account name and your password."),
        "sign_in.wrong": _("The cluster did not accept this account name and password. Check both and try again."),
        "sign_in.throttled": _("Too many attempts. Wait ten minutes, then try again."),
        "sign_in.cluster_away": _("The cluster does not answer at the moment, so the password cannot be checked."),
        "sign_in.not_allowed": _("Your account may not use this portal."),
    }
    sentence = sentences.get(code, sentences["sign_in.wrong"])
    if code in ("sign_in.not_allowed", "sign_in.cluster_away") and settings.CONF.support:
        sentence += " " + _("Ask %(support)s for help.") % {"support": settings.CONF.support}
    return sentence
