"""What a way to sign in is: it proves who somebody is on the cluster, and nothing more.

Two kinds. A *password way* is handed an account name and a password, says whose they are, and never keeps the password.
A *redirecting way* sends the browser elsewhere and hears the answer at an address of its own. Neither lets anybody in:
``portal.accounts.services.admit`` does, by the site's policy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from django.utils.functional import Promise

from launcher.ssh.questions import Round
from portal.errors import FootbridgeError


@dataclass(frozen=True, slots=True)
class Identity:
    """Who somebody proved to be."""

    username: str  # the account on the cluster
    groups: tuple[str, ...] = ()
    display_name: str = ""
    email: str = ""  # used where the person has named none
    claims: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # what else was said of them, for the policy


@dataclass(frozen=True, slots=True)
class Proved:
    """Somebody who has proved the first factor, by the ``way`` named. Nothing says yet that they may enter."""

    way: str
    identity: Identity
    is_fresh: bool = True  # asked just now, not remembered by another site from before


class Waiting(Protocol):
    """A check that waits for a person's answers, in this process."""

    @property
    def round(self) -> Round:
        """What is asked now."""

    @property
    def is_over(self) -> bool:
        """Whether nothing waits any more."""

    def answer(self, answers: Sequence[str]) -> Identity | None:
        """Go on: as ``PasswordWay.check``, which this is the rest of."""

    def give_up(self) -> None:
        """Nobody will answer: close what is open."""


class MoreAsked(FootbridgeError):
    """The password was not refused, and more is asked before anybody is let in.

    ``waiting``: what ``portal.accounts.waiting`` keeps until the answers are there.
    """

    code = "sign_in.asks_more"

    def __init__(self, waiting: Waiting) -> None:
        super().__init__()
        self.waiting = waiting


class Superuser(FootbridgeError):
    """The password is right, and the account is root by another name: no way lets it in, whatever the others say."""

    code = "sign_in.superuser"


class PasswordWay(Protocol):
    """A way to check an account's password. Made anew from the settings for each use: it holds no state."""

    name: str

    def check(self, username: str, password: str) -> Identity | None:
        """The identity, or ``None`` for a wrong password or an unknown account.

        Raises MoreAsked where that is not all yet, and Superuser.

        ``password`` is not empty, ``username`` has the form of an account name. Raises FootbridgeError (transient or
        not) when the answer cannot be known, or when the password is right and the account may not be used.
        """


class RedirectingWay(Protocol):
    """A way through another site."""

    name: str

    @property
    def button(self) -> str | Promise:
        """What the button on the sign-in page says."""

    @property
    def begin(self) -> str:
        """The name of the URL that the button posts to; it takes ``next``, and ``again`` to prove anew who one is."""
