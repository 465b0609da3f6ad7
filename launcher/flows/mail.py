"""Sends a notice by e-mail, in the owner's language and time zone: plain text, with a link to the session's page.

The link leads to a page that asks for a sign-in, never into a notebook. While the mail server is known to be away,
nothing is tried, so that workers do not all wait for it.
"""

from __future__ import annotations

import contextlib
import smtplib
import zoneinfo
from urllib.parse import urlsplit

import structlog
from django.conf import settings
from django.core.cache import cache
from django.core.mail import EmailMessage, get_connection
from django.urls import reverse
from django.utils import timezone, translation
from django.utils.formats import date_format
from django.utils.translation import gettext as _
from redis import RedisError

from launcher import services
from launcher.models import Notice, NoticeKind
from launcher.noticewords import NoticeText, is_active, notice_text, subject
from portal.accounts.models import User

log = structlog.get_logger(__name__)

_AWAY = "mail:away"
AWAY_SECONDS = 30
"""So long nobody tries a mail server that could not be reached."""


def mail(notice_id: int) -> None:
    """Send the notice, if it is due and still has sense. A failure is tried again later; see ``services.noticing``."""
    if _is_away():
        return  # the notice stays due: a later round finds it
    notice = services.claim_mail(notice_id)
    if notice is None:
        return
    owner = notice.session.owner
    if owner is None or not _is_wanted(notice, owner):
        services.give_up_mail(notice_id)
        return
    try:
        with contextlib.closing(get_connection()) as connection:  # Django leaves one open where TLS was refused
            connection.send_messages([message_of(notice, owner)])
    except smtplib.SMTPRecipientsRefused as error:
        codes = [code for code, _words in error.recipients.values()]
        if all(code >= 500 for code in codes):
            services.give_up_mail(notice_id)
        log.warning("mail_recipient_refused", notice=notice_id, codes=codes, attempt=notice.mail_attempts)
    except (OSError, smtplib.SMTPException) as error:  # its words may hold addresses: the kind and code are enough
        _note_away(error)
        code = getattr(error, "smtp_code", None)
        log.warning(
            "mail_not_sent", notice=notice_id, error=type(error).__name__, code=code, attempt=notice.mail_attempts
        )
    else:
        services.record_mailed(notice_id)


def _is_wanted(notice: Notice, owner: User) -> bool:
    """Whether the owner wants mail, and the notice still tells something true."""
    if not (settings.EMAIL_HOST and owner.is_active and owner.mail_notices and owner.email):
        return False
    if notice.kind in (NoticeKind.ENDED, NoticeKind.VISIT):
        return True
    if notice.kind == NoticeKind.READY:
        return notice.session.is_live
    return is_active(notice, notice.session)


def _is_away() -> bool:
    try:
        return bool(cache.get(_AWAY))
    except RedisError:
        return False


def _note_away(error: Exception) -> None:
    if isinstance(error, smtplib.SMTPResponseException):
        return  # it is there, it said so
    try:
        cache.set(_AWAY, 1, AWAY_SECONDS)
    except RedisError as lost:  # then each worker finds out by itself
        log.warning("cache_unreachable", error=str(lost))


def message_of(notice: Notice, owner: User) -> EmailMessage:
    """The mail. The same notice always has the same Message-ID: a second delivery can be told from a second notice."""
    language = owner.language if owner.language in dict(settings.LANGUAGES) else settings.LANGUAGE_CODE
    with translation.override(language), timezone.override(_zone(owner.time_zone)):
        address = settings.CONF.portal_url + reverse("launcher:session", args=[notice.session_id])
        profile = settings.CONF.portal_url + reverse("accounts:profile")
        reason = _(
            "You get this because you launched the session. Change what you are told, and when, in your profile:"
        )
        paragraphs = [_plain(notice_text(notice)), address, f"-- \n{settings.CONF.site_name}\n{reason}\n{profile}"]
        host = urlsplit(settings.CONF.portal_url).hostname
        return EmailMessage(
            subject=subject(notice),
            body="\n\n".join(paragraphs) + "\n",
            from_email=settings.DEFAULT_FROM_EMAIL,
            to=[owner.email],
            headers={"Auto-Submitted": "auto-generated", "Message-ID": f"<notice-{notice.pk}@{host}>"},
        )


def _zone(name: str) -> zoneinfo.ZoneInfo:
    try:
        return zoneinfo.ZoneInfo(name or "UTC")
    except (zoneinfo.ZoneInfoNotFoundError, ValueError):  # the machine's list of zones changes with its updates
        return zoneinfo.ZoneInfo("UTC")


def _plain(text: NoticeText) -> str:
    if text.at is None:
        return text.before
    local = timezone.localtime(text.at)
    moment = f"{date_format(local, 'DATE_FORMAT')} {local:%H:%M} ({timezone.get_current_timezone()})"
    return f"{text.before}{moment}{text.after}"
