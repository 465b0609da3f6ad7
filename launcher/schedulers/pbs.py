"""OpenPBS and PBS Professional. Pure: builds commands, reads answers. Facts are measured on OpenPBS 23.06.

One status command asks for many jobs in one request (``-E``) and prints a line per job whose fields are
separated by a control character, the only form that stayed exact under hostile values. Clients that lack an
option are met by ``downgrade``, as is a server that keeps no history of finished jobs, PBS's default.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from launcher.schedulers import pbs_codes, pbs_resources
from launcher.schedulers.base import (
    CancelOutcome,
    Command,
    CommandResult,
    JobRequest,
    JobState,
    JobStatus,
    Node,
    Queue,
    Scheduler,
    SchedulerError,
    SchedulerUnavailable,
    StatusReport,
    UnresolvableJob,
)
from launcher.schedulers.framing import framed_answers, one_command_per_job
from launcher.schedulers.pbs_answers import (
    DELIMITER,
    Record,
    dsv_records,
    job_status,
    said_finished,
    text_records,
)
from launcher.schedulers.values import clock_text, decoded, printable

JOB_ID = re.compile(r"[0-9]{1,18}(?:\[[0-9]{0,9}\])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9._-]{0,200}))?")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@-]{0,127}\$?")
_NO_HISTORY = b"not configured to maintain job history"
_MISSING_OPTION = re.compile(rb"(?:invalid|illegal|unknown|unrecognized) option -- '?([A-Za-z])")


@dataclass(frozen=True, slots=True)
class Client:
    """What the PBS client on the login host and its server offer."""

    grouped: bool = True  # qstat -E
    dsv: bool = True  # qstat -F dsv -D, and -F json
    history: bool = True  # qstat -x and qselect -x
    foreground: bool = True  # qsub -f


def check_job_id(job_id: str) -> str:
    """``job_id`` when PBS could have issued it: one malformed id spoils the answer about all. Raises
    UnresolvableJob.
    """
    if not JOB_ID.fullmatch(job_id):
        raise UnresolvableJob(f"not a job id: {job_id[:80]!r}")
    return job_id


def check_search(name: str, user: str) -> None:
    """Raise SchedulerError unless both can stand in a qselect command as what they are."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]{0,62}", name) or not _USER.fullmatch(user):
        raise SchedulerError("not a job name and a user", code="scheduler.bad_search")


def only_job_id(result: CommandResult) -> str:
    """The id in qsub's answer. A site's wrapper may print other lines. Raises SchedulerUnavailable unless
    there is one.
    """
    whole_lines = decoded(result.stdout).split("\n")[:-1]
    ids = [line.strip() for line in whole_lines if JOB_ID.fullmatch(line.strip())]
    if len(ids) != 1:
        raise pbs_codes.unavailable(result, "qsub accepted something and printed no job id")
    return ids[0]


def parse_job_ids(result: CommandResult) -> tuple[str, ...]:
    """The ids in qselect's answer, oldest first. Raises SchedulerUnavailable unless it is whole and nothing
    else.
    """
    lines = decoded(result.stdout).split("\n")
    if result.exit_status or lines.pop() or pbs_codes.mentions_connection(result):
        raise pbs_codes.unavailable(result, "qselect gave no whole answer")
    if not all(JOB_ID.fullmatch(line) for line in lines):
        raise pbs_codes.unavailable(result, "qselect answered with something that is no job id")
    return tuple(sorted(dict.fromkeys(lines), key=lambda job_id: int(re.split(r"[\[.]", job_id)[0])))


class PBS(Scheduler):
    """The dialect of OpenPBS and PBS Professional."""

    name = "pbs"
    commands = ("qsub", "qstat", "qdel", "qselect")

    def __init__(self, commands_folder: str = "", client: Client | None = None) -> None:
        super().__init__(commands_folder)
        self.client = client or Client()
        self.batch_size = 500 if self.client.dsv else 25  # without dsv each id costs a connection of its own

    def downgrade(self, result: CommandResult) -> Scheduler | None:
        """Without history where the server keeps none; without an option that the client calls invalid."""
        client = self.client
        if client.history and _NO_HISTORY in result.stderr:
            return PBS(self.commands_folder, replace(client, history=False))
        options = set(_MISSING_OPTION.findall(result.stderr[:4_000])) if result.exit_status else set()
        if b"f" in options and client.foreground:
            return PBS(self.commands_folder, replace(client, foreground=False))
        if b"E" in options and client.grouped:
            return PBS(self.commands_folder, replace(client, grouped=False))
        if options & {b"F", b"D"} and client.dsv:
            return PBS(self.commands_folder, replace(client, grouped=False, dsv=False))
        return None

    def submit_command(self, request: JobRequest) -> Command:
        """``-f``: no helper stays behind that remembers another server. ``-r n``: a restarted daemon never
        runs it twice.
        """
        chunk = f"select=1:ncpus={request.cores}:mem={request.memory_mib}mb"
        if request.gpus:
            chunk += f":ngpus={request.gpus}"
        argv = [self.command_path("qsub"), *(["-f"] if self.client.foreground else [])]
        argv += ["-N", request.name, "-l", chunk, "-l", f"walltime={clock_text(request.walltime_seconds)}"]
        argv += ["-j", "oe", "-r", "n"]
        for option, value in (("-q", request.queue), ("-A", request.account), ("-o", request.output_path)):
            argv += [option, value] if value else []
        return Command(tuple(argv), stdin=request.script)

    def parse_submit(self, result: CommandResult) -> str:
        """See the base class; the codes are those of pbs_codes."""
        if result.exit_status:
            pbs_codes.raise_rejection(result)
        return only_job_id(result)

    def find_command(self, *, name: str, user: str) -> Command:
        """``qselect -N`` compares the whole name."""
        check_search(name, user)
        history = ("-x",) if self.client.history else ()
        return Command((self.command_path("qselect"), *history, "-N", name, "-u", user))

    def parse_find(self, result: CommandResult) -> tuple[str, ...]:
        """Without history a job that has already ended is not found; with ``-x`` and no history nothing is
        (unavailable).
        """
        if self._lacks_history(result):
            raise pbs_codes.unavailable(result)
        return parse_job_ids(result)

    def status_command(self, job_ids: Sequence[str]) -> Command:
        """One request for all ids, times in UTC; one qstat per id for a client without dsv."""
        if not job_ids:
            raise SchedulerError("no job to ask for", code="scheduler.bad_job_id")
        ids = tuple(check_job_id(job_id) for job_id in job_ids)
        qstat = self.command_path("qstat")
        if not self.client.dsv:
            return one_command_per_job(qstat, "-xf" if self.client.history else "-f", ids)
        grouped = ("-E",) if self.client.grouped else ()
        history = ("-x",) if self.client.history else ()
        argv = (qstat, *grouped, *history, "-f", "-F", "dsv", "-D", DELIMITER, *ids)
        return Command(argv, environment={"TZ": "UTC"})

    def parse_status(self, result: CommandResult, job_ids: Sequence[str]) -> StatusReport:
        """Ids left out of a whole answer are missing; a failed connection, a cut or an odd answer says
        nothing. Raises UnresolvableJob where one id, malformed or of an unknown server, spoiled it all.
        """
        asked = frozenset(job_ids)
        if self._lacks_history(result):
            raise SchedulerUnavailable(decoded(_NO_HISTORY), code="scheduler.no_history")
        records = self._records(result) if self.client.dsv else self._framed_records(result)
        jobs: dict[str, JobStatus] = {}
        for job_id, record in records:
            if job_id in asked and job_id not in jobs:
                jobs[job_id] = job_status(job_id, record)
        for job_id in said_finished(result, asked) - jobs.keys():
            jobs[job_id] = JobStatus(job_id, JobState.FINISHED)
        return StatusReport(jobs, asked - jobs.keys(), without_history=not self.client.history)

    def _lacks_history(self, result: CommandResult) -> bool:
        return self.client.history and _NO_HISTORY in result.stderr

    def _records(self, result: CommandResult) -> list[tuple[str, Record]]:
        if result.exit_status and pbs_codes.mentions_bad_job(result):
            raise UnresolvableJob(printable(result.stderr))
        # Without -E, 153 or 35 is the fate of one of the ids, and the others are printed all the same (seen).
        if result.exit_status not in (0, pbs_codes.UNKNOWN_JOB, pbs_codes.FINISHED):
            raise pbs_codes.unavailable(result)
        if pbs_codes.mentions_connection(result):
            raise pbs_codes.unavailable(result)
        return dsv_records(result.stdout)

    def _framed_records(self, result: CommandResult) -> list[tuple[str, Record]]:
        if result.exit_status or not result.stdout:
            raise pbs_codes.unavailable(result)
        records: list[tuple[str, Record]] = []
        for job_id, exit_status, answer in framed_answers(result.stdout):
            if exit_status == 0:
                first = text_records(answer, b"Job Id: ")[:1]
                if not first or first[0][0] != job_id:
                    raise pbs_codes.unavailable(result, f"qstat was asked for {job_id} and showed something else")
                records += first
            elif exit_status not in (pbs_codes.UNKNOWN_JOB, pbs_codes.FINISHED):
                raise pbs_codes.unavailable(result, f"qstat failed with exit status {exit_status}")
        return records

    def cancel_command(self, job_id: str) -> Command:
        """``qdel`` returns at once; the job stays visible for seconds."""
        return Command((self.command_path("qdel"), check_job_id(job_id)))

    def parse_cancel(self, result: CommandResult) -> CancelOutcome:
        """An exiting job needs no second request; a job on an unreachable host cannot be cancelled yet
        (unavailable).
        """
        outcome = {
            0: CancelOutcome.ACCEPTED,
            pbs_codes.EXITING: CancelOutcome.ACCEPTED,
            pbs_codes.FINISHED: CancelOutcome.FINISHED,
            pbs_codes.UNKNOWN_JOB: CancelOutcome.UNKNOWN,
        }.get(result.exit_status)
        if outcome is None:
            pbs_codes.raise_for_job(result)
        return outcome

    def extend_command(self, job_id: str, *, walltime_seconds: int) -> Command:
        """Users may shorten a running job and not lengthen it (exit 159, seen)."""
        if not 0 < walltime_seconds <= 366 * 86_400:
            raise SchedulerError("not a walltime", code="scheduler.rejected.bad_value")
        walltime = f"walltime={clock_text(walltime_seconds)}"
        return Command((self.command_path("qalter"), "-l", walltime, check_job_id(job_id)))

    def parse_extend(self, result: CommandResult) -> None:
        """See the base class."""
        if result.exit_status == 0:
            return
        if result.exit_status == pbs_codes.NOT_PERMITTED:
            pbs_codes.raise_for_job(result)
        pbs_codes.raise_rejection(result)

    def queues_command(self) -> Command:
        """JSON, or text from an old client."""
        form = ("-F", "json") if self.client.dsv else ()
        return Command((self.command_path("qstat"), "-Q", "-f", *form))

    def parse_queues(self, result: CommandResult) -> tuple[Queue, ...]:
        """See the base class."""
        if self.client.dsv:
            entries = list(pbs_resources.document(result, "Queue").items())
        elif result.exit_status:
            raise pbs_codes.unavailable(result)
        else:
            entries = [(name, dict(record)) for name, record in text_records(result.stdout, b"Queue: ")]
        return tuple(pbs_resources.queue(name, record) for name, record in entries)

    def nodes_command(self) -> Command:
        """JSON from every client that has it; an old client is asked the same and fails, which the caller may
        ignore.
        """
        return Command((self.command_path("pbsnodes"), "-a", "-F", "json"))

    def parse_nodes(self, result: CommandResult) -> tuple[Node, ...]:
        """See the base class."""
        return pbs_resources.nodes(pbs_resources.document(result, "nodes").items())
