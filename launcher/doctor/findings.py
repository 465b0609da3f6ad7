"""What a check can find, and what it says of it: one sentence, one cure. Pure."""

from __future__ import annotations

import enum
import os
from collections.abc import Iterable
from dataclasses import dataclass, field

from portal.words import Words
from portal.words import marked as _


class Outcome(enum.StrEnum):
    """From best to worst. What was not checked is neither good nor bad."""

    OK = "ok"
    SKIPPED = "not checked"
    DOUBTFUL = "doubtful"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Said:
    """One thing that a check says. ``command``: the cure as it is typed, where there is such a thing."""

    outcome: Outcome
    what: Words
    cure: Words | None = None
    command: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check said, with the check's name. A check that found several things has several findings."""

    id: str  # stable: "portal.database", "cluster.login"
    name: Words
    said: Said
    cluster: str = ""  # id of the cluster it is about
    seconds: float = field(default=0.0, compare=False)

    @property
    def outcome(self) -> Outcome:
        """How it is."""
        return self.said.outcome


LINE = 300
"""Characters of somebody else's words that are shown."""


def fine(text: str, **params: object) -> Said:
    """All is well, and this is what was seen."""
    return Said(Outcome.OK, Words(text, _short(params)))


def skipped(text: str, **params: object) -> Said:
    """Not checked, because of what ``text`` says."""
    return Said(Outcome.SKIPPED, Words(text, _short(params)))


def doubtful(text: str, cure: str, *, command: str = "", **params: object) -> Said:
    """It works, or may work, and somebody should look at it. ``params`` are for both sentences."""
    return Said(Outcome.DOUBTFUL, Words(text, _short(params)), Words(cure, _short(params)), command)


def broken(text: str, cure: str, *, command: str = "", **params: object) -> Said:
    """It does not work. ``params`` are for both sentences."""
    return Said(Outcome.BROKEN, Words(text, _short(params)), Words(cure, _short(params)), command)


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """The outcome of all together; nothing at all is fine."""
    order = list(Outcome)
    return max(outcomes, key=order.index, default=Outcome.OK)


def exit_status(findings: Iterable[Finding]) -> int:
    """0: all is fine; 1: something is doubtful; 2: something is broken."""
    return {Outcome.DOUBTFUL: 1, Outcome.BROKEN: 2}.get(worst(finding.outcome for finding in findings), 0)


def one_line(text: object) -> str:
    """Somebody else's words on one line, without control characters, and not too many of them."""
    clean = "".join(c if c.isprintable() else " " for c in str(text)[: 4 * LINE])
    clean = " ".join(clean.split())
    return clean if len(clean) <= LINE else clean[: LINE - 1] + "…"


def words_of(error: Exception) -> str:
    """What an error says, on one line; of the system's errors the reason, where asyncio puts the call that failed."""
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return one_line(getattr(error, "strerror", None) or error) or type(error).__name__


def _short(params: dict[str, object]) -> dict[str, object]:
    return {name: value if isinstance(value, Words) else one_line(value) for name, value in params.items()}


OUTCOME_NAMES = {
    Outcome.OK: _("ok"),
    Outcome.SKIPPED: _("not checked"),
    Outcome.DOUBTFUL: _("doubtful"),
    Outcome.BROKEN: _("broken"),
}
"""The outcomes as people read them."""
