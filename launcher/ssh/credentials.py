"""What lets the portal open a connection as a user: one class per kind, chosen per cluster.

A credential answers one question: with which options should asyncssh log in. It is asked afresh for every
connection, so nothing needs to live longer than one handshake. To add a kind, write a class with the same
method. Where keys and passwords are kept is not known here: whoever makes a credential says how to find them.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, cast

import asyncssh
from asyncssh.auth import KbdIntPrompts, KbdIntResponse, PasswordChangeResponse

from launcher.clusters import Cluster
from launcher.ssh.ca import UserCA
from launcher.ssh.errors import KeyRefused, LoginRefused, PasswordRefused, SSHError
from launcher.ssh.guarded import GuardedClient
from launcher.ssh.questions import Conversation, Question, Round, clean, wants_code, wants_new_password, wants_password
from portal.words import marked as _

_USERNAME = re.compile(r"[a-z_][a-z0-9_.-]{0,63}", re.IGNORECASE)
_UNTIDY = re.compile(r"[^A-Za-z0-9_.,=@/-]+")
_CLOCK_SLACK_SECONDS = 30


def check_username(username: str) -> str:
    """``username``, if the portal may act as it: an ordinary account name, and not root. Raises
    LoginRefused.
    """
    if not _USERNAME.fullmatch(username) or username.casefold() == "root":
        raise LoginRefused("the portal does not sign in with such an account name", code="ssh.bad_username")
    return username


class Credential(Protocol):
    """One way to log in to a login host.

    ``on_refusal``: what an administrator looks at when a login host refuses it, in English and marked for translation.
    ``refused``: the error that this is; its code leads to what the person reads.
    """

    on_refusal: ClassVar[str]
    refused: ClassVar[type[LoginRefused]]

    async def options(self, cluster: Cluster, username: str, reason: str) -> Mapping[str, object]:
        """Keyword options for ``asyncssh.connect``: keys, or who answers prompts, and which methods to try.

        ``reason`` says what the connection is for; it may end up in the login host's log. Raises LoginRefused
        if this user can have no such credential.
        """
        ...


@dataclass(frozen=True, slots=True)
class CertificateCredential:
    """A new key for every connection, certified for one user and a few minutes by the portal's own CA.

    The certificate names exactly one principal and allows port forwarding and commands, nothing else: no
    terminal, no agent, no X11, no ~/.ssh/rc. Its key id, ``footbridge:<portal>:<user>:<reason>``, appears in
    the log of OpenSSH's sshd at every login. ``lifetime_seconds`` must cover one handshake and the clocks'
    difference: an open connection outlives its certificate. ``source_addresses``, where there are any, are
    the only ones from which sshd takes it: addresses or networks of the portal as the login host sees them.
    """

    refused: ClassVar[type[LoginRefused]] = LoginRefused
    on_refusal: ClassVar[str] = _(
        "The account must exist there, and sshd must trust the portal's authority: put the contents of ssh_user_ca.pub "
        "into the file that TrustedUserCAKeys names. If it does, compare the clocks; the log of sshd tells the reason."
    )

    ca: UserCA = field(repr=False)
    portal_name: str
    lifetime_seconds: int = 300
    source_addresses: tuple[str, ...] = ()

    async def options(self, cluster: Cluster, username: str, reason: str) -> Mapping[str, object]:
        """A key pair in memory with its certificate. Raises LoginRefused for root and for odd names."""
        check_username(username)
        now = int(time.time())
        key = asyncssh.generate_private_key("ssh-ed25519")
        certificate = self.ca.key.generate_user_certificate(
            key,
            f"footbridge:{tidy(self.portal_name)}:{username}:{tidy(reason)}",
            principals=[username],
            valid_after=now - _CLOCK_SLACK_SECONDS,
            valid_before=now + self.lifetime_seconds,
            permit_x11_forwarding=False,
            permit_agent_forwarding=False,
            permit_pty=False,
            permit_user_rc=False,
            source_address=list(self.source_addresses) or None,
        )
        return {
            "client_keys": [(key, certificate)],
            "public_key_auth": True,
            "preferred_auth": ["publickey"],
        }


@dataclass(frozen=True, slots=True)
class EnrolledKeyCredential:
    """The user's own key pair at this cluster, made by the portal; its public half is in ``authorized_keys``.

    ``find(cluster_id, username)`` gives the private half in OpenSSH's format, or ``None`` where there is none.
    """

    refused: ClassVar[type[LoginRefused]] = KeyRefused
    on_refusal: ClassVar[str] = _(
        "The account must be connected, by the cluster's password, which enrols a key. If it is, look at "
        "its line in ~/.ssh/authorized_keys and its addresses (from=); the log of sshd tells the reason."
    )

    find: Callable[[str, str], Awaitable[str | None]] = field(repr=False)

    async def options(self, cluster: Cluster, username: str, reason: str) -> Mapping[str, object]:
        """The key. Raises LoginRefused with ``ssh.not_enrolled`` where there is none."""
        check_username(username)
        text = await self.find(cluster.id, username)
        if text is None:
            raise LoginRefused(f"{username} has no key for {cluster.id}", code="ssh.not_enrolled")
        return {
            "client_keys": [asyncssh.import_private_key(text)],
            "public_key_auth": True,
            "preferred_auth": ["publickey"],
        }


@dataclass(frozen=True, slots=True)
class LentPassword:
    """A password that somebody else keeps. ``accepted`` is called when a login host has taken it."""

    password: str = field(repr=False)
    accepted: Callable[[], None] = field(repr=False)


@dataclass(frozen=True, slots=True)
class StoredPasswordCredential:
    """The password a person signed in with, for as long as they stay signed in.

    ``borrow(cluster, username)`` gives it, or ``None`` where there is none. It is offered once for each
    connection; whoever keeps it throws it away when a login host refuses it.
    """

    refused: ClassVar[type[LoginRefused]] = PasswordRefused
    on_refusal: ClassVar[str] = _(
        "Its owner must be signed in and have given the cluster's password. If so, the password was changed, "
        "or the account is locked."
    )

    borrow: Callable[[Cluster, str], Awaitable[LentPassword | None]] = field(repr=False)

    async def options(self, cluster: Cluster, username: str, reason: str) -> Mapping[str, object]:
        """A client that hands the password out once. Raises LoginRefused with ``ssh.no_password``."""
        check_username(username)
        lent = await self.borrow(cluster, username)
        if lent is None:
            raise LoginRefused(f"{username} is not signed in to the portal", code="ssh.no_password")
        return _password_options(lent.password, lent.accepted)


@dataclass(frozen=True, slots=True)
class PasswordCredential:
    """A password, for the check at sign-in only: it is offered to one login host at most once.

    Once, because a wrong password that is tried by several methods counts several times at the cluster's
    lockout. Where the login host asks by keyboard-interactive, the first question with a hidden answer gets
    the password, unless its words want something else; every other one (a one-time code, say) goes to the
    ``conversation``, and without one ends the attempt.
    """

    refused: ClassVar[type[LoginRefused]] = LoginRefused
    on_refusal: ClassVar[str] = _("The password is wrong, or the account is locked.")

    password: str = field(repr=False)
    conversation: Conversation | None = None

    async def options(self, cluster: Cluster, username: str, reason: str) -> Mapping[str, object]:
        """A client object that hands the password out once. Raises LoginRefused without asking any host."""
        check_username(username)
        if not self.password:
            raise LoginRefused("an empty password is never tried", code="ssh.empty_password")
        return _password_options(self.password, conversation=self.conversation)


def _password_options(
    password: str, accepted: Callable[[], None] = lambda: None, *, conversation: Conversation | None = None
) -> Mapping[str, object]:
    secret = OneTime(password)

    def factory() -> PasswordClient:
        return PasswordClient(secret, accepted, conversation)

    return {
        "client_factory": factory,
        "client_keys": None,
        "password_auth": True,
        "kbdint_auth": True,
        # Questions first where there is somebody to answer them: a host that would go on to ask for a code says so
        # only there, and after a password that was refused another method would count at the lockout.
        "preferred_auth": ["keyboard-interactive", "password"]
        if conversation
        else ["password", "keyboard-interactive"],
    }


class OneTime:
    """A password until somebody takes it.

    A connection refers to the options it was made with for as long as it is open, which may be hours: what they lead to
    must not hold the password any more.
    """

    __slots__ = ("_password",)

    def __init__(self, password: str) -> None:
        self._password: str | None = password

    @property
    def is_left(self) -> bool:
        """Whether nobody has taken it."""
        return self._password is not None

    def take(self) -> str | None:
        """The password, the first time."""
        password, self._password = self._password, None
        return password


class PasswordClient(GuardedClient):
    """Answers a login host's first request for a password and forgets it."""

    def __init__(
        self,
        secret: OneTime,
        accepted: Callable[[], None] = lambda: None,
        conversation: Conversation | None = None,
    ) -> None:
        self._secret = secret
        self._accepted = accepted
        self._conversation = conversation
        self._has_asked = False
        self._has_conversed = False
        self.clock: asyncio.Timeout | None = None  # how long the login may take; stopped while a person is asked
        self.must_change_password = False
        self.trouble: SSHError | None = None  # why a conversation came to nothing

    @property
    def has_answered(self) -> bool:
        """Whether a login host has been told anything that was secret."""
        return not self._secret.is_left or self._has_conversed

    def auth_completed(self) -> None:
        self._accepted()

    @contextlib.contextmanager
    def _stopped_clock(self) -> Iterator[None]:
        loop, until = asyncio.get_running_loop(), self.clock.when() if self.clock else None
        began = loop.time()
        if self.clock is not None:
            self.clock.reschedule(None)
        try:
            yield
        finally:
            if self.clock is not None and until is not None:
                self.clock.reschedule(until + loop.time() - began)

    def password_auth_requested(self) -> str | None:
        return self._secret.take()

    def password_change_requested(self, prompt: str, lang: str) -> PasswordChangeResponse:
        # The account is right, the password has expired: only its owner can choose a new one, elsewhere.
        self.must_change_password = True
        return cast(PasswordChangeResponse, NotImplemented)  # asyncssh's word for "no"

    def kbdint_auth_requested(self) -> str | None:
        has_asked, self._has_asked = self._has_asked, True
        if self._conversation is not None:
            return None if has_asked else ""  # once: a second time means that an answer was wrong
        return "" if self._secret.is_left else None

    async def kbdint_challenge_received(
        self, name: str, instructions: str, lang: str, prompts: KbdIntPrompts
    ) -> KbdIntResponse | None:
        if not prompts:
            return []  # a message without a question
        answers: list[str | None] = [None] * len(prompts)
        for place, (text, echoed) in enumerate(prompts):
            if echoed or wants_code(text):
                continue
            if self._secret.is_left:
                answers[place] = self._secret.take()
            elif wants_new_password(text):
                self.must_change_password = True  # as above
                return None
            elif wants_password(text):
                return None  # the password was given, and is asked for again: it was wrong
        left = [place for place, answer in enumerate(answers) if answer is None]
        if left:
            if self._conversation is None:
                return None
            questions = tuple(Question(clean(prompts[place][0]), prompts[place][1]) for place in left)
            self._has_conversed = True
            try:
                with self._stopped_clock():
                    said = await self._conversation.ask(Round(clean(f"{name} {instructions}"), questions))
            except SSHError as error:
                self.trouble = error
                return None
            if len(said) != len(left):
                return None
            for place, answer in zip(left, said, strict=True):
                answers[place] = answer
        return [answer or "" for answer in answers]


def tidy(text: str) -> str:
    """Short text without spaces or anything that could forge a line of the login host's log."""
    return _UNTIDY.sub("_", text)[:80]
