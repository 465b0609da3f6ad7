"""Slurm. Pure: builds commands, reads answers. Facts are measured on Slurm 22.05 unless a comment says
otherwise.

A user may give a job any name, with line ends and all, and change it later; squeue prints it raw. So status
commands ask for no value that a user can write: ids, states, hosts and times stand in columns of a fixed
width. Finished jobs stay visible for ``MinJobAge`` (five minutes by default); who is gone by then is looked
up in the accounting, if any.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from launcher.schedulers import slurm_answers
from launcher.schedulers.base import (
    CancelOutcome,
    Command,
    CommandResult,
    JobRequest,
    JobStatus,
    Node,
    NotPermitted,
    Queue,
    Scheduler,
    SchedulerError,
    SchedulerUnavailable,
    StatusReport,
    SubmitRejected,
    UnresolvableJob,
)
from launcher.schedulers.framing import ENVIRONMENT, framed_answers
from launcher.schedulers.values import clock_text, decoded, printable

_JOB_ID = re.compile(r"[1-9][0-9]{0,17}")
_SUBMITTED = re.compile(r"([1-9][0-9]{0,17})(?:;[A-Za-z0-9._-]{1,128})?")  # a federation adds its cluster's name
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,62}")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_UNKNOWN = "Invalid job id specified"
_DENIED = "ccess/permission denied"

# squeue for all ids; then sacct for those it left out, so that accounting is left in peace while jobs run. Before
# each of the two answers stand its exit status and its length in bytes. No line end and no "!" in it: the line may
# pass through a csh.
_STATUS = (
    "queue=$1; accounting=$2; columns=$3; fields=$4; separator=$5; shift 5; all=; gone=; "
    'end=$(printf "\\n."); end=${end%.}; '
    "for id do all=$all,$id; done; "
    'seen=$("$queue" --noheader --states=all --jobs="${all#,}" --Format="$columns"); '
    'printf "queue %d %d\\n%s\\n" "$?" "${#seen}" "$seen"; '
    'for id do case "$end$seen" in *"$end$id "*) ;; *) gone=$gone,$id ;; esac; done; '
    '[ -z "$gone" ] && exit 0; '
    'kept=$("$accounting" --noheader --allocations --parsable2 --delimiter="$separator" --format="$fields" '
    '--jobs="${gone#,}"); '
    'printf "accounting %d %d\\n%s\\n" "$?" "${#kept}" "$kept"'
)

_REJECTED = (
    ("Invalid partition name", "unknown_queue"),  # seen
    ("invalid partition specified", "unknown_queue"),  # seen
    ("No partition specified or system default", "unknown_queue"),
    ("Required partition not available", "queue_disabled"),
    ("not permitted to use this partition", "not_authorized"),
    ("Invalid account", "bad_account"),
    (_DENIED, "not_authorized"),
    ("Invalid qos", "not_authorized"),
    ("Invalid generic resource", "unknown_resource"),  # seen
    ("Invalid Trackable RESource", "unknown_resource"),
    ("Requested time limit is invalid", "over_limit"),
    ("accounting/QOS policy", "over_limit"),
    ("More processors requested than permitted", "over_limit"),
    ("Node count specification invalid", "over_limit"),
    ("node configuration is not available", "never_fits"),  # seen
    ("partition configuration not available", "never_fits"),
    ("Memory specification can not be satisfied", "never_fits"),  # seen
    ("Job limit", "too_many_queued"),
    ("does not look like a batch script", "bad_script"),  # seen
    ("Job rejected by", "site_hook"),
    ("lua", "site_hook"),
)
"""What sbatch says → last part of ``scheduler.rejected.…``. Every failure exits with 1."""

_FAILED = "Batch job submission failed"  # seen: the controller answered, and its answer was no
_NO_ANSWER = re.compile(
    r"unable to contact|timed out|connect(?:ion)? (?:failure|refused)|zero bytes|communication|authenticat|munge"
    r"|temporarily|Unexpected message|Transport endpoint",
    re.IGNORECASE,
)


class Slurm(Scheduler):
    """The dialect of Slurm."""

    name = "slurm"
    commands = ("sbatch", "squeue", "scancel", "scontrol")

    def submit_command(self, request: JobRequest) -> Command:
        """``--export=NONE``: the job gets its user's login environment, nothing of the login host's."""
        argv = [
            *(self.command_path("sbatch"), "--parsable", "--export=NONE", "--no-requeue"),
            *(f"--job-name={request.name}", "--nodes=1", "--ntasks=1", f"--cpus-per-task={request.cores}"),
            *(f"--mem={request.memory_mib}M", f"--time={clock_text(request.walltime_seconds)}"),
        ]
        if request.gpus:
            argv.append(f"--gres=gpu:{request.gpus}")
        for option, value in (
            ("partition", request.queue),
            ("account", request.account),
            ("output", request.output_path),
        ):
            argv += [f"--{option}={value}"] if value else []
        return Command(tuple(argv), stdin=request.script)

    def parse_submit(self, result: CommandResult) -> str:
        """Only what the controller itself refused is a rejection; a lost answer leaves the outcome open."""
        if result.exit_status:
            self._raise_rejection(result)
        ids = [m[1] for line in decoded(result.stdout).split("\n")[:-1] if (m := _SUBMITTED.fullmatch(line.strip()))]
        if len(ids) != 1:
            raise _unavailable(result, "sbatch accepted something and printed no job id")
        return ids[0]

    def _raise_rejection(self, result: CommandResult) -> None:
        words = printable(result.stderr)
        narrow = next((code for phrase, code in _REJECTED if phrase in words), "")
        if _NO_ANSWER.search(words) or not (narrow or _FAILED in words):
            raise _unavailable(result)
        code = f"scheduler.rejected.{narrow}" if narrow else ""
        raise SubmitRejected(words, code=code, params={"exit_status": result.exit_status})

    def find_command(self, *, name: str, user: str) -> Command:
        """Jobs that wait, run, or ended within ``MinJobAge``."""
        if not _NAME.fullmatch(name) or not _USER.fullmatch(user):
            raise SchedulerError("not a job name and a user", code="scheduler.bad_search")
        squeue = self.command_path("squeue")
        return Command((squeue, "--noheader", "--states=all", f"--name={name}", f"--user={user}", "--format=%A"))

    def parse_find(self, result: CommandResult) -> tuple[str, ...]:
        """See the base class. A user whom squeue does not know is an error that exits with 0 (seen)."""
        lines = decoded(result.stdout).split("\n")
        ids = [line.strip() for line in lines[:-1]]
        if result.exit_status or b"error" in result.stderr:
            raise _unavailable(result)
        if lines[-1] or not all(_JOB_ID.fullmatch(job_id) for job_id in ids):
            raise _unavailable(result, "squeue gave no whole answer")
        return tuple(sorted(dict.fromkeys(ids), key=int))

    def status_command(self, job_ids: Sequence[str]) -> Command:
        """See the module's words; ids are checked, because a malformed one fails the whole query."""
        if not job_ids:
            raise SchedulerError("no job to ask for", code="scheduler.bad_job_id")
        ids = tuple(_checked(job_id) for job_id in job_ids)
        return Command(
            (
                *("sh", "-c", _STATUS, "sh", self.command_path("squeue"), self.command_path("sacct")),
                *(slurm_answers.COLUMNS.text, slurm_answers.ACCOUNTING_FIELDS, slurm_answers.SEPARATOR),
                *ids,
            ),
            environment={**ENVIRONMENT, "SLURM_TIME_FORMAT": "standard"},
        )

    def parse_status(self, result: CommandResult, job_ids: Sequence[str]) -> StatusReport:
        """``without_history`` when the accounting was asked and is not there."""
        asked = frozenset(job_ids)
        answers = {label: (status, answer) for label, status, answer in framed_answers(result.stdout)}
        if result.exit_status or "queue" not in answers:
            raise _unavailable(result, "squeue gave no answer")
        status, answer = answers["queue"]
        # A single id that squeue does not know is an error, several are not (seen).
        if status and _UNKNOWN not in decoded(result.stderr):
            raise _unavailable(result)
        jobs = _of_asked(slurm_answers.queue_rows(answer), asked)
        status, answer = answers.get("accounting", (0, b""))
        if not status:
            jobs = {**_of_asked(slurm_answers.accounting_rows(answer), asked), **jobs}
        return StatusReport(jobs, asked - jobs.keys(), without_history=bool(status))

    def cancel_command(self, job_id: str) -> Command:
        """``scancel`` exits with 0 for finished and for unknown jobs too (seen); the next status tells."""
        return Command((self.command_path("scancel"), _checked(job_id)))

    def parse_cancel(self, result: CommandResult) -> CancelOutcome:
        """See the base class."""
        words = decoded(result.stderr)
        if _DENIED in words:
            raise NotPermitted(printable(words))
        if _UNKNOWN in words:
            return CancelOutcome.UNKNOWN
        if "already completing or completed" in words:
            return CancelOutcome.FINISHED
        if result.exit_status:
            raise _unavailable(result)
        return CancelOutcome.ACCEPTED

    def extend_command(self, job_id: str, *, walltime_seconds: int) -> Command:
        """Users may shorten the limit of their jobs; only operators may lengthen it."""
        if not 0 < walltime_seconds <= 366 * 86_400:
            raise SchedulerError("not a walltime", code="scheduler.rejected.bad_value")
        update = (f"JobId={_checked(job_id)}", f"TimeLimit={clock_text(walltime_seconds)}")
        return Command((self.command_path("scontrol"), "update", *update))

    def parse_extend(self, result: CommandResult) -> None:
        """See the base class."""
        words = printable(result.stderr)
        if not result.exit_status and not words:
            return
        if _DENIED in words or "Invalid user id" in words:  # seen: an operator's matter; another's job
            raise NotPermitted(words)
        if _NO_ANSWER.search(words) or "for job" not in words:  # seen: "Job has already finished for job 10"
            raise _unavailable(result)
        narrow = "over_limit" if "time limit" in words else "bad_value"
        raise SubmitRejected(words, code=f"scheduler.rejected.{narrow}", params={"exit_status": result.exit_status})

    def queues_command(self) -> Command:
        """Only administrators write what a partition's record holds."""
        return Command((self.command_path("scontrol"), "--oneliner", "show", "partition"))

    def parse_queues(self, result: CommandResult) -> tuple[Queue, ...]:
        """See the base class."""
        if result.exit_status:
            raise _unavailable(result)
        return slurm_answers.partitions(result.stdout)

    def nodes_command(self) -> Command:
        """One line per node and partition."""
        argv = (
            self.command_path("sinfo"),
            "--noheader",
            "--Node",
            f"--Format={slurm_answers.NODE_COLUMNS.text}",
        )
        return Command(argv, environment=ENVIRONMENT)

    def parse_nodes(self, result: CommandResult) -> tuple[Node, ...]:
        """See the base class."""
        if result.exit_status:
            raise _unavailable(result)
        return slurm_answers.nodes(result.stdout)


def _checked(job_id: str) -> str:
    if not _JOB_ID.fullmatch(job_id):
        raise UnresolvableJob(f"not a job id: {job_id[:80]!r}")
    return job_id


def _of_asked(rows: Sequence[JobStatus], asked: frozenset[str]) -> dict[str, JobStatus]:
    jobs: dict[str, JobStatus] = {}
    for job in rows:
        if job.job_id in asked:
            jobs.setdefault(job.job_id, job)
    return jobs


def _unavailable(result: CommandResult, why: str = "") -> SchedulerUnavailable:
    words = printable(result.stderr) or why or f"exit status {result.exit_status}"
    code = "scheduler.command_missing" if result.exit_status in (126, 127) else ""
    return SchedulerUnavailable(words, code=code, params={"exit_status": result.exit_status})
