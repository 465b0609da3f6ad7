"""Checks of a cluster's scheduler: its commands, its answers, its queues, and, where it is wished, a tiny job."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Sequence

from launcher.clusters import QueueLimits
from launcher.doctor.findings import Said, broken, doubtful, fine, one_line, skipped
from launcher.doctor.visit import Visit
from launcher.schedulers.base import JobRequest, Queue, SchedulerError
from launcher.ssh.errors import SSHError
from portal.words import marked as _

_LOOK = 'for c do command -v "$c" >/dev/null 2>&1 || echo "$c"; done'
_SEARCH = r"""
exec_folder=$(sed -n 's/^PBS_EXEC=//p' "${PBS_CONF_FILE:-/etc/pbs.conf}" 2>/dev/null | tr -d "\"'")
[ -x "$exec_folder/bin/$1" ] && echo "$exec_folder/bin"
bash -lc 'command -v "$1"' bash "$1" 2>/dev/null
for folder in /opt/pbs /usr/pbs /opt/torque /usr/local/torque /opt/slurm /usr/local/slurm /usr/local /usr; do
  [ -x "$folder/bin/$1" ] && echo "$folder/bin"
done
"""
JOB_SECONDS = 60


def commands(visit: Visit) -> Said:
    """The scheduler's commands are where the clusters file says."""
    folder = visit.cluster.commands_folder
    wanted = visit.scheduler.commands
    paths = [visit.scheduler.command_path(command) for command in wanted]
    lines = visit.run("sh", "-c", _LOOK, "sh", *paths).stdout.decode(errors="replace").splitlines()
    missing = [path for path in paths if path in lines]
    if not missing:
        return fine(_("%(commands)s are there."), commands=", ".join(wanted))
    hint = _found_in(visit, wanted[0])
    return broken(
        _("These commands are not on the login host: %(missing)s."),
        _('Set commands_folder = "%(hint)s" for this cluster in the clusters file, and restart the portal.')
        if hint and hint != folder
        else _("Find their folder and set it as commands_folder in the clusters file, or install the client."),
        command="" if hint else f"bash -lc 'command -v {wanted[0]}'",
        missing=", ".join(missing),
        hint=hint,
    )


def _found_in(visit: Visit, command: str) -> str:
    """A folder on the login host that has the command, or nothing."""
    lines = visit.run("sh", "-c", _SEARCH, "sh", command).stdout.decode(errors="replace").splitlines()
    for line in lines:
        found = line.strip().removesuffix(f"/{command}")
        if found.startswith("/") and found.isprintable():
            return found
    return ""


def answers(visit: Visit) -> Said:
    """The status commands answer, and the answer is understood."""
    name = f"footbridge-doctor-{secrets.token_hex(4)}"
    try:
        visit.ask(
            lambda scheduler: scheduler.find_command(name=name, user=visit.username),
            lambda scheduler, result: scheduler.parse_find(result),
        )
        queues = visit.ask(
            lambda scheduler: scheduler.queues_command(), lambda scheduler, result: scheduler.parse_queues(result)
        )
    except (SchedulerError, SSHError) as error:
        return broken(
            _("The scheduler gives no usable answer: %(words)s"),
            _("Run the command on the login host as %(user)s. If it hangs or cannot connect, start the scheduler."),
            command={"slurm": "squeue"}.get(visit.cluster.scheduler, "qstat -Q"),
            words=error.detail or error.code,
            user=visit.username,
        )
    return fine(_("The scheduler answers. Its queues: %(count)s."), count=len(queues))


def queues(visit: Visit) -> Sequence[Said]:
    """The queues of the clusters file exist, take jobs, and allow what the portal promises."""
    found = visit.ask(
        lambda scheduler: scheduler.queues_command(), lambda scheduler, result: scheduler.parse_queues(result)
    )
    there = {queue.name: queue for queue in found}
    said: list[Said] = []
    for wanted in visit.cluster.queues:
        queue = there.get(wanted.name)
        if queue is None:
            said.append(
                broken(
                    _("There is no queue %(queue)s on the cluster."),
                    _("Take it out of the clusters file, or name one of these: %(there)s."),
                    queue=wanted.name,
                    there=", ".join(sorted(there)),
                )
            )
        elif not queue.accepts_jobs or not queue.starts_jobs:
            said.append(
                doubtful(
                    _("The queue %(queue)s takes no jobs at present, or starts none."),
                    _("Enable and start it on the cluster, or take it out of the clusters file."),
                    queue=wanted.name,
                )
            )
        elif beyond := _promised_beyond(wanted, queue):
            said.append(
                doubtful(
                    _("The clusters file allows more in the queue %(queue)s than the cluster does: %(beyond)s."),
                    _("Lower these limits in the clusters file, or people are refused after they have chosen."),
                    queue=wanted.name,
                    beyond=beyond,
                )
            )
    return said or [fine(_("The queues are there: %(names)s."), names=", ".join(q.name for q in visit.cluster.queues))]


def _promised_beyond(wanted: QueueLimits, queue: Queue) -> str:
    pairs = (
        ("max_hours", wanted.max_hours, _or_any(queue.max_walltime_seconds, 3600)),
        ("max_cores", wanted.max_cores, _or_any(queue.max_cores)),
        ("max_memory (MiB)", wanted.max_memory_mib, _or_any(queue.max_memory_mib)),
        ("max_gpus", wanted.max_gpus, _or_any(queue.max_gpus)),
    )
    return ", ".join(f"{name} {ours:g} > {theirs:g}" for name, ours, theirs in pairs if ours > theirs)


def _or_any(limit: int | None, unit: float = 1) -> float:
    return math.inf if limit is None else limit / unit


def job(visit: Visit) -> Said:
    """A tiny job is accepted, seen and cancelled."""
    if not visit.with_job:
        return skipped(_("No job was submitted; --job does it, and takes a place in the queue for a moment."))
    queue = visit.cluster.queues[0].name
    request = JobRequest(
        name=f"footbridge-doctor-{secrets.token_hex(4)}",
        script=f"#!/bin/sh\nsleep {JOB_SECONDS}\n".encode(),
        cores=1,
        memory_mib=256,
        walltime_seconds=2 * JOB_SECONDS,
        queue=queue,
        account=visit.cluster.account,
        output_path="/dev/null",
    )
    try:
        job_id = visit.ask(
            lambda scheduler: scheduler.submit_command(request),
            lambda scheduler, result: scheduler.parse_submit(result),
        )
    except (SchedulerError, SSHError) as error:
        return broken(
            _("The scheduler refuses a job of one core in the queue %(queue)s: %(words)s"),
            _("Submit one by hand as %(user)s; it may need rights in the queue, or an “account” to charge."),
            queue=queue,
            user=visit.username,
            words=error.detail or error.code,
        )
    began_at = time.monotonic()
    seen = False
    try:
        report = visit.ask(
            lambda scheduler: scheduler.status_command([job_id]),
            lambda scheduler, result: scheduler.parse_status(result, [job_id]),
        )
        seen = job_id in report.jobs
    finally:
        visit.ask(
            lambda scheduler: scheduler.cancel_command(job_id),
            lambda scheduler, result: scheduler.parse_cancel(result),
        )
    if not seen:
        return broken(
            _("The job %(job)s was accepted and the status command does not know it."),
            _("Look whether the login host's status command asks the same server as its submit command."),
            job=job_id,
        )
    return fine(
        _("The job %(job)s was submitted, seen and cancelled (%(seconds)s s)."),
        job=one_line(job_id),
        seconds=f"{time.monotonic() - began_at:.1f}",
    )
