"""What a session's card and page say about more time: Extend, Continue, and which session goes on with which."""

from __future__ import annotations

from dataclasses import dataclass

from django.utils.translation import gettext as _

from launcher import selectors, services, wording
from launcher.models import InteractiveSession
from portal.clock import now

SHORT_SECONDS = 30 * 60
"""With less time than that left, Continue is offered beside Extend."""


@dataclass(frozen=True, slots=True)
class Kin:
    """A session that this one continues, or by which it is continued."""

    id: str
    title: str


@dataclass(frozen=True, slots=True)
class MoreTime:
    """All in words; ``can_…``: there is something to press."""

    can_extend: bool
    is_asked: bool  # the cluster has not answered yet
    extend_text: str  # what it does, or why it is not possible; empty where the site does not offer it
    refused_text: str  # why the last one was not granted
    details: str  # the scheduler's own words for that
    walltime_seconds: int  # seen by whoever presses
    can_continue: bool
    suggests_continue: bool  # there is no other way, or the time is short
    continues: Kin | None
    goes_on_in: Kin | None

    @property
    def has_choices(self) -> bool:
        """Whether there is anything to show beside the kin."""
        return self.can_extend or self.is_asked or self.suggests_continue or bool(self.refused_text)


def more_time_of(session: InteractiveSession, *, is_owner: bool) -> MoreTime:
    """What ``session`` offers its owner; others see which session goes on with which."""
    verdict = services.verdict_of(session)
    going_on = selectors.continuation_of(session)
    can_continue = is_owner and going_on is None and selectors.may_be_continued(session)
    left = (session.walltime_ends_at - now()).total_seconds() if session.walltime_ends_at is not None else 0
    is_asked = verdict.code == "extend.asked"
    is_offered = is_owner and session.is_live and verdict.code not in ("extend.not_offered", "extend.not_running")
    return MoreTime(
        can_extend=is_owner and verdict.is_possible,
        is_asked=is_owner and is_asked,
        extend_text=_extend_text(verdict.walltime_seconds, session, verdict.code, verdict.params) if is_offered else "",
        refused_text=wording.extension_sentence(session.extension_refused, {}) if _shows_refusal(session) else "",
        details=session.extension_refused_detail if _shows_refusal(session) else "",
        walltime_seconds=session.walltime_seconds or 0,
        can_continue=can_continue,
        suggests_continue=can_continue and (not (verdict.is_possible or is_asked) or left < SHORT_SECONDS),
        continues=_kin(session.continues),
        goes_on_in=_kin(going_on),
    )


def _extend_text(to_seconds: int | None, session: InteractiveSession, code: str, params: object) -> str:
    why = wording.extension_sentence(code, params if isinstance(params, dict) else {}) if code else ""
    if to_seconds is None:
        return why
    added = wording.duration_text(to_seconds - (session.walltime_seconds or 0))
    does = _("The session goes on for %(added)s longer; nothing in it is interrupted.") % {"added": added}
    return f"{does} {why}".strip()


def _shows_refusal(session: InteractiveSession) -> bool:
    return bool(session.extension_refused) and session.is_live and session.stop_requested_at is None


def _kin(session: InteractiveSession | None) -> Kin | None:
    return Kin(session.id, session.title or session.id) if session is not None else None
