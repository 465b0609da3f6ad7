"""What people read when they cannot sign in."""

from __future__ import annotations

from django.conf import settings
from django.utils.translation import gettext as _


def sign_in_sentence(code: str) -> str:
    """The sentence for a refusal. It never tells whether the account exists."""
    sentences = {
        "sign_in.empty": _("Please enter your account name and your password."),
        "sign_in.wrong": _("The cluster did not accept this account name and password. Check both and try again."),
        "sign_in.asks_more": _("The cluster asks for more than the password, which this page cannot answer."),
        "sign_in.wrong_answer": _("The cluster did not accept this. Begin again, with a new code if it was one."),
        "sign_in.begin_again": _("That took too long, or went wrong on the way. Please begin again."),
        "sign_in.throttled": _("Too many attempts. Wait ten minutes, then try again."),
        "sign_in.cannot_count": _("The portal cannot sign anybody in at the moment. Try again in a minute."),
        "sign_in.cluster_away": _("The cluster does not answer at the moment, so the password cannot be checked."),
        "sign_in.host_key_changed": _(
            "The cluster's login computer shows another key than the one the administrators wrote down, so your"
            " password was not sent to it. They have been told."
        ),
        "sign_in.password_expired": _(
            "The cluster wants you to choose a new password first. Sign in to it once by SSH, then come back."
        ),
        "sign_in.no_shell": _("Your account on the cluster cannot run commands, so it cannot start sessions."),
        "sign_in.other_spelling": _(
            "Write your account name with the same small and capital letters as the cluster does."
        ),
        "sign_in.superuser": _("This account administers the cluster's computers. Sign in with your personal account."),
        "sign_in.closed": _("Your account is closed or has run out."),
        "sign_in.not_allowed": _("Your account may not use this portal."),
    }
    sentence = sentences.get(code, sentences["sign_in.wrong"])
    if (
        code in ("sign_in.not_allowed", "sign_in.cluster_away", "sign_in.no_shell", "sign_in.closed")
        and settings.CONF.support
    ):
        sentence += " " + _("Ask %(support)s for help.") % {"support": settings.CONF.support}
    return sentence


def connect_sentence(code: str) -> str:
    """Why somebody who is signed in could not connect their account on a cluster."""
    sentences = {
        "sign_in.wrong": _("The cluster did not accept this password for your account. Check it and try again."),
        "sign_in.cannot_count": _("The portal cannot check this at the moment. Try again in a minute."),
    }
    return sentences.get(code) or sign_in_sentence(code)


def token_sentence(code: str) -> str:
    """Why a personal token could not be made."""
    return {
        "token.too_many": _("You have as many tokens as you may. Revoke one that you do not need any more."),
        "token.name": _("Please give the token a short name on one line."),
    }.get(code, _("This token cannot be made."))


def factor_sentence(code: str) -> str:
    """Why a second step was not made, or not kept."""
    return {
        "factor.wrong": _("This code does not fit. A code counts once; wait for the next one and try again."),
        "factor.throttled": _("Too many attempts. Wait ten minutes, then try again."),
        "sign_in.cannot_count": _("The portal cannot check this at the moment. Try again in a minute."),
        "factor.name": _("Please give it a short name on one line."),
        "factor.too_many": _("You have as many as you may. Remove one that you do not need any more."),
        "factor.passkey": _("The passkey could not be checked. Try again."),
    }.get(code, _("That did not work. Try again."))


def enrolment_sentence(code: str) -> str:
    """What a person reads about their key on the cluster: why there is none yet, or what became of it."""
    sentences = {
        "revoked": _(
            "The key was revoked and its line was removed from the cluster. To launch again, connect your account."
        ),
        "revoked_line_left": _(
            "The key was revoked: the portal does not use it any more. The cluster could not be reached, so its line"
            " will be removed there later. To launch again, connect your account."
        ),
        "file.full": _(
            "Your home folder on the cluster is full, so the portal could not store its key. You can look around, but"
            " not launch. Delete what you do not need, then connect your cluster account on your profile page."
        ),
        "file.denied": _(
            "The portal could not write ~/.ssh/authorized_keys on the cluster. Check that your home folder and ~/.ssh"
            " belong to you and can be written to, then connect your cluster account on your profile page."
        ),
        "keys.elsewhere": _(
            "Your ~/.ssh/authorized_keys on the cluster is a link that leads out of your home folder. The portal does"
            " not follow it. Replace the link with a file, then connect your cluster account on your profile page."
        ),
        "enrol.asks_more": _(
            "This cluster asks for more than your password each time, which the portal cannot answer for you later. You"
            " can look around, but not launch. Ask the administrators."
        ),
        "enrol.not_accepted": _(
            "The portal stored a key on the cluster, but the cluster does not accept it, so it was removed again. Check"
            " that nobody but you can write to your home folder and ~/.ssh; else ask the administrators."
        ),
    }
    general = _(
        "The portal could not get ready to start sessions for you on the cluster. Connect your cluster account on your"
        " profile page in a moment."
    )
    return sentences.get(code, general)
