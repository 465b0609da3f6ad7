"""The tables of qstat and pbsnodes, column for column as recorded. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from launcher.democluster.pbs.attributes import state_counts, walltime_used
from launcher.democluster.pbs.job import Job, State
from launcher.democluster.pbs.nodes import NodeState
from launcher.democluster.pbs.values import clock_text, size_kib, size_text
from launcher.democluster.settings import SERVER_NAME, QueueDefinition

_DEFAULT_HEAD = (
    "Job id            Name             User              Time Use S Queue\n"
    "----------------  ---------------- ----------------  -------- - -----\n"
)
_LONG_HEAD = """
{server}: 
                                                            Req'd  Req'd   Elap
Job ID          Username Queue    Jobname    SessID NDS TSK Memory Time  S Time
--------------- -------- -------- ---------- ------ --- --- ------ ----- - -----
"""  # noqa: W291  PBS prints the blank
_WIDE_HEAD = """
{server}: 
                                                                                                   Req'd  Req'd   Elap
Job ID                         Username        Queue           Jobname         SessID   NDS  TSK   Memory Time  S Time
------------------------------ --------------- --------------- --------------- -------- ---- ----- ------ ----- - -----
"""  # noqa: W291  as PBS prints it
_WIDTHS = {False: (15, 8, 8, 10, 6, 3, 3), True: (30, 15, 15, 15, 8, 4, 5)}
_QUEUE_HEAD = (
    "Queue              Max   Tot Ena Str   Que   Run   Hld   Wat   Trn   Ext Type\n"
    "---------------- ----- ----- --- --- ----- ----- ----- ----- ----- ----- ----\n"
)
_SERVER_HEAD = (
    "Server             Max   Tot   Que   Run   Hld   Wat   Trn   Ext Status\n"
    "---------------- ----- ----- ----- ----- ----- ----- ----- ----- -----------\n"
)
_NODE_HEAD = (
    "                                                        mem       ncpus   nmics   ngpus\n"
    "vnode           state           njobs   run   susp      f/t        f/t     f/t     f/t   jobs\n"
    "--------------- --------------- ------ ----- ------ ------------ ------- ------- ------- -------\n"
)


def default_table(jobs: Iterable[Job]) -> str:
    """``qstat`` without options. Nothing at all when there is no job."""
    rows = ""
    for job in jobs:
        used = clock_text(int(job.cpu_seconds)) if job.started_at else "0"
        request = job.request
        rows += (
            f"{_cut(job.job_id, 16):<16}  {_cut(request.name, 16):<16} {_cut(request.owner, 16):<16}  "
            f"{used:>8} {job.state.value} {request.queue[:16]:<16}\n"
        )
    return _DEFAULT_HEAD + rows if rows else ""


def long_table(jobs: Iterable[Job], *, wide: bool, comments: bool, hosts: bool, one_line: bool) -> str:
    """``qstat -a``, ``-u`` and their like. ``hosts`` and ``comments`` add lines, or go behind the row."""
    rows = ""
    for job in jobs:
        rows += _long_row(job, wide)
        extra = []
        if hosts:
            extra.append(job.execution_host or "--")
        if comments and job.comment:
            extra.append(job.comment)
        for text in extra:
            rows = rows[:-1] + f" {text}\n" if one_line else rows + f"   {text}\n"
    head = _WIDE_HEAD if wide else _LONG_HEAD
    return head.format(server=SERVER_NAME) + rows if rows else ""


def _long_row(job: Job, wide: bool) -> str:
    id_width, user, queue, name, session, nodes, tasks = _WIDTHS[wide]
    request = job.request
    seconds = walltime_used(job)
    elapsed = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}" if job.running_at else "-- "
    cells = [
        f"{_cut(job.job_id, id_width):<{id_width}}",
        f"{_cut(request.owner, user):<{user}}",
        f"{_cut(request.queue, queue):<{queue}}",
        f"{_cut(request.name, name):<{name}}",
        f"{job.session_id or '-- ':>{session}}",
        f"{len(request.chunks):>{nodes}}",
        f"{job.cores:>{tasks}}",
        f"{_memory(job):>6}",
        clock_text(request.walltime_seconds)[:5],
        job.state.value,
        f"{elapsed:>5}",
    ]
    return " ".join(cells) + "\n"


def _memory(job: Job) -> str:
    """The request in a unit that keeps it short; a number without a unit is rounded up to megabytes."""
    text = job.request.resources.get("mem", "")
    kib = size_kib(text, "mem") if text else job.memory_kib_requested
    if not kib:
        return "-- "
    whole = text if text and not text[:-1].isdigit() else size_text(kib)
    return whole if len(whole) <= 6 else f"{-(-kib // 1024)}mb"


def _cut(text: str, width: int) -> str:
    """Cut with a star, as qstat marks it."""
    return text if len(text) <= width else text[: width - 1] + "*"


def queue_table(queues: Iterable[tuple[QueueDefinition, list[Job]]]) -> str:
    """``qstat -Q``."""
    rows = ""
    for queue, jobs in queues:
        counts = state_counts(jobs)
        enabled, started = ("yes" if flag else "no" for flag in (queue.is_enabled, queue.is_started))
        rows += (
            f"{queue.name[:16]:<16} {0:>5} {sum(counts.values()):>5} {enabled:>3} {started:>3} {_counts(counts)} Exe*\n"
        )
    return _QUEUE_HEAD + rows


def server_table(jobs: Iterable[Job]) -> str:
    """``qstat -B``."""
    counts = state_counts(jobs)
    return _SERVER_HEAD + f"{SERVER_NAME:<16} {0:>5} {sum(counts.values()):>5} {_counts(counts)} Active    \n"


def _counts(counts: dict[State, int]) -> str:
    order = (State.QUEUED, State.RUNNING, State.HELD, State.WAITING, None, State.EXITING)
    return " ".join(f"{counts.get(state, 0) if state else 0:>5}" for state in order)


def node_table(states: Iterable[NodeState]) -> str:
    """``pbsnodes -aSj``."""
    rows = ""
    for state in states:
        cores, memory, gpus = state.free()
        node, jobs = state.node, ",".join(job_id.partition(".")[0] for job_id in state.jobs)
        rows += (
            f"{node.name[:15]:<15} {state.state:<15} {len(state.jobs):>6} {len(state.jobs):>5} {0:>6} "
            f"{f'{-(-memory // 2**20)}gb/{-(-node.memory_mib // 1024)}gb':>12} {f'{cores}/{node.cores}':>7} "
            f"{'0/0':>7} {f'{gpus}/{node.gpus}':>7} {jobs or '--'}\n"
        )
    return _NODE_HEAD + rows
