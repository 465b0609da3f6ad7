"""What a session's card and page say about more time: Extend, Continue, and which session goes on with which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from django.utils.translation import gettext as _

from launcher import refusalwords, selectors, services, wording
from launcher.allowances import Entry
from launcher.extension import Verdict
from launcher.models import InteractiveSession
from portal.clock import now

SHORT_SECONDS = 30 * 60
"""With less time than that left, Continue is offered beside Extend."""


_NOTHING_TO_SAY = frozenset({"extend.not_offered", "extend.not_running", "extend.stopping"})


@dataclass(frozen=True, slots=True)
class MoreTime:
    """All in words; ``can_…``: there is something to press."""

    can_extend: bool
    is_asked: bool  # the cluster has not answered yet
    extend_text: str  # what it does, or why it is not possible; empty where there is nothing to say
    refused_text: str  # why the last one was not granted
    details: str  # the scheduler's own words for that
    walltime_seconds: int  # seen by whoever presses
    can_continue: bool
    suggests_continue: bool  # there is no other way, or the time is short
    continues: str  # the id of the session whose work this one goes on with; empty: none
    goes_on_in: str

    @property
    def has_choices(self) -> bool:
        """Whether there is anything to show beside the kin."""
        return self.can_extend or self.is_asked or self.suggests_continue or bool(self.refused_text)


def more_time_of(session: InteractiveSession, *, is_owner: bool, entries: Sequence[Entry] | None = None) -> MoreTime:
    """What ``session`` offers its owner; others see which session goes on with which."""
    verdict = services.verdict_of(session, entries) if is_owner else Verdict(None, "extend.not_offered")
    going_on = selectors.continuation_of(session)
    can_continue = is_owner and going_on is None and selectors.may_be_continued(session)
    left = (session.walltime_ends_at - now()).total_seconds() if session.walltime_ends_at is not None else 0
    is_asked = verdict.code == "extend.asked"
    is_offered = session.is_live and verdict.code not in _NOTHING_TO_SAY
    is_refused = bool(session.extension_refused) and session.is_live and session.stop_requested_at is None
    text = _extend_text(verdict.walltime_seconds, session, verdict.code, verdict.params) if is_offered else ""
    return MoreTime(
        can_extend=verdict.is_possible,
        is_asked=is_asked,
        extend_text="" if is_refused and verdict.is_possible else text,
        refused_text=refusalwords.extension_sentence(session.extension_refused, {}) if is_refused else "",
        details=session.extension_refused_detail if is_refused else "",
        walltime_seconds=session.walltime_seconds or 0,
        can_continue=can_continue,
        suggests_continue=can_continue
        and (is_refused or not (verdict.is_possible or is_asked) or left < SHORT_SECONDS),
        continues=_id_of(session.continues),
        goes_on_in=_id_of(going_on),
    )


def _extend_text(to_seconds: int | None, session: InteractiveSession, code: str, params: object) -> str:
    why = refusalwords.extension_sentence(code, params if isinstance(params, dict) else {}) if code else ""
    if to_seconds is None:
        return why
    added = wording.duration_text(to_seconds - (session.walltime_seconds or 0))
    does = _("The session can run %(added)s longer; nothing in it is interrupted.") % {"added": added}
    return wording.joined(does, why)


def _id_of(session: InteractiveSession | None) -> str:
    return session.id if session is not None else ""
