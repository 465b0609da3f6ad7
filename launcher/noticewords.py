"""What people read of a notice, made for each reader from its kind and parameters: on pages and in mails.

A new kind of news needs a line in ``_said`` and one in ``subject``. ``params`` may hold ``ends_at`` (ISO 8601): the
moment the sentence is about.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from django.utils.translation import gettext as _

from launcher import endwarnings, endwords, wording
from launcher.models import InteractiveSession, Notice, NoticeKind
from launcher.parts import apps
from launcher.states import SessionState


@dataclass(frozen=True, slots=True)
class NoticeText:
    """One sentence around a moment, which each reader sees in their own zone. Without a moment all is ``before``."""

    kind: str
    before: str
    at: dt.datetime | None = None
    after: str = ""


def session_name(session: InteractiveSession) -> str:
    """What its owner called it, or the app's name."""
    app = apps().get(session.app)
    return session.title or (wording.translated(app.name) if app else session.app)


def notice_text(notice: Notice) -> NoticeText:
    """The notice in one or two sentences, without the session's name."""
    at = endwarnings.end_in(notice.params)
    before, mark, after = (_said(notice) % {"at": "\0"}).partition("\0")
    return NoticeText(notice.kind, before, at if mark else None, after)


def _said(notice: Notice) -> str:
    session = notice.session
    if notice.kind == NoticeKind.READY:
        return _("Your notebook is ready.")
    if notice.kind == NoticeKind.ENDED:
        parts = (endwords.end_sentence(session), endwords.end_cure(session))
        return wording.joined(*parts).replace("%", "%%")
    if notice.kind == NoticeKind.VISIT:
        said: str = _("%(visitor)s opened this session to help: %(reason)s") % notice.params
        return said.replace("%", "%%")
    if notice.kind == NoticeKind.IDLE:
        return _("Nobody works in this session, so it will be stopped at %(at)s. Go on working to keep it.")
    return _("This session ends at %(at)s. Save your work.")


def subject(notice: Notice) -> str:
    """The title of a mail or of a browser's notice: the session's name and what is the matter, on one line."""
    pattern = {
        NoticeKind.READY: _("%(name)s is ready"),
        NoticeKind.TIME: _("%(name)s ends soon"),
        NoticeKind.IDLE: _("%(name)s will be stopped soon"),
        NoticeKind.VISIT: _("An administrator opened %(name)s"),
        NoticeKind.ENDED: _("%(name)s has ended"),
    }[NoticeKind(notice.kind)]
    return " ".join((pattern % {"name": session_name(notice.session)}).split())


def is_active(notice: Notice, session: InteractiveSession) -> bool:
    """Whether what was told is still to come: the end is the one that was told, nobody has worked since."""
    if not session.is_live or session.state == SessionState.STOPPING:
        return False
    if notice.kind == NoticeKind.TIME:
        return endwarnings.is_same_end(notice.params, session.walltime_ends_at)
    if notice.kind == NoticeKind.IDLE:
        return session.active_at is None or session.active_at <= notice.created_at
    return False


def active_texts(session: InteractiveSession) -> tuple[NoticeText, ...]:
    """What a card says of its session's notices: the last one of each kind, while it holds."""
    last = {notice.kind: notice for notice in sorted(session.notices.all(), key=lambda notice: notice.pk)}
    return tuple(notice_text(notice) for notice in last.values() if is_active(notice, session))
