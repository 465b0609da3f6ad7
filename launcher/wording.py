"""Words that many pages use: states, amounts, durations. Sentences for codes are in the modules named ``…words``."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from django.utils.translation import get_language, ngettext
from django.utils.translation import gettext as _

from launcher.catalog import LaunchChoices
from launcher.clusters import Cluster
from launcher.models import InteractiveSession
from launcher.states import SessionState


def translated(texts: Mapping[str, str]) -> str:
    """The text in the reader's language, else in English."""
    language = (get_language() or "en").lower()
    return texts.get(language) or texts.get(language.split("-")[0]) or texts["en"]


def joined(*sentences: str) -> str:
    """Sentences one after the other, with a space between them where the language has one; empty ones are left out."""
    return functools.reduce(
        lambda first, second: _("%(first)s %(second)s") % {"first": first, "second": second},
        [sentence for sentence in sentences if sentence] or [""],
    )


def state_label(state: SessionState) -> str:
    """A state in a word or two."""
    return {
        SessionState.SUBMITTING: _("Sending"),
        SessionState.QUEUED: _("Waiting"),
        SessionState.STARTING: _("Starting"),
        SessionState.READY: _("Ready"),
        SessionState.STOPPING: _("Stopping"),
        SessionState.ENDED: _("Ended"),
    }[state]


def paused_label() -> str:
    """What is said instead of the state while the cluster lets the job stand still."""
    return _("Paused")


def memory_text(mib: int) -> str:
    """``4 GB`` or ``512 MB``."""
    return f"{mib / 1024:.10g} GB" if mib >= 1024 and mib % 128 == 0 else f"{mib} MB"


def rounded_memory_text(mib: int) -> str:
    """``15.7 GB`` or ``512 MB``, rounded for reading."""
    return f"{mib / 1024:.1f} GB".replace(".0 GB", " GB") if mib >= 1024 else f"{mib} MB"


def duration_text(seconds: int) -> str:
    """``2 hours``, ``1 h 30 min`` or ``45 minutes``."""
    hours, minutes = divmod(max(0, seconds) // 60, 60)
    if hours and minutes:
        return _("%(hours)d h %(minutes)d min") % {"hours": hours, "minutes": minutes}
    if hours:
        return ngettext("%(count)d hour", "%(count)d hours", hours) % {"count": hours}
    return ngettext("%(count)d minute", "%(count)d minutes", minutes) % {"count": minutes}


def hours_text(hours: object) -> str:
    """``1 hour`` or ``2.5 hours``: a number as people write it into the form."""
    return ngettext("%(count)s hour", "%(count)s hours", 1 if hours == 1 else 2) % {"count": hours}


def environment_text(choices: LaunchChoices) -> str:
    """Which environment was chosen."""
    if choices.image:
        return choices.image.rsplit("/", 1)[-1]
    if choices.environment_value:
        return choices.environment_value
    return _("Site default")


def settings_rows(session: InteractiveSession, cluster: Cluster | None) -> list[tuple[str, str]]:
    """What was asked for, as rows of a table; the queue by the name that the form has for it."""
    choices = LaunchChoices.from_dict(session.choices)
    queue = cluster.queue(choices.queue) if cluster else None
    rows = [
        (_("Environment"), environment_text(choices)),
        (_("Cores"), str(choices.cores)),
        (_("Memory"), memory_text(choices.memory_mib)),
        (_("Time"), duration_text(choices.walltime_seconds)),
    ]
    if choices.gpus:
        rows.append((_("GPUs"), str(choices.gpus)))
    rows += [
        (_("Queue"), (queue.label if queue else "") or choices.queue or _("The cluster's default")),
        (_("Working folder"), choices.folder or _("Your home folder")),
    ]
    return rows


def connect_first_sentence(session: InteractiveSession) -> str:
    """Nothing can be known of a session, since the portal may not act as its owner any more."""
    if SessionState(session.state) is SessionState.SUBMITTING:
        return _("It has not been sent to the cluster yet. Connect your cluster account so that the portal can do it.")
    return _("Connect your cluster account so that the portal can look. The session itself is not affected.")


def shut_out_sentence(code: str) -> str:
    """Why the portal does not get to the cluster, where it is more than no answer; ``%(state)s`` is what was known."""
    sentences = {
        "ssh.password_expired": _(
            "The cluster wants you to choose a new password: sign in to it once by SSH. Last known: %(state)s"
        ),
        "ssh.host_key_changed": _(
            "The cluster's login computer shows another key than the one the administrators wrote down, so the portal"
            " does not connect to it. They have been told. Last known: %(state)s"
        ),
        "ssh.key_refused": _(
            "The cluster does not accept the portal's key for your account any more. Connect your cluster account on"
            " your profile page. Last known: %(state)s"
        ),
    }
    general = _("The cluster does not let the portal in with your account at the moment. Last known: %(state)s")
    return sentences.get(code, general)


class Blank(dict[str, object]):
    """Parameters where a missing one reads as nothing."""

    def __missing__(self, key: str) -> str:
        return ""
