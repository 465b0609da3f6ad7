"""Keeps ended jobs and the next sequence number across restarts, as JSON lines in one file.

A line is written when a job is submitted and when it has ended; the last one about a job counts. A job
without an end was alive when the cluster died: it is shown as finished, for it cannot go on.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import BinaryIO

from launcher.democluster.pbs.job import SUBSTATE_FAILED, Job, State, from_record, to_record

KEPT_JOBS = 5000


class History:
    """The file of one cluster."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> tuple[dict[int, Job], int]:
        """Jobs by sequence number, oldest first, and the next free number. A damaged line is left out."""
        jobs: dict[int, Job] = {}
        highest = -1
        try:
            lines = self.path.read_bytes().split(b"\n")
        except FileNotFoundError:
            lines = []
        for line in filter(None, lines):
            try:
                job = from_record(json.loads(line))
            except (ValueError, KeyError, TypeError):
                continue
            jobs[job.sequence] = job
            highest = max(highest, job.sequence)
        for job in jobs.values():
            if job.state is not State.FINISHED:
                _mark_lost(job)
        kept = dict(sorted(jobs.items())[-KEPT_JOBS:])
        self._rewrite(kept)
        return kept, highest + 1

    def record(self, job: Job) -> None:
        """Note the job as it is now."""
        with _opened(self.path, os.O_APPEND) as file:
            file.write(_line(job))

    def _rewrite(self, jobs: dict[int, Job]) -> None:
        draft = self.path.with_name(f"{self.path.name}.new")
        with _opened(draft, os.O_TRUNC) as file:
            file.writelines(_line(job) for job in jobs.values())
        draft.replace(self.path)


def _line(job: Job) -> bytes:
    return json.dumps(to_record(job)).encode() + b"\n"


def _opened(path: Path, how: int) -> BinaryIO:
    """A private file to write to."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | how, 0o600), "wb")


def _mark_lost(job: Job) -> None:
    was_active = job.is_active
    now = time.time()
    job.state, job.substate = State.FINISHED, SUBSTATE_FAILED
    job.ended_at = job.history_at = job.modified_at = now
    if was_active:
        job.exit_status = 265
        job.comment = f"{job.comment} and failed"
