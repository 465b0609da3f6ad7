"""Why a job ended, from what the scheduler says and the end of the session's log, as data. Pure.

The scheduler's word about limits comes first, then the first cause the log names, then the bare exit status.
The log is written by the user's own programs: it decides only what its owner reads about their own session.
Every pattern looks at one line of bounded length and cannot backtrack far.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from launcher import joblog
from launcher.schedulers.base import JobStatus
from launcher.schedulers.values import printable
from launcher.states import EndReason

_TAIL_LIMIT = 64 * 1024
_LINE_LIMIT = 1_000
_PARAM_LIMIT = 200
_LAST_LINES = 40
"""Among these must stand what ended the job; what stands further up it survived."""


@dataclass(frozen=True, slots=True)
class Ending:
    """``code`` is the key of a sentence; ``params`` fill it in: ``module``, ``path``, ``exit_status``,
    ``signal``, ``by``.
    """

    reason: EndReason
    code: str
    params: Mapping[str, object] = field(default_factory=dict)


_LIMITS = {
    "walltime": Ending(EndReason.WALLTIME, "ended.walltime"),
    "memory": Ending(EndReason.OUT_OF_MEMORY, "ended.out_of_memory"),
    "node": Ending(EndReason.NODE_FAILED, "ended.node_failed"),
    "preempted": Ending(EndReason.FAILED, "ended.preempted"),
    "cpu_time": Ending(EndReason.FAILED, "ended.cpu_time"),
}

_PBS_EXIT = {
    -29: "walltime",  # seen: killed for its walltime, about eleven seconds late
    -28: "cpu_time",
    -27: "memory",  # seen: killed for its memory, where the site enforces it
    -26: "memory",  # virtual memory
    -4: "node",  # seen: the daemon of the host was restarted
    -5: "node",
    -6: "node",
}
"""Exit status of a job that PBS itself ended (negative; its reference guide, "Job Exit Codes")."""

_NOT_STARTED = {
    -3: "ended.output_failed",  # seen: the output file could not be opened
    -2: "ended.not_started",
    -1: "ended.not_started",
    254: "ended.bad_shell",  # seen: the login shell could not be started
}
_SLURM_STATE = {
    "TIMEOUT": "walltime",
    "DEADLINE": "walltime",
    "OUT_OF_MEMORY": "memory",
    "NODE_FAIL": "node",
    "BOOT_FAIL": "node",
    "PREEMPTED": "preempted",
    "REVOKED": "preempted",
}

_SAID_BY_SCHEDULER = (
    (re.compile(r"=>> PBS: job killed: walltime|DUE TO TIME LIMIT|exceeded resource walltime"), "walltime"),
    (re.compile(r"=>> PBS: job killed: v?mem\b|exceeded resource v?mem\b"), "memory"),
    (re.compile(r"oom.?kill|Exceeded job memory limit|exceeded memory limit", re.IGNORECASE), "memory"),
    (re.compile(r"Out of memory: Kill", re.IGNORECASE), "memory"),
    (re.compile(r"DUE TO NODE FAILURE|node down: communication closed"), "node"),
    (re.compile(r"DUE TO PREEMPTION"), "preempted"),
)
"""What schedulers and kernels write into a job's output (and PBS into its comment) when they end it."""

_PATH = r"[\"'`]?(/[^\s\"'`:]{1,400})"
_CAUSES = (
    # code, name of the parameter, pattern whose first group is the parameter
    ("ended.module_missing", "module", re.compile(r"Unable to locate a modulefile for '([^']{1,200})'")),
    ("ended.module_missing", "module", re.compile(r"module\(s\) are unknown: \"([^\"]{1,200})\"")),
    (
        "ended.module_missing",
        "module",
        re.compile(r"module\(s\) exist.{0,60}cannot be loaded.{0,40}: \"([^\"]{1,200})\""),
    ),
    ("ended.module_command_missing", "", re.compile(r"\bmodule: (?:command )?not found")),
    ("ended.environment_missing", "path", re.compile(r"ould not find conda environment: (\S{1,400})")),
    ("ended.environment_missing", "path", re.compile(_PATH + r"/bin/activate[\"'`]?: No such file")),
    ("ended.environment_missing", "path", re.compile(r"Not a conda environment: (\S{1,400})")),
    ("ended.runtime_missing", "", re.compile(r"\b(?:apptainer|singularity): (?:command )?not found")),
    ("ended.image_missing", "path", re.compile(r"could not open image " + _PATH)),
    (
        "ended.image_missing",
        "path",
        re.compile(r"[Ii]mage (?:path )?" + _PATH + r"[\"'`]? (?:not found|doesn't exist|does not exist)"),
    ),
    ("ended.image_missing", "path", re.compile(r"image format not recognized|unknown image format")),
    (
        "ended.jupyter_missing",
        "",
        re.compile(r"\bjupyter(?:-lab|-notebook|-server)?: (?:command )?not found"),
    ),
    ("ended.jupyter_missing", "", re.compile(r"Jupyter command `jupyter-\w{1,40}` not found")),
    (
        "ended.jupyter_missing",
        "",
        re.compile(r"No module named ['\"]?(?:jupyter|jupyterlab|jupyter_server|jupyter_core|notebook)\b"),
    ),
    (
        "ended.jupyter_too_old",
        "",
        re.compile(r"jupyter.{0,80}(?:unrecognized arguments|[Uu]nrecognized flag)"),
    ),
    (
        "ended.port_in_use",
        "",
        re.compile(r"no available port could be found|because port \d{1,5} is not available"),
    ),
    ("ended.port_in_use", "", re.compile(r"OSError: .{0,40}Address already in use")),
    (
        "ended.disk_full",
        "",
        re.compile(r"No space left on device|[Dd]isk quota exceeded|\[Errno (?:28|122)\]"),
    ),
    ("ended.folder_missing", "path", re.compile(r"\bcd: " + _PATH + r"[\"'`]?: No such file or directory")),
    ("ended.folder_missing", "path", re.compile(r"can't cd to " + _PATH)),
    ("ended.bad_shell", "", re.compile(r"(?:bad interpreter|Cannot execute .{0,80}shell)")),
)
"""Causes that a job script or the programs in it name in the log."""

_SCRIPT_STATUS = frozenset(joblog.ExitCode)
_DELETED = re.compile(r"\bterminated(?: by ([A-Za-z0-9_][A-Za-z0-9._-]{0,127})@)?")
_SCRIPT_ENDED = re.compile(r"The job script ends with status (\d{1,3})\.")
_SIGNALLED = re.compile(r"received signal 15, stopping")  # Jupyter's words


def ending(
    status: JobStatus | None,
    log_tail: str,
    *,
    last_seen: JobStatus | None = None,
    stopped_by: EndReason | None = None,
    stop_code: str = "",
) -> Ending:
    """The end of a job.

    ``status``: the scheduler's last word, ``None`` when it does not know the job any more; ``last_seen``: what it said
    before that, while the job was there. ``stopped_by``:
    the reason that the portal's own stop request stands for, with its ``stop_code``. A request that stands
    for a failure (the server did not answer in time) gives way to a cause that the log names.
    """
    lines = tuple(_lines(log_tail))
    if stopped_by is not None:
        found = _cause(lines) if stopped_by is EndReason.FAILED else None
        return found or Ending(stopped_by, stop_code or f"ended.{stopped_by}")
    if status is None:
        deleted = _deleted(last_seen) if last_seen is not None and _DELETED.search(last_seen.comment) else None
        return _limit(lines) or deleted or _cause(lines) or _without_status(lines)
    return (
        _scheduler_ended(status)
        # A kernel may run out of memory, and the session go on for hours and end well.
        or (_limit((*lines, status.comment[:_LINE_LIMIT])) if status.exit_status != 0 else None)
        or _by_exit_status(status, lines)
        or _cause(lines)
        or _without_status(lines)
    )


def _lines(log_tail: str) -> Iterator[str]:
    for line in log_tail[-_TAIL_LIMIT:].split("\n"):
        yield line[:_LINE_LIMIT]


def _scheduler_ended(status: JobStatus) -> Ending | None:
    """Limits and lost hosts, where the scheduler itself says so."""
    kind = _SLURM_STATE.get(status.raw_state)
    if kind is None and status.exit_status is not None:
        kind = _PBS_EXIT.get(status.exit_status)
    return _LIMITS[kind] if kind else None


def _limit(lines: tuple[str, ...]) -> Ending | None:
    """The same, in words; the last of them is the one that ended the job."""
    for line in reversed(lines[-_LAST_LINES:]):
        for pattern, kind in _SAID_BY_SCHEDULER:
            if pattern.search(line):
                return _LIMITS[kind]
    return None


def _cause(lines: tuple[str, ...]) -> Ending | None:
    """What the job script says itself, else the first cause: what follows is usually its consequence."""
    failure = joblog.failure("\n".join(lines))
    if failure is not None:
        subject = printable(failure.subject, _PARAM_LIMIT)
        param = "module" if failure.word == "module_missing" else "path"
        return Ending(EndReason.FAILED, f"ended.{failure.word}", {param: subject} if subject else {})
    for line in lines:
        for code, param, pattern in _CAUSES:
            match = pattern.search(line)
            if match:
                value = printable(match[1], _PARAM_LIMIT) if param and pattern.groups else ""
                return Ending(EndReason.FAILED, code, {param: value} if value else {})
    return None


def _by_exit_status(status: JobStatus, lines: tuple[str, ...]) -> Ending | None:
    deleted, exit_status = _deleted(status), status.exit_status
    if deleted or exit_status is None:
        return deleted
    if exit_status == 0:
        return _well_ended(lines)
    if exit_status in _NOT_STARTED:
        return _cause(lines) or Ending(EndReason.FAILED, _NOT_STARTED[exit_status])
    signal = _signal(exit_status)
    if signal is not None:
        return Ending(EndReason.FAILED, "ended.killed", {"signal": signal, "exit_status": exit_status})
    return _cause(lines) or _exit(exit_status)


def _exit(exit_status: int) -> Ending:
    """A status that the job script chose itself, or the server's own."""
    if exit_status in _SCRIPT_STATUS:
        return Ending(EndReason.FAILED, f"ended.{joblog.ExitCode(exit_status).word}")
    return Ending(EndReason.FAILED, "ended.exit", {"exit_status": exit_status})


def _well_ended(lines: tuple[str, ...]) -> Ending:
    if joblog.stopped_when_idle("\n".join(lines)):
        return Ending(EndReason.IDLE, "ended.idle")
    return Ending(EndReason.COMPLETED, "ended.completed")


def _signal(exit_status: int) -> int | None:
    """The signal that ended the script: 256 + n in PBS, 128 + n from a shell."""
    for base in (256, 128):
        if base < exit_status <= base + 64:
            return exit_status - base
    return None


def _deleted(status: JobStatus) -> Ending | None:
    """Whether somebody deleted the job outside the portal, and who where the scheduler says so."""
    match = _DELETED.search(status.comment[:_LINE_LIMIT])
    never_ran = status.exit_status is None and status.started_at is None and status.raw_state not in ("", "COMPLETED")
    by_term = status.exit_status == 256 + 15  # seen: qdel
    if not (match or never_ran or by_term or status.raw_state == "CANCELLED"):
        return None
    by = match[1] if match else None
    reason = EndReason.STOPPED_BY_ADMIN if by and by != status.owner else EndReason.STOPPED_BY_USER
    return Ending(reason, "ended.deleted_outside", {"by": by} if by else {})


def _without_status(lines: tuple[str, ...]) -> Ending:
    """No word of the scheduler and no cause: what the job script wrote last tells an end from a loss."""
    statuses = [int(match[1]) for line in lines[-_LAST_LINES:] if (match := _SCRIPT_ENDED.search(line))]
    if not statuses:
        return Ending(EndReason.LOST, "ended.lost")
    signal = 15 if any(_SIGNALLED.search(line) for line in lines[-_LAST_LINES:]) else _signal(statuses[-1])
    if signal is not None:
        return Ending(EndReason.FAILED, "ended.killed", {"signal": signal, "exit_status": statuses[-1]})
    return _exit(statuses[-1]) if statuses[-1] else _well_ended(lines)
