"""Notices by e-mail, through a real SMTP server on loopback: once, late when it must be, never to the wrong people."""

from __future__ import annotations

import datetime as dt
import email
import email.policy
from collections.abc import Iterator
from email.message import EmailMessage
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from django.core.cache import cache
from django.db import transaction
from django.utils import timezone

from launcher import dispatch, services
from launcher.flows.mail import mail
from launcher.flows.remind import take_up_mail, warn_of_ends
from launcher.models import InteractiveSession, Notice, NoticeKind
from launcher.services.noticing import PAUSES
from launcher.states import EndReason
from portal.accounts.models import User
from portal.clock import now
from tests.integration.test_notices import running

pytestmark = [pytest.mark.integration, pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("valkey")]


class MailServer:
    """A mail server that keeps what it takes. ``answer``: what it says to the next mails."""

    def __init__(self) -> None:
        self.taken: list[EmailMessage] = []
        self.recipients: list[str] = []
        self.answer = "250 OK"
        self.recipient_answer = "250 OK"
        self._controller: Controller | None = None
        self.port = 0

    async def handle_RCPT(  # noqa: N802  # the name that aiosmtpd looks for
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Whether there is such a mailbox."""
        if self.recipient_answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return self.recipient_answer

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802  # as above
        """Take the mail, or not."""
        if self.answer.startswith("250"):
            assert isinstance(envelope.content, bytes)
            message = email.message_from_bytes(envelope.content, policy=email.policy.default)
            assert isinstance(message, EmailMessage)
            self.taken.append(message)
            self.recipients += envelope.rcpt_tos
        return self.answer

    def start(self) -> None:
        """Answer, on the same port as before."""
        self._controller = Controller(self, hostname="127.0.0.1", port=self.port)
        if not self.port:
            self._controller.port = self.port = free_port()
        self._controller.start()

    def stop(self) -> None:
        """Be away."""
        if self._controller is not None:
            self._controller.stop()
            self._controller = None


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    from launcher.demo import ports

    return ports.free_port()


@pytest.fixture
def server(settings: Any) -> Iterator[MailServer]:
    """A mail server that the portal is set to use."""
    server = MailServer()
    server.start()
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", server.port
    settings.DEFAULT_FROM_EMAIL = "Notebooks <portal@example.org>"
    yield server
    server.stop()


@pytest.fixture
def reader(alice: User) -> User:
    """Alice, with an address."""
    alice.email = "alice@example.org"
    alice.save()
    return alice


@pytest.fixture(autouse=True)
def messages(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What would be sent to the workers; the tests run it by hand."""
    sent: list[int] = []
    monkeypatch.setattr(dispatch, "mail", lambda pk: transaction.on_commit(lambda: sent.append(pk)))
    return sent


def work(sent: list[int]) -> None:
    """Do what a worker does with the messages that wait."""
    while sent:
        mail(sent.pop(0))


def later() -> None:
    """Let the pause of every mail be over, and what is known of the server be forgotten."""
    Notice.objects.filter(mail_due_at__isnull=False).update(mail_due_at=now())
    cache.clear()


def end(session: InteractiveSession) -> None:
    services.end_session(session.pk, reason=EndReason.OUT_OF_MEMORY, code="ended.out_of_memory", params={})


def test_an_owner_reads_in_a_mail_that_it_ends(reader: User, server: MailServer, messages: list[int]) -> None:
    session = running(reader, left=9, title="Analysis")
    warn_of_ends()
    work(messages)
    (message,) = server.taken
    assert server.recipients == ["alice@example.org"]
    assert message["Subject"] == "Analysis ends soon"
    assert message["From"] == "Notebooks <portal@example.org>"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message.get_content_type() == "text/plain"
    assert session.walltime_ends_at is not None
    words = message.get_content()
    assert "This session ends at" in words
    assert f"{session.walltime_ends_at:%Y %H:%M} (UTC)" in words
    assert f"/sessions/{session.pk}/" in words
    assert session.host_label not in words


def test_an_owner_reads_in_a_mail_who_opened_their_session_and_why(
    reader: User, admin: User, server: MailServer, messages: list[int], settings: Any
) -> None:
    settings.CONF = settings.CONF.model_copy(update={"open_as_user": True})
    session = running(reader, left=9, title="Analysis")
    services.open_as_user(session=session, actor=admin, reason="A kernel is stuck at 100%", address="")
    work(messages)
    (message,) = server.taken
    assert server.recipients == ["alice@example.org"]
    assert message["Subject"] == "An administrator opened Analysis"
    assert "admin opened this session to help: A kernel is stuck at 100%" in message.get_content()
    assert session.host_label not in message.get_content()


def test_a_mail_is_in_the_owners_language_and_zone(reader: User, server: MailServer, messages: list[int]) -> None:
    User.objects.update(language="zh-hans", time_zone="Asia/Shanghai")
    session = running(reader, left=9)
    end(session)
    warned = running(reader, left=9)
    warn_of_ends()
    work(messages)
    ended, warning = (message.get_content() for message in server.taken)
    assert "内存" in ended
    assert warned.walltime_ends_at is not None
    local = timezone.localtime(warned.walltime_ends_at, dt.timezone(dt.timedelta(hours=8)))
    assert f"{local.year}年{local.month}月{local.day}日 {local:%H:%M} (Asia/Shanghai)" in warning


def test_the_same_mail_is_sent_once_however_often_the_message_comes(
    reader: User, server: MailServer, messages: list[int]
) -> None:
    end(running(reader, left=60))
    work(messages * 3)
    take_up_mail()
    work(messages)
    assert len(server.taken) == 1


def test_a_mail_whose_message_was_lost_is_taken_up(reader: User, server: MailServer, messages: list[int]) -> None:
    end(running(reader, left=60))
    messages.clear()
    take_up_mail()
    work(messages)
    assert len(server.taken) == 1


def test_a_mail_goes_out_when_the_server_is_back(reader: User, server: MailServer, messages: list[int]) -> None:
    server.stop()
    end(running(reader, left=60))
    work(messages)
    notice = Notice.objects.get()
    assert (notice.mail_attempts, notice.mailed_at) == (1, None)
    assert notice.mail_due_at is not None
    assert notice.mail_due_at - now() > dt.timedelta(seconds=50)
    take_up_mail()
    assert messages == []  # not before its pause is over
    server.start()
    later()
    take_up_mail()
    work(messages)
    notice.refresh_from_db()
    assert len(server.taken) == 1
    assert notice.mailed_at is not None


def test_a_server_that_is_away_is_tried_once_for_all(reader: User, server: MailServer, messages: list[int]) -> None:
    server.stop()
    for _ in range(3):
        end(running(reader, left=60))
    work(messages)
    assert sorted(Notice.objects.values_list("mail_attempts", flat=True)) == [0, 0, 1]


def test_a_mail_that_a_worker_died_with_is_sent_again_with_the_same_id(
    reader: User, server: MailServer, messages: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    end(running(reader, left=60))

    def die(_notice_id: int) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(services, "record_mailed", die)
        with pytest.raises(SystemExit):
            work(messages)
    later()
    take_up_mail()
    work(messages)
    assert len({message["Message-ID"] for message in server.taken}) == 1
    assert len(server.taken) == 2
    assert Notice.objects.get().mailed_at is not None


def test_pauses_grow_and_then_the_mail_is_given_up(reader: User, server: MailServer, messages: list[int]) -> None:
    server.answer = "451 try later"
    end(running(reader, left=60))
    pauses = []
    for _ in range(len(PAUSES) + 3):
        work(messages)
        due = Notice.objects.get().mail_due_at
        pauses.append(round((due - now()).total_seconds() / 60) if due else None)
        later()
        take_up_mail()
    assert pauses[: len(PAUSES)] == [1, 3, 10, 30, 60, 120, 240]
    assert pauses[len(PAUSES) :] == [None] * 3
    assert Notice.objects.get().mail_attempts == len(PAUSES) + 1


def test_a_mailbox_that_does_not_exist_is_tried_once(reader: User, server: MailServer, messages: list[int]) -> None:
    server.recipient_answer = "550 no such mailbox"
    end(running(reader, left=60))
    work(messages)
    assert Notice.objects.get().mail_due_at is None


@pytest.mark.parametrize("change", [{"is_active": False}, {"mail_notices": False}, {"email": ""}])
@pytest.mark.parametrize("when", ["before", "after"])
def test_who_gets_no_mail(
    reader: User, server: MailServer, messages: list[int], change: dict[str, object], when: str
) -> None:
    session = running(reader, left=60)
    if when == "before":
        User.objects.update(**change)
    end(session)
    User.objects.update(**change)
    work(messages)
    later()
    take_up_mail()
    work(messages)
    assert server.taken == []
    assert Notice.objects.get().mail_due_at is None


def test_a_warning_is_not_sent_when_the_session_has_ended(
    reader: User, server: MailServer, messages: list[int]
) -> None:
    session = running(reader, left=9)
    warn_of_ends()
    end(session)
    work(messages)
    assert [message["Subject"] for message in server.taken] == ["Analysis has ended"]


def test_a_title_cannot_add_a_header(reader: User, server: MailServer, messages: list[int]) -> None:
    end(running(reader, left=60, title="A\r\nBcc: bob@example.org\n\n"))
    work(messages)
    (message,) = server.taken
    assert message["Subject"] == "A Bcc: bob@example.org has ended"
    assert message["Bcc"] is None
    assert server.recipients == ["alice@example.org"]


def test_who_gave_no_address_is_told_on_pages_only(alice: User, server: MailServer, messages: list[int]) -> None:
    end(running(alice, left=60))
    assert messages == []
    assert Notice.objects.get().kind == NoticeKind.ENDED


def test_a_server_without_starttls_gets_no_mail(
    reader: User, server: MailServer, messages: list[int], settings: Any
) -> None:
    settings.EMAIL_USE_TLS = True
    end(running(reader, left=60))
    work(messages)
    assert server.taken == []
    assert Notice.objects.get().mail_due_at is not None
