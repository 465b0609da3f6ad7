"""The check-up that an administrator starts on a page: runs beside the web process's work, keeps its last result.

It runs on a thread of the web process, not in a worker: a worker that has stopped is a thing it should find. Each
check has its time (``launcher.doctor.runner``), so a cluster that hangs costs a minute and never the process. Findings
are shared by the cache as they come; where Valkey is away, the process that ran the check-up still shows them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import structlog
from django.core.cache import cache
from django.db import connections
from django.utils.translation import gettext
from redis import RedisError

from launcher import services
from launcher.doctor import plan
from launcher.doctor.findings import OUTCOME_NAMES, Finding, Outcome, worst
from launcher.parts import clusters
from portal.accounts.models import User
from portal.clock import now
from portal.errors import FootbridgeError

log = structlog.get_logger(__name__)

KEEP_SECONDS = 30 * 24 * 3600
SILENT_SECONDS = 60
"""No check takes so long: a check-up that has found nothing for so long died with its process."""

_KEY = "checkup:1:last"
_TURN_KEY = "checkup:1:turn"
_TONES = {Outcome.OK: "good", Outcome.SKIPPED: "quiet", Outcome.DOUBTFUL: "warn", Outcome.BROKEN: "bad"}


@dataclass(frozen=True, slots=True)
class CheckUp:
    """One check-up: finished, or as far as it has come."""

    began_at: dt.datetime
    by: str  # who asked for it
    heard_at: dt.datetime
    ended_at: dt.datetime | None = None
    findings: tuple[Finding, ...] = ()

    @property
    def is_running(self) -> bool:
        """Whether more findings are to come."""
        return self.ended_at is None and now() - self.heard_at < dt.timedelta(seconds=SILENT_SECONDS)


@dataclass(frozen=True, slots=True)
class Line:
    """A finding in the reader's language."""

    outcome: str
    label: str
    tone: str
    name: str
    what: str
    cure: str
    command: str


@dataclass(frozen=True, slots=True)
class Part:
    """The findings about the portal, or about one cluster."""

    title: str
    label: str  # of the worst finding
    tone: str
    lines: list[Line]


_own: CheckUp | None = None  # of this process, for when the cache is away


def last_check_up() -> CheckUp | None:
    """The newest check-up that is known."""
    kept = None
    with contextlib.suppress(RedisError):
        kept = cache.get(_KEY)
    known = [one for one in (kept, _own) if isinstance(one, CheckUp)]
    return max(known, key=lambda one: (one.began_at, one.heard_at), default=None)


def start_check_up(actor: User, *, address: str) -> bool:
    """Have everything looked at, as each cluster's operator or else as ``actor``. Does nothing while one is running.

    Whether it was started.
    """
    last = last_check_up()
    if last is not None and last.is_running:
        return False
    with contextlib.suppress(RedisError):  # without the cache this process decides alone
        if not cache.add(_TURN_KEY, 1, 5):
            return False
    services.record_examined(actor=actor.username, address=address)
    moment = now()
    first = CheckUp(moment, actor.username, moment)
    _keep(first)
    threading.Thread(target=_run, args=(first,), name="check-up", daemon=True).start()
    return True


def _run(check_up: CheckUp) -> None:
    try:
        for finding in _findings(check_up.by):
            check_up = dataclasses.replace(check_up, heard_at=now(), findings=(*check_up.findings, finding))
            _keep(check_up)
    except Exception:
        log.exception("check_up_broke_off")
    finally:
        _keep(dataclasses.replace(check_up, heard_at=now(), ended_at=now()))
        connections.close_all()


def _findings(username: str) -> Iterator[Finding]:
    yield from plan.check_portal()
    with contextlib.suppress(FootbridgeError):  # the clusters file is wrong, which has been found
        for cluster in clusters().values():
            yield from plan.check_cluster(cluster, plan.account_for(cluster, "", (username,)))


def _keep(check_up: CheckUp) -> None:
    global _own
    _own = check_up
    with contextlib.suppress(RedisError):
        cache.set(_KEY, check_up, KEEP_SECONDS)


def parts_of(check_up: CheckUp) -> list[Part]:
    """The findings in the reader's language, in their order; clusters by their names where they still have one."""
    groups: dict[str, list[Finding]] = {}
    for finding in check_up.findings:
        groups.setdefault(finding.cluster, []).append(finding)
    return [_part(cluster_id, findings) for cluster_id, findings in groups.items()]


def _part(cluster_id: str, findings: list[Finding]) -> Part:
    outcome = worst(finding.outcome for finding in findings if finding.outcome is not Outcome.SKIPPED)
    title = cluster_id or gettext("The portal")
    with contextlib.suppress(FootbridgeError):
        title = clusters()[cluster_id].name if cluster_id in clusters() else title
    return Part(title, gettext(OUTCOME_NAMES[outcome]), _TONES[outcome], [_line(finding) for finding in findings])


def _line(finding: Finding) -> Line:
    said = finding.said
    return Line(
        outcome=str(said.outcome),
        label=gettext(OUTCOME_NAMES[said.outcome]),
        tone=_TONES[said.outcome],
        name=finding.name.put(gettext),
        what=said.what.put(gettext),
        cure=said.cure.put(gettext) if said.cure else "",
        command=said.command,
    )
