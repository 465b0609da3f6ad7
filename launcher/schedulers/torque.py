"""TORQUE, the old dialect of PBS. Pure. Written from its documentation, not measured on a cluster.

What differs from OpenPBS: ``-l nodes=1:ppn=N``; ``qstat -x`` means XML, there is no dsv, no ``-E`` and no
history; ended jobs stay visible in state C for some minutes; error numbers are others, so words decide where
they can. qstat opens one connection per id anyway, so it is run once per id, in one visit.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from launcher.schedulers import pbs_codes, pbs_resources
from launcher.schedulers.base import (
    CancelOutcome,
    Command,
    CommandResult,
    JobRequest,
    JobState,
    JobStatus,
    Node,
    NotPermitted,
    Queue,
    Scheduler,
    SchedulerError,
    StatusReport,
    SubmitRejected,
)
from launcher.schedulers.framing import framed_answers, one_command_per_job
from launcher.schedulers.pbs import check_job_id, check_search, only_job_id, parse_job_ids
from launcher.schedulers.pbs_answers import text_records
from launcher.schedulers.torque_xml import job_status_of, nodes_of
from launcher.schedulers.values import clock_text, printable

_REJECTED = (
    ("Unknown queue", "unknown_queue"),
    ("No default queue", "unknown_queue"),
    ("Queue is not enabled", "queue_disabled"),
    ("Unauthorized Request", "not_authorized"),
    ("Access from host not allowed", "not_authorized"),
    ("Bad UID", "not_authorized"),
    ("Invalid Account", "bad_account"),
    ("exceeds queue resource limits", "over_limit"),
    ("Resource limit", "over_limit"),
    ("Unknown resource", "unknown_resource"),
    ("Illegal attribute or resource value", "bad_value"),
    ("illegal -N value", "bad_name"),
    ("Maximum number of jobs", "too_many_queued"),
    ("would exceed", "too_many_queued"),
    ("submitfilter", "site_hook"),
    ("cannot locate feasible nodes", "never_fits"),
)
"""What qsub says → last part of ``scheduler.rejected.…``."""


class Torque(Scheduler):
    """The dialect of TORQUE."""

    name = "torque"
    commands = ("qsub", "qstat", "qdel", "qselect")
    batch_size = 25  # each id costs a connection of its own

    def submit_command(self, request: JobRequest) -> Command:
        """``-r n``: a job that lost its host is not started a second time."""
        resources = f"nodes=1:ppn={request.cores}"
        if request.gpus:
            resources += f":gpus={request.gpus}"
        resources += f",mem={request.memory_mib}mb,walltime={clock_text(request.walltime_seconds)}"
        argv = [self.command_path("qsub"), "-N", request.name, "-l", resources, "-j", "oe", "-r", "n"]
        for option, value in (("-q", request.queue), ("-A", request.account), ("-o", request.output_path)):
            argv += [option, value] if value else []
        return Command(tuple(argv), stdin=request.script)

    def parse_submit(self, result: CommandResult) -> str:
        """A refusal that is not in the table leaves the outcome open, and the caller looks for the job."""
        if result.exit_status == 0:
            return only_job_id(result)
        words = printable(result.stderr)
        narrow = next((code for phrase, code in _REJECTED if phrase in words), "")
        if not narrow or pbs_codes.mentions_connection(result):
            raise pbs_codes.unavailable(result)
        params = {"exit_status": result.exit_status}
        raise SubmitRejected(words, code=f"scheduler.rejected.{narrow}", params=params)

    def find_command(self, *, name: str, user: str) -> Command:
        """Ended jobs are found as long as the server shows them."""
        check_search(name, user)
        return Command((self.command_path("qselect"), "-N", name, "-u", user))

    def parse_find(self, result: CommandResult) -> tuple[str, ...]:
        """See the base class."""
        return parse_job_ids(result)

    def status_command(self, job_ids: Sequence[str]) -> Command:
        """Once per id: a user's value in one answer cannot reach another."""
        if not job_ids:
            raise SchedulerError("no job to ask for", code="scheduler.bad_job_id")
        ids = [check_job_id(job_id) for job_id in job_ids]
        return one_command_per_job(self.command_path("qstat"), "-x", ids)

    def parse_status(self, result: CommandResult, job_ids: Sequence[str]) -> StatusReport:
        """A job whose XML cannot be read is unknown; it does not spoil what is said about the others."""
        asked = frozenset(job_ids)
        if result.exit_status or not result.stdout:
            raise pbs_codes.unavailable(result)
        jobs: dict[str, JobStatus] = {}
        for job_id, exit_status, answer in framed_answers(result.stdout):
            if exit_status not in (0, pbs_codes.UNKNOWN_JOB):
                raise pbs_codes.unavailable(result, f"qstat failed with exit status {exit_status}")
            if exit_status == 0 and job_id in asked:
                jobs[job_id] = job_status_of(answer, job_id) or JobStatus(job_id, JobState.UNKNOWN)
        return StatusReport(jobs, asked - jobs.keys(), without_history=True)

    def cancel_command(self, job_id: str) -> Command:
        """See the base class."""
        return Command((self.command_path("qdel"), check_job_id(job_id)))

    def parse_cancel(self, result: CommandResult) -> CancelOutcome:
        """A job that is exiting or complete is in no state to be deleted."""
        words = printable(result.stderr)
        if result.exit_status == 0:
            return CancelOutcome.ACCEPTED
        if "Unauthorized Request" in words:
            raise NotPermitted(words)
        if "Request invalid for state of job" in words:
            return CancelOutcome.FINISHED if "COMPLETE" in words else CancelOutcome.ACCEPTED
        if result.exit_status == pbs_codes.UNKNOWN_JOB or "Unknown Job Id" in words:
            return CancelOutcome.UNKNOWN
        raise pbs_codes.unavailable(result)

    def extend_command(self, job_id: str, *, walltime_seconds: int) -> Command:
        """Only operators may lengthen a running job."""
        if not 0 < walltime_seconds <= 366 * 86_400:
            raise SchedulerError("not a walltime", code="scheduler.rejected.bad_value")
        walltime = f"walltime={clock_text(walltime_seconds)}"
        return Command((self.command_path("qalter"), "-l", walltime, check_job_id(job_id)))

    def parse_extend(self, result: CommandResult) -> None:
        """See the base class."""
        if result.exit_status == 0:
            return
        words = printable(result.stderr)
        if re.search(r"Unauthorized Request|Cannot modify attribute", words):
            raise NotPermitted(words)
        narrow = next((code for phrase, code in _REJECTED if phrase in words), "")
        if not narrow or pbs_codes.mentions_connection(result):
            raise pbs_codes.unavailable(result)
        raise SubmitRejected(words, code=f"scheduler.rejected.{narrow}")

    def queues_command(self) -> Command:
        """Only administrators write what a queue's record holds."""
        return Command((self.command_path("qstat"), "-Q", "-f"))

    def parse_queues(self, result: CommandResult) -> tuple[Queue, ...]:
        """See the base class."""
        if result.exit_status:
            raise pbs_codes.unavailable(result)
        records = text_records(result.stdout, b"Queue: ")
        return tuple(pbs_resources.queue(name, record) for name, record in records)

    def nodes_command(self) -> Command:
        """XML."""
        return Command((self.command_path("pbsnodes"), "-x"))

    def parse_nodes(self, result: CommandResult) -> tuple[Node, ...]:
        """See the base class."""
        if result.exit_status:
            raise pbs_codes.unavailable(result)
        return nodes_of(result.stdout)
