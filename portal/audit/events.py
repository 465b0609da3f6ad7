"""Every fact the portal records: one frozen dataclass an event, registered by being defined.

An event is in the past tense and has a dotted ``NAME``, a ``VERSION`` that grows when its fields change, a
``LABEL`` for people, and a docstring that ends with what is *not* recorded. Fields are plain text, numbers,
truth values or nothing. Who did it, from where and in which session are no fields:
``portal.audit.services.record`` takes them apart.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

from django.utils.translation import gettext_lazy as _

if TYPE_CHECKING:
    from django_stubs_ext import StrPromise

Value = str | int | float | bool | None
"""What a field of an event may hold."""

REGISTRY: dict[str, type[Event]] = {}
"""Every event by its name."""


class Event:
    """The base of all events. A subclass is in the registry from its definition on."""

    __slots__ = ()
    NAME: ClassVar[str]
    VERSION: ClassVar[int] = 1
    LABEL: ClassVar[StrPromise]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        # a slotted dataclass is made twice, so it may come again; another class may not take its name
        known = REGISTRY.get(cls.NAME)
        if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise TypeError(f"{cls.__qualname__} and {known.__qualname__} are both called {cls.NAME}")
        REGISTRY[cls.NAME] = cls


def fields_of(event: Event) -> dict[str, Value]:
    """The event's fields by name. Raises TypeError for a value that JSON could not give back unchanged."""
    values: dict[str, Value] = {}
    for field in dataclasses.fields(event):  # type: ignore[arg-type]  # every subclass is a dataclass; a test says so
        value = getattr(event, field.name)
        if value is not None and not isinstance(value, str | int | float):
            raise TypeError(f"{event.NAME}: {field.name} is a {type(value).__name__}, not text, a number or nothing")
        values[field.name] = value
    return values


def label_of(name: str) -> str:
    """What people call the event ``name``; its own name when the event is of an older or newer portal."""
    known = REGISTRY.get(name)
    return str(known.LABEL) if known else name


# sessions


@dataclasses.dataclass(frozen=True, slots=True)
class SessionLaunched(Event):
    """Somebody asked for a session and the portal accepted.

    Not recorded: the session's secret, the paths of environment, image and working folder.
    """

    NAME: ClassVar[str] = "session.launched"
    LABEL: ClassVar[StrPromise] = _("Session launched")
    app: str
    cluster: str
    title: str
    cores: int
    memory_mib: int
    walltime_seconds: int
    gpus: int
    queue: str


@dataclasses.dataclass(frozen=True, slots=True)
class SessionSubmitted(Event):
    """The scheduler accepted the job. Not recorded: the job script and the submit command."""

    NAME: ClassVar[str] = "session.submitted"
    LABEL: ClassVar[StrPromise] = _("Job submitted")
    job_id: str


@dataclasses.dataclass(frozen=True, slots=True)
class SessionJobAdopted(Event):
    """The answer to a submission was lost and its job was found by the session's marker.

    Not recorded: the scheduler's answers.
    """

    NAME: ClassVar[str] = "session.job_adopted"
    LABEL: ClassVar[StrPromise] = _("Job found again")
    job_id: str


@dataclasses.dataclass(frozen=True, slots=True)
class SessionStarted(Event):
    """The job began to run. Not recorded: the other hosts of a job with several."""

    NAME: ClassVar[str] = "session.started"
    LABEL: ClassVar[StrPromise] = _("Job started")
    execution_host: str


@dataclasses.dataclass(frozen=True, slots=True)
class SessionReady(Event):
    """The server in the job answered for the first time. Not recorded: its port, its version, its answer."""

    NAME: ClassVar[str] = "session.ready"
    LABEL: ClassVar[StrPromise] = _("Session ready")
    seconds_since_launch: float


@dataclasses.dataclass(frozen=True, slots=True)
class SessionConnected(Event):
    """Somebody opened the session; once a minute for the same person from the same address (IPv6: the same /64).

    Not recorded: the browser, each request, what was seen or typed in it.
    """

    NAME: ClassVar[str] = "session.connected"
    LABEL: ClassVar[StrPromise] = _("Session opened")
    via: str


@dataclasses.dataclass(frozen=True, slots=True)
class SessionOpenedAsUser(Event):
    """An administrator opened the session of ``owner`` for ``minutes`` at most, for this ``reason``.

    Not recorded: what was seen or done in it.
    """

    NAME: ClassVar[str] = "session.opened_as_user"
    LABEL: ClassVar[StrPromise] = _("Opened by an administrator")
    owner: str
    reason: str
    minutes: int


@dataclasses.dataclass(frozen=True, slots=True)
class SessionVisitEnded(Event):
    """Somebody ended the visit of ``visitor`` before its time. Not recorded: visits that ran out."""

    NAME: ClassVar[str] = "session.visit_ended"
    LABEL: ClassVar[StrPromise] = _("Administrator's visit ended")
    visitor: str
    by_owner: bool


@dataclasses.dataclass(frozen=True, slots=True)
class SessionExtensionRequested(Event):
    """Its owner asked for more time: ``walltime_seconds`` in all. Not recorded: that they asked again for the same."""

    NAME: ClassVar[str] = "session.extension_requested"
    LABEL: ClassVar[StrPromise] = _("More time asked for")
    walltime_seconds: int


@dataclasses.dataclass(frozen=True, slots=True)
class SessionExtended(Event):
    """The scheduler lets the job run for ``walltime_seconds`` in all. Not recorded: the account that asked it."""

    NAME: ClassVar[str] = "session.extended"
    LABEL: ClassVar[StrPromise] = _("Session extended")
    walltime_seconds: int


@dataclasses.dataclass(frozen=True, slots=True)
class SessionExtensionRefused(Event):
    """The scheduler, or the login host, refused the extension to ``walltime_seconds`` in all.

    ``code`` is the key of the sentence people read. Not recorded: the scheduler's own words.
    """

    NAME: ClassVar[str] = "session.extension_refused"
    LABEL: ClassVar[StrPromise] = _("Extension refused")
    walltime_seconds: int
    code: str


@dataclasses.dataclass(frozen=True, slots=True)
class SessionContinued(Event):
    """Its owner launched a further session that goes on with this one's work: ``by``. This one runs on.

    Not recorded: the notebook in which the owner was.
    """

    NAME: ClassVar[str] = "session.continued"
    LABEL: ClassVar[StrPromise] = _("Continued in a new session")
    by: str


@dataclasses.dataclass(frozen=True, slots=True)
class SessionStopRequested(Event):
    """Somebody, or a rule, asked for the session's end. Not recorded: what was open in it."""

    NAME: ClassVar[str] = "session.stop_requested"
    LABEL: ClassVar[StrPromise] = _("Stop requested")
    by_owner: bool
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class SessionGivenUp(Event):
    """An administrator ended a session without the cluster's word: its job may still run.

    Not recorded: why the cluster did not answer.
    """

    NAME: ClassVar[str] = "session.given_up"
    LABEL: ClassVar[StrPromise] = _("Session given up")
    job_id: str


@dataclasses.dataclass(frozen=True, slots=True)
class SessionKeptRunning(Event):
    """The owner of a session that nobody had used asked to keep it. Not recorded: when it had been used last."""

    NAME: ClassVar[str] = "session.kept_running"
    LABEL: ClassVar[StrPromise] = _("Kept running though unused")


@dataclasses.dataclass(frozen=True, slots=True)
class SessionCancelled(Event):
    """The scheduler accepted the cancellation of the job. Not recorded: its answer."""

    NAME: ClassVar[str] = "session.cancelled"
    LABEL: ClassVar[StrPromise] = _("Job cancelled")
    job_id: str


@dataclasses.dataclass(frozen=True, slots=True)
class SessionEnded(Event):
    """No job of the session exists any more.

    ``reason`` is the word for machines, ``code`` the key of the sentence people read. Not recorded: the log's
    tail, the scheduler's own words, the resources used.
    """

    NAME: ClassVar[str] = "session.ended"
    LABEL: ClassVar[StrPromise] = _("Session ended")
    reason: str
    code: str
    exit_status: int | None
    job_id: str


@dataclasses.dataclass(frozen=True, slots=True)
class SessionFolderRemoved(Event):
    """The portal removed an ended session's folder from its owner's home, after the site's retention time.

    Not recorded: the folder's path and what was in it.
    """

    NAME: ClassVar[str] = "session.folder_removed"
    LABEL: ClassVar[StrPromise] = _("Session folder removed")


@dataclasses.dataclass(frozen=True, slots=True)
class SessionAccessDenied(Event):
    """Somebody was kept from a session that is not theirs, or not any more, at ``door``: http, websocket, portal, api
    or live. Without a session: from an address where none is.

    Repeated attempts are recorded once in ten minutes, those without a known person once an hour, and once a day what
    is nothing unusual. Not recorded: the path, the query, the browser, a host that is none of ours.
    """

    NAME: ClassVar[str] = "session.access_denied"
    LABEL: ClassVar[StrPromise] = _("Access to a session denied")
    door: str
    cause: str


# people


@dataclasses.dataclass(frozen=True, slots=True)
class UserSignedIn(Event):
    """Somebody signed in, by the ``way`` named. Not recorded: the password, the browser, the groups."""

    NAME: ClassVar[str] = "user.signed_in"
    LABEL: ClassVar[StrPromise] = _("Signed in")
    way: str


@dataclasses.dataclass(frozen=True, slots=True)
class UserSignInRefused(Event):
    """A sign-in, or a personal token, was refused. The actor is the name that was given, whether or not it
    exists. With the ``way`` connect somebody signed in tried to connect their account on a cluster.

    Not recorded: the password or the token.
    """

    NAME: ClassVar[str] = "user.sign_in_refused"
    LABEL: ClassVar[StrPromise] = _("Sign-in refused")
    way: str
    cause: str


@dataclasses.dataclass(frozen=True, slots=True)
class UserSignedOut(Event):
    """Somebody signed out. Not recorded: a portal session that merely expired."""

    NAME: ClassVar[str] = "user.signed_out"
    LABEL: ClassVar[StrPromise] = _("Signed out")


@dataclasses.dataclass(frozen=True, slots=True)
class UserSignedOutElsewhere(Event):
    """Somebody ended sign-ins of their own from another browser: ``web_sessions`` of them, with ``tokens`` tokens.

    ``everywhere``: all there were, this browser's too. Not recorded: which browsers they were.
    """

    NAME: ClassVar[str] = "user.signed_out_elsewhere"
    LABEL: ClassVar[StrPromise] = _("Signed out from elsewhere")
    everywhere: bool
    web_sessions: int
    tokens: int


@dataclasses.dataclass(frozen=True, slots=True)
class UserDisabled(Event):
    """An administrator shut ``username`` out: all their sign-ins ended. Not recorded: why."""

    NAME: ClassVar[str] = "user.disabled"
    LABEL: ClassVar[StrPromise] = _("Person shut out")
    username: str


@dataclasses.dataclass(frozen=True, slots=True)
class UserEnabled(Event):
    """An administrator let ``username`` in again. Not recorded: why."""

    NAME: ClassVar[str] = "user.enabled"
    LABEL: ClassVar[StrPromise] = _("Person let in again")
    username: str


@dataclasses.dataclass(frozen=True, slots=True)
class UserRoleChanged(Event):
    """At a sign-in the site's policy gave ``username`` another role. Not recorded: which rule it was."""

    NAME: ClassVar[str] = "user.role_changed"
    LABEL: ClassVar[StrPromise] = _("Role changed")
    username: str
    before: str
    role: str


@dataclasses.dataclass(frozen=True, slots=True)
class OpenIdTied(Event):
    """Somebody signed in by OpenID Connect for the first time. Not recorded: who they are at the provider."""

    NAME: ClassVar[str] = "user.openid_tied"
    LABEL: ClassVar[StrPromise] = _("First sign-in by OpenID Connect")
    issuer: str


@dataclasses.dataclass(frozen=True, slots=True)
class OpenIdReleased(Event):
    """Who ``username`` is at the OpenID provider was forgotten. Not recorded: who it was."""

    NAME: ClassVar[str] = "user.openid_released"
    LABEL: ClassVar[StrPromise] = _("Tie to the OpenID provider released")
    username: str
    issuer: str


@dataclasses.dataclass(frozen=True, slots=True)
class UserConfirmed(Event):
    """Somebody signed in proved again who they are, by the ``way`` named. Not recorded: for which page."""

    NAME: ClassVar[str] = "user.confirmed"
    LABEL: ClassVar[StrPromise] = _("Proved again who they are")
    way: str


@dataclasses.dataclass(frozen=True, slots=True)
class SecondFactorAdded(Event):
    """Somebody can make the second step at sign-in with this, too: ``kind`` is totp or passkey.

    Not recorded: the secret, the public key, the device.
    """

    NAME: ClassVar[str] = "second_factor.added"
    LABEL: ClassVar[StrPromise] = _("Second step added")
    kind: str
    name: str


@dataclasses.dataclass(frozen=True, slots=True)
class SecondFactorRemoved(Event):
    """Somebody took a second step away. Not recorded: when it had been used last."""

    NAME: ClassVar[str] = "second_factor.removed"
    LABEL: ClassVar[StrPromise] = _("Second step removed")
    kind: str
    name: str


@dataclasses.dataclass(frozen=True, slots=True)
class SecondFactorsReset(Event):
    """All second steps of somebody who lost them were taken away on the portal's host. Not recorded: their names."""

    NAME: ClassVar[str] = "second_factor.reset"
    LABEL: ClassVar[StrPromise] = _("Second steps reset")
    username: str
    factors: int


@dataclasses.dataclass(frozen=True, slots=True)
class RecoveryCodesMade(Event):
    """Somebody made new recovery codes; those of before are void. Not recorded: the codes."""

    NAME: ClassVar[str] = "second_factor.codes_made"
    LABEL: ClassVar[StrPromise] = _("Recovery codes made")
    codes: int


@dataclasses.dataclass(frozen=True, slots=True)
class RecoveryCodeUsed(Event):
    """A recovery code was used in place of a second step; ``left`` are left. Not recorded: the code."""

    NAME: ClassVar[str] = "second_factor.code_used"
    LABEL: ClassVar[StrPromise] = _("Recovery code used")
    left: int


@dataclasses.dataclass(frozen=True, slots=True)
class TokenCreated(Event):
    """A personal token was made. ``expires_at`` is ISO 8601 in UTC. Not recorded: the token, its digest, each
    use.
    """

    NAME: ClassVar[str] = "token.created"
    LABEL: ClassVar[StrPromise] = _("Token created")
    name: str
    scope: str
    expires_at: str


@dataclasses.dataclass(frozen=True, slots=True)
class TokenRevoked(Event):
    """A personal token was withdrawn before its time. Not recorded: the token, its digest."""

    NAME: ClassVar[str] = "token.revoked"
    LABEL: ClassVar[StrPromise] = _("Token revoked")
    name: str


@dataclasses.dataclass(frozen=True, slots=True)
class LimitChanged(Event):
    """An administrator changed what ``username``, or the members of ``group``, may have at a time.

    ``app`` and ``cluster``: what it is about; empty: all of them. ``sessions`` and ``hours`` are the new numbers;
    nothing means that the site's rule counts again. Not recorded: who the group's members are.
    """

    NAME: ClassVar[str] = "user.limit_changed"
    VERSION: ClassVar[int] = 2
    LABEL: ClassVar[StrPromise] = _("Limit changed")
    username: str
    group: str
    app: str
    cluster: str
    sessions_before: int | None
    sessions: int | None
    hours_before: float | None
    hours: float | None


@dataclasses.dataclass(frozen=True, slots=True)
class KeyEnrolled(Event):
    """The portal put the public half of a new key into the account's ``authorized_keys``, and it is accepted.

    Not recorded: either half of the key; the rest of the file.
    """

    NAME: ClassVar[str] = "credential.enrolled"
    LABEL: ClassVar[StrPromise] = _("Key enrolled")
    cluster: str
    fingerprint: str


@dataclasses.dataclass(frozen=True, slots=True)
class KeyRevoked(Event):
    """The owner took a key back: the portal does not use it any more. Not recorded: what it was used for."""

    NAME: ClassVar[str] = "credential.revoked"
    LABEL: ClassVar[StrPromise] = _("Key revoked")
    cluster: str
    fingerprint: str


@dataclasses.dataclass(frozen=True, slots=True)
class KeyLineRemoved(Event):
    """A revoked key's line left the account's ``authorized_keys``.

    ``removed`` is false where the cluster did not let the portal do it for a week: the line may still be there, and
    the private half was destroyed. Not recorded: the rest of the file.
    """

    NAME: ClassVar[str] = "credential.line_removed"
    LABEL: ClassVar[StrPromise] = _("Key's line removed")
    cluster: str
    fingerprint: str
    removed: bool


@dataclasses.dataclass(frozen=True, slots=True)
class PasswordKept(Event):
    """The account's password was kept until its owner signs out, at a sign-in or when they connected the account.

    Not recorded: the password, and when it was thrown away.
    """

    NAME: ClassVar[str] = "credential.password_kept"
    LABEL: ClassVar[StrPromise] = _("Password kept")
    cluster: str


@dataclasses.dataclass(frozen=True, slots=True)
class CredentialRefused(Event):
    """A login host refused the portal as this account, with a ``credential`` of this kind; once in ten minutes.

    Not recorded: the credential, the login host's words, which the log holds.
    """

    NAME: ClassVar[str] = "credential.refused"
    LABEL: ClassVar[StrPromise] = _("Credential refused")
    cluster: str
    credential: str
    cause: str


# the portal itself


@dataclasses.dataclass(frozen=True, slots=True)
class AuditExported(Event):
    """Somebody downloaded the audit log as ``format``, ``rows`` rows of it.

    Recorded before the first byte is sent, so a download that broke off is here too. Not recorded: the
    filters.
    """

    NAME: ClassVar[str] = "audit.exported"
    LABEL: ClassVar[StrPromise] = _("Audit log exported")
    format: str
    rows: int


@dataclasses.dataclass(frozen=True, slots=True)
class AuditAccessDenied(Event):
    """Somebody without the right wanted to see or export the audit log; once in ten minutes. Not recorded:
    the query.
    """

    NAME: ClassVar[str] = "audit.access_denied"
    LABEL: ClassVar[StrPromise] = _("Access to the audit log denied")
    page: str


@dataclasses.dataclass(frozen=True, slots=True)
class AuditChainBroken(Event):
    """Recording found that the log's end was not as the portal had left it, and went on from the last row it
    found.

    ``cause``: ``seal`` (the head was written by somebody without the portal's key, or that key was changed),
    ``head`` (the head is gone) or ``rows`` (there are rows that the head does not know). ``noted_rows`` is
    the head's count, ``found_rows`` the number of the last row. Not recorded: who did it, which the portal
    cannot know.
    """

    NAME: ClassVar[str] = "audit.chain_broken"
    LABEL: ClassVar[StrPromise] = _("Audit log tampered with")
    cause: str
    noted_rows: int
    found_rows: int


@dataclasses.dataclass(frozen=True, slots=True)
class PortalExamined(Event):
    """An administrator had portal and clusters checked, as each cluster's operator or else as the administrator.

    Not recorded: what was found, which the page shows.
    """

    NAME: ClassVar[str] = "portal.examined"
    LABEL: ClassVar[StrPromise] = _("Check-up run")


@dataclasses.dataclass(frozen=True, slots=True)
class HostKeyRejected(Event):
    """A login host showed a key that is not the known one, and the connection was stopped.

    Not recorded: the keys, which the log holds.
    """

    NAME: ClassVar[str] = "cluster.host_key_rejected"
    LABEL: ClassVar[StrPromise] = _("Host key rejected")
    cluster: str
    login_host: str
