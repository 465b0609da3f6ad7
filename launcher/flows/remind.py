"""Beat's round of every few seconds: owners are warned of ends to come, and mail that is due is taken up again."""

from __future__ import annotations

import structlog

from launcher import dispatch, selectors, services

log = structlog.get_logger(__name__)

AT_A_TIME = 200
"""Mails that one round takes up; the rest comes with the next one."""


def warn_of_ends() -> None:
    """Warn the owners of sessions whose end is nearer than minutes that they chose."""
    for session_id in selectors.ends_to_warn_of():
        try:
            services.warn_of_end(session_id)
        except Exception:  # one session must not take the others' warnings and mails away
            log.exception("end_not_warned_of", session=session_id)


def take_up_mail() -> None:
    """Send what is due: a mail that failed, or one whose message was lost."""
    for notice_id in selectors.mail_due()[:AT_A_TIME]:
        dispatch.mail(notice_id)
