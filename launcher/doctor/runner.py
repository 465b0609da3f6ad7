"""Runs checks in order, each in its time, and leaves out what cannot be known after another has failed. Pure threads.

Nothing here may hang: a check runs on a thread of its own, and one that is not done in time is given up. The thread
may go on for a while; it belongs to nobody and keeps no process alive.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from launcher.doctor.findings import Finding, Outcome, Said, broken, one_line, skipped, worst
from portal.errors import FootbridgeError
from portal.words import Words
from portal.words import marked as _

Patient = TypeVar("Patient")

ALL_SECONDS = 240.0
"""One run over the portal, or over one cluster, begins no further check after so long."""


@dataclass(frozen=True, slots=True)
class Check(Generic[Patient]):
    """One thing to look at. ``needs``: ids of earlier checks without which this one would say nothing new."""

    id: str
    name: str
    look: Callable[[Patient], Said | Sequence[Said]]
    needs: tuple[str, ...] = ()
    seconds: float = 30.0  # after so long it is given up


def examine(
    checks: Sequence[Check[Patient]],
    patient: Patient,
    *,
    cluster: str = "",
    unusable: frozenset[str] = frozenset(),
    all_seconds: float = ALL_SECONDS,
) -> Iterator[Finding]:
    """Findings one after another, as they are made. ``unusable``: ids of checks, done before, that have failed."""
    deadline = time.monotonic() + all_seconds
    failed = set(unusable)
    names = {check.id: check.name for check in checks}
    for check in checks:
        began_at = time.monotonic()
        missing = next((need for need in check.needs if need in failed), "")
        if missing:
            what = Words(names.get(missing, missing))
            said: Sequence[Said] = [Said(Outcome.SKIPPED, Words(_("It needs “%(what)s” first."), {"what": what}))]
        elif began_at > deadline:
            said = [skipped(_("The check-up had taken too long already."))]
        else:
            said = _in_time(check, patient, min(check.seconds, deadline - began_at + 1))
        outcome = worst(one.outcome for one in said)
        if outcome is Outcome.BROKEN or all(one.outcome is Outcome.SKIPPED for one in said):
            failed.add(check.id)
        seconds = time.monotonic() - began_at
        for one in said:
            yield Finding(check.id, Words(check.name), one, cluster, seconds)


def _in_time(check: Check[Patient], patient: Patient, seconds: float) -> Sequence[Said]:
    answer: list[Sequence[Said]] = []

    def work() -> None:
        try:
            said = check.look(patient)
        except FootbridgeError as error:
            said = broken(
                _("It broke off: %(words)s"),
                _("Look at what it names, and try again."),
                words=error.detail or error.code,
            )
        except Exception as error:  # a check that trips has found something; the others go on
            said = broken(
                _("The check itself failed: %(kind)s: %(words)s"),
                _("Look at what it names; if that is in order, tell the makers of the portal."),
                kind=type(error).__name__,
                words=one_line(error),
            )
        answer.append([said] if isinstance(said, Said) else said)

    thread = threading.Thread(target=work, name=f"check {check.id}", daemon=True)
    thread.start()
    thread.join(seconds)
    if answer:
        return answer[0] or [skipped(_("There is nothing to check."))]
    return [
        broken(
            _("No answer within %(seconds)s s."),
            _("Find out what hangs: the network, a file system, or the service itself."),
            seconds=f"{seconds:.0f}",
        )
    ]
