"""What is really the case: the portal's rows and the cluster's own book of jobs, read past the product's code."""

from __future__ import annotations

import collections
import contextlib
import datetime as dt
import json
import sqlite3
from dataclasses import dataclass
from typing import Any

from tests.demo_process import StartedDemo

FINISHED = "F"


@dataclass(frozen=True, slots=True)
class Row:
    """A session, as far as it matters here."""

    id: str
    username: str
    state: str
    job_id: str
    stop_requested_by: str
    end_reason: str
    end_code: str
    unreachable_since: str | None
    submit_attempts: int

    @property
    def is_live(self) -> bool:
        """Whether its job may run."""
        return self.state != "ended"

    @property
    def is_settled(self) -> bool:
        """Whether nothing about it will change by itself: it can be used, or has ended."""
        if self.state == "ended":
            return True
        return self.state == "ready" and not self.stop_requested_by and self.unreachable_since is None

    @property
    def was_wrongly_ended(self) -> bool:
        """Whether it ended though its owner did not ask for it."""
        return self.state == "ended" and (
            self.stop_requested_by != self.username or "stopped_by" not in self.end_reason
        )


@dataclass(frozen=True, slots=True)
class Job:
    """A job in the cluster's book."""

    job_id: str
    name: str
    has_ended: bool


class Truth:
    """Looks at one demo."""

    def __init__(self, demo: StartedDemo) -> None:
        self._database = demo.folder.root / "demo.sqlite3"
        self._book = demo.folder.cluster / "spool" / "jobs.jsonl"

    def rows(self) -> list[Row]:
        """All sessions, oldest first."""
        columns = ", ".join(Row.__slots__)
        query = f"SELECT {columns} FROM launcher_interactivesession ORDER BY created_at"  # noqa: S608  # names of ours
        found = self._do(query)
        return [Row(*values) for values in found]

    def jobs(self) -> list[Job]:
        """All jobs that the cluster ever accepted; a job's last line counts."""
        last = {}
        for line in self._book.read_text("utf-8").splitlines() if self._book.exists() else []:
            with contextlib.suppress(ValueError):  # the line is just being written
                entry = json.loads(line)
                last[entry["sequence"]] = Job(
                    f"{entry['sequence']}.demo-pbs", entry["request"]["name"], entry["state"] == FINISHED
                )
        return list(last.values())

    def duplicates(self) -> list[str]:
        """Names that more than one job has carried."""
        names = collections.Counter(job.name for job in self.jobs())
        return [name for name, count in names.items() if count > 1]

    def orphans(self) -> list[Job]:
        """Jobs that have not ended and belong to no live session."""
        known = {row.job_id for row in self.rows() if row.is_live}
        return [job for job in self.jobs() if not job.has_ended and job.job_id not in known]

    def events(self, name: str = "") -> int:
        """How many audit events there are, of all names or of one."""
        query = "SELECT COUNT(*) FROM audit_auditevent"
        ((count,),) = self._do(f"{query} WHERE name = ?", name) if name else self._do(query)
        return int(count)

    def allow_sessions(self, count: int) -> None:
        """Let everybody have so many sessions."""
        self._do(
            'INSERT OR REPLACE INTO launcher_allowance (user_id, "group", app, cluster, sessions, changed_at) '
            "SELECT id, '', '', '', ?, datetime('now') FROM accounts_user",
            count,
        )

    def let_claims_run_out(self, made_before: dt.datetime) -> None:
        """Claims of workers that are no more hold for three minutes; let them be over now.

        Never those of a worker that lives: it may be submitting.
        """
        moment, long_ago = (
            at.strftime("%Y-%m-%d %H:%M:%S.%f") for at in (made_before, made_before - dt.timedelta(hours=1))
        )
        self._do(
            "UPDATE launcher_interactivesession SET claimed_at = ? WHERE claimed_at > ? AND claimed_at < ?",
            long_ago,
            long_ago,
            moment,
        )

    def _do(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(self._database, timeout=20)) as link, link:
            return link.execute(statement, values).fetchall()
