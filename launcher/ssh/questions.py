"""A login that stops to ask: what a login host asks beyond the password, and somebody's answers to it.

The handshake waits on its loop while a person reads the questions elsewhere. Everything a host asks is cleaned and
bounded: it is shown on a page.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from launcher.ssh.errors import LoginRefused, TimedOut

PATIENCE_SECONDS = 110.0
"""How long one round of questions waits for its answers. sshd itself ends a login after 120 seconds, by default."""
MOST_QUESTIONS = 5
"""In a round. A host that asks more is refused, like one that asks on and on."""
MOST_ROUNDS = 5
LONGEST_TEXT = 200
LONGEST_ANSWER = 1024

_CODE = re.compile(r"one.?time|otp|oath|verif|\bcode|passcode|token|\bpin\b|验证码|动态|口令牌", re.IGNORECASE)
_CHANGE = re.compile(
    r"chang\w* (your |the )?password|\b(current|old|new) (\w+ )?password|(更改|修改).{0,4}密码|(当前|旧|新).{0,4}密码",
    re.IGNORECASE,
)
_PASSWORD = re.compile(r"password|passwort|mot de passe|密码", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Question:
    """One thing a login host wants to know."""

    text: str
    is_shown: bool  # whether what is typed may be seen on the screen


@dataclass(frozen=True, slots=True)
class Round:
    """What is asked at once."""

    words: str  # above the questions; may be empty
    questions: tuple[Question, ...]


def clean(text: str) -> str:
    """Text of a host on one line, without control characters and marks that turn the direction of writing."""
    kept = "".join(character if character.isprintable() else " " for character in text[: 4 * LONGEST_TEXT])
    return " ".join(kept.split())[:LONGEST_TEXT]


def wants_code(text: str) -> bool:
    """Whether a hidden question is for something other than the password, as far as its words tell."""
    return bool(_CODE.search(text[:1000]))


def wants_password(text: str) -> bool:
    """Whether a hidden question says that it is for the password."""
    return bool(_PASSWORD.search(text[:1000])) and not wants_code(text)


def wants_new_password(text: str) -> bool:
    """Whether a hidden question belongs to the choice of another password, which PAM asks for after the right one."""
    return bool(_CHANGE.search(text[:1000]))


@dataclass(slots=True, eq=False)
class Conversation:
    """Between one handshake and one person. Belongs to the loop of the handshake."""

    rounds: int = 0
    _asked: asyncio.Queue[Round] = field(default_factory=asyncio.Queue)
    _answers: asyncio.Queue[Sequence[str]] = field(default_factory=asyncio.Queue)

    async def ask(self, one: Round) -> Sequence[str]:
        """Wait for the answers. Raises TimedOut, and LoginRefused for a host that asks too much."""
        self.rounds += 1
        if self.rounds > MOST_ROUNDS or len(one.questions) > MOST_QUESTIONS:
            raise LoginRefused("the login host asks on and on", code="ssh.asks_too_much")
        self._asked.put_nowait(one)
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                return await self._answers.get()
        except TimeoutError:
            raise TimedOut("nobody answered the login host's questions") from None

    async def asked(self) -> Round:
        """The next round."""
        return await self._asked.get()

    def answer(self, answers: Sequence[str]) -> None:
        """Let the handshake go on."""
        self._answers.put_nowait([answer[:LONGEST_ANSWER] for answer in answers])
