"""``qdel``, ``qhold``, ``qrls``, ``qalter`` and ``qselect``."""

from __future__ import annotations

from dataclasses import replace

from launcher.democluster.pbs import errors
from launcher.democluster.pbs.calls import (
    Answer,
    Call,
    check_owner,
    encoded,
    for_each_job,
    refused,
    version_answer,
)
from launcher.democluster.pbs.errors import OVER_LIMIT, PBSError, UsageError
from launcher.democluster.pbs.job import Job, State
from launcher.democluster.pbs.options import Parsed, getopt
from launcher.democluster.pbs.qsub_values import check_name, read_resources
from launcher.democluster.pbs.scheduler import Scheduler

_USAGE = {
    "qdel": "usage:\n\tqdel [-W force|suppress_email=X] [-x] job_identifier...\n\tqdel --version\n",
    "qhold": "usage: qhold [-h hold_list] job_identifier...\n       qhold --version\n",
    "qrls": "usage: qrls [-h hold_list] job_identifier...\n       qrls --version\n",
    "qalter": "usage: qalter [-A account_string] [-l resource_list] [-N jobname] job_identifier...\n",
    "qselect": "usage: qselect [-N jobname] [-q destination] [-s states] [-u user_list] [-x] [-H]\n",
}


def _read(call: Call, spec: str, *, needs_jobs: bool = True) -> Parsed:
    line = getopt(call.arguments, spec)
    if line.complaints:
        raise UsageError(f"\n{call.command}: ".join(line.complaints))
    if needs_jobs and not line.operands:
        raise UsageError("no job named")
    return line


def _refused(call: Call, error: PBSError) -> Answer:
    return refused(call.command, error, _USAGE[call.command])


async def qdel(call: Call, scheduler: Scheduler) -> Answer:
    """Cancel jobs. ``-W force`` does not wait for the host, ``-x`` also removes the job from the history."""
    if call.arguments == ("--version",):
        return version_answer()
    try:
        line = _read(call, "W:x")
    except PBSError as error:
        return _refused(call, error)
    force = line.last("W") == "force"

    def delete(job: Job) -> None:
        check_owner(job, call.user)
        if job.state is State.FINISHED:
            if not line.has("x"):
                raise errors.finished(job.job_id)
            scheduler.jobs.pop(job.sequence, None)
            return
        if job.state is State.EXITING and not force:
            raise PBSError(errors.WRONG_STATE, f"Request invalid for state of job {job.job_id}")
        unreachable = scheduler.faults.nodes_down & set(job.nodes)
        if job.is_active and unreachable and not force:
            raise PBSError(errors.HOST_UNREACHABLE, f"Server could not connect to MOM {job.job_id}")
        scheduler.delete(job, call.user.name, force=force)

    return for_each_job(call, line.operands, scheduler.jobs, delete)


def _check_hold_kind(line: Parsed, call: Call, job: Job) -> None:
    kinds = set(line.last("h", "u"))
    if not kinds or kinds - set("uosnp"):
        raise UsageError("illegal -h value")
    if kinds & set("os") and not call.user.is_operator:
        raise errors.not_permitted(job.job_id)


async def qhold(call: Call, scheduler: Scheduler) -> Answer:
    """Hold jobs back."""
    return _hold_or_release(call, scheduler, hold=True)


async def qrls(call: Call, scheduler: Scheduler) -> Answer:
    """Let held jobs go."""
    return _hold_or_release(call, scheduler, hold=False)


def _hold_or_release(call: Call, scheduler: Scheduler, *, hold: bool) -> Answer:
    if call.arguments == ("--version",):
        return version_answer()
    try:
        line = _read(call, "h:")
    except PBSError as error:
        return _refused(call, error)

    def act(job: Job) -> None:
        check_owner(job, call.user)
        _check_hold_kind(line, call, job)
        if job.state is State.FINISHED:
            raise errors.finished(job.job_id)
        if hold:
            scheduler.hold(job)
        else:
            scheduler.release(job)

    return for_each_job(call, line.operands, scheduler.jobs, act)


async def qalter(call: Call, scheduler: Scheduler) -> Answer:
    """Change jobs. Of a running job users may only shorten the walltime; an operator may lengthen it."""
    if call.arguments == ("--version",):
        return version_answer()
    try:
        line = _read(call, "A:N:l:m:M:p:P:")
        if complaints := [c for name, value in line.options if name == "N" for c in check_name(value)]:
            raise UsageError(complaints[0])
    except PBSError as error:
        return _refused(call, error)

    def alter(job: Job) -> None:
        check_owner(job, call.user)
        if job.state is State.FINISHED:
            raise errors.finished(job.job_id)
        if job.state is State.EXITING:
            raise PBSError(errors.WRONG_STATE, f"Request invalid for state of job {job.job_id}")
        request = replace(
            job.request,
            name=line.last("N", job.request.name),
            account=line.last("A", job.request.account),
            mail_points=line.last("m", job.request.mail_points),
            mail_users=line.last("M", job.request.mail_users),
        )
        if line.has("l"):
            wanted = read_resources([value for name, value in line.options if name == "l"])
            walltime = wanted.walltime_seconds if wanted.walltime_seconds >= 0 else request.walltime_seconds
            only_walltime = all(
                part.startswith("walltime=") for n, v in line.options if n == "l" for part in v.split(",")
            )
            if job.state is State.RUNNING:
                if not only_walltime:
                    raise PBSError(errors.WRONG_STATE, f"Cannot modify attribute while job running {job.job_id}")
                if walltime > request.walltime_seconds and not call.user.is_operator:
                    raise errors.not_permitted(job.job_id)
            elif not only_walltime:
                request = replace(request, resources=wanted.given, chunks=wanted.chunks, place=wanted.place)
            queue = scheduler.settings.queue(request.queue)
            limit = queue.max_walltime_seconds if queue else None
            if limit is not None and walltime > limit and not call.user.is_operator:
                message = "Job violates queue and/or server resource limits"
                raise PBSError(OVER_LIMIT, f"{message} {job.job_id}")
            request = replace(request, walltime_seconds=walltime)
        scheduler.alter(job, request)

    return for_each_job(call, line.operands, scheduler.jobs, alter)


async def qselect(call: Call, scheduler: Scheduler) -> Answer:
    """Print the ids of jobs that match; ``-x`` includes ended ones, ``-H`` shows only those."""
    if call.arguments == ("--version",):
        return version_answer()
    try:
        line = _read(call, "N:q:s:u:xHTJ", needs_jobs=False)
        if line.operands:
            raise UsageError("no operands allowed")
    except PBSError as error:
        return _refused(call, error)
    users = {name.partition("@")[0] for name in line.last("u").split(",")} if line.has("u") else None
    states = set(line.last("s"))

    def matches(job: Job) -> bool:
        ended = job.state is State.FINISHED
        if ended != line.has("H") and not (line.has("x") and not line.has("H")):
            return False
        return (
            (not line.has("N") or job.request.name == line.last("N"))
            and (not line.has("q") or job.request.queue == line.last("q").partition("@")[0])
            and (not states or job.state.value in states)
            and (users is None or job.request.owner in users)
        )

    return Answer(stdout=encoded("".join(f"{job.job_id}\n" for job in scheduler.jobs.values() if matches(job))))
