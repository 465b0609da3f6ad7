"""``qstat``: jobs, queues and the server, as tables, text, dsv and JSON."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from launcher.democluster.pbs.attributes import Attribute, job_attributes, queue_attributes, server_attributes
from launcher.democluster.pbs.calls import Answer, Call, encoded, find_job, full_id, refused, version_answer
from launcher.democluster.pbs.errors import FINISHED, UNKNOWN_QUEUE, PBSError, UsageError
from launcher.democluster.pbs.formats import dsv_record, json_document, text_record
from launcher.democluster.pbs.job import Job, State
from launcher.democluster.pbs.options import Parsed, getopt
from launcher.democluster.pbs.scheduler import Scheduler
from launcher.democluster.pbs.tables import default_table, long_table, queue_table, server_table
from launcher.democluster.settings import SERVER_NAME

SPEC = "aBD:EfF:GHinMpQrsTtu:wWx1J"
USAGE = """usage: 
qstat [-f] [-J] [-p] [-t] [-x] [-E] [-F format | -w] [-D delim] [ job_identifier... | destination... ]
qstat [-a|-i|-r|-H|-T] [-J] [-t] [-u user] [-n] [-s] [-G|-M] [-1] [-w]
\t[ job_identifier... | destination... ]
qstat -Q [-f] [-F format] [-D delim] [ destination... ]
qstat -q [-G|-M] [ destination... ]
qstat -B [-f] [-F format] [-D delim] [ server_name... ]
qstat --version
"""  # noqa: W291  PBS prints the blank


@dataclass(slots=True)
class _Found:
    """The jobs to show and what went wrong on the way."""

    jobs: list[Job] = field(default_factory=list)
    exit_code: int = 0
    stderr: str = ""

    def fail(self, error: PBSError) -> None:
        self.exit_code = error.exit_code
        self.stderr += f"qstat: {error.message}\n"


async def qstat(call: Call, scheduler: Scheduler) -> Answer:
    """Show jobs, queues or the server."""
    if call.arguments == ("--version",):
        return version_answer()
    line = getopt(call.arguments, SPEC)
    # qstat takes options among its operands as well.
    while any(operand.startswith("-") and len(operand) > 1 for operand in line.operands):
        index = next(i for i, operand in enumerate(line.operands) if operand.startswith("-") and len(operand) > 1)
        rest = getopt(line.operands[index:], SPEC)
        line = Parsed(line.options + rest.options, line.operands[:index] + rest.operands,
                      line.complaints + rest.complaints)  # fmt: skip
    form = line.last("F").lower()
    full = line.has("f")
    tabled = any(line.has(letter) for letter in "aiHrTun")
    if line.complaints:
        return refused("qstat", UsageError("\nqstat: ".join(line.complaints)), USAGE)
    if (form and (not full or tabled or form not in ("json", "dsv"))) or (full and tabled):
        return refused("qstat", UsageError("conflicting options."), USAGE)
    zone = call.environment.get("TZ", "")
    if line.has("Q"):
        return _queues(line, form, scheduler)
    if line.has("B"):
        return _server(line, form, scheduler)
    found = _find(line, scheduler)
    if full:
        records = [(job.job_id, job_attributes(job, zone)) for job in found.jobs]
        out = _written(line, form, "Jobs", "Job Id: ", records)
        return Answer(found.exit_code, out, encoded(found.stderr))
    if tabled or line.has("s") or line.has("w"):
        table = long_table(
            found.jobs,
            wide=line.has("w"),
            comments=line.has("s"),
            hosts=line.has("n"),
            one_line=line.has("1"),
        )
    else:
        table = default_table(found.jobs)
    return Answer(found.exit_code, encoded(table), encoded(found.stderr))


def _written(line: Parsed, form: str, section: str, title: str,
             records: Sequence[tuple[str, list[Attribute]]]) -> bytes:  # fmt: skip
    if form == "json":
        return json_document(section, records, int(time.time()))
    if form == "dsv":
        delimiter = line.last("D", "|")
        return b"".join(dsv_record(title + name, attributes, delimiter) for name, attributes in records)
    return b"".join(text_record(title + name, attributes, wide=line.has("w")) for name, attributes in records)


def _find(line: Parsed, scheduler: Scheduler) -> _Found:
    found = _Found()
    everything = list(scheduler.jobs.values())
    finished_too = line.has("x") or line.has("H")
    if not line.operands:
        found.jobs = [job for job in everything if finished_too or job.state is not State.FINISHED]
    elif line.has("E"):
        _find_together(line, scheduler, found)
    else:
        for operand in line.operands:
            try:
                found.jobs += _operand(operand, scheduler, finished_too)
            except PBSError as error:
                found.fail(error)
                if error.exit_code == 1:  # one malformed id spoils the whole answer
                    found.jobs = []
                    return found
    owners = {name.partition("@")[0] for name in line.last("u").split(",")} if line.has("u") else None
    found.jobs = [job for job in found.jobs if owners is None or job.request.owner in owners]
    if line.has("H"):
        found.jobs = [job for job in found.jobs if job.state is State.FINISHED]
    if line.has("r"):
        found.jobs = [job for job in found.jobs if job.state in (State.RUNNING,)]
    if line.has("i"):
        found.jobs = [job for job in found.jobs if job.state in (State.QUEUED, State.HELD, State.WAITING)]
    return found


def _operand(operand: str, scheduler: Scheduler, finished_too: bool) -> list[Job]:
    if operand[:1].isdigit():
        job = find_job(scheduler.jobs, full_id(operand))
        if job.state is State.FINISHED and not finished_too:
            hint = "use -x or -H to obtain historical job information"
            raise PBSError(FINISHED, f"{job.job_id} Job has finished, {hint}")
        return [job]
    name = operand.partition("@")[0]
    if name and scheduler.settings.queue(name) is None:
        raise PBSError(UNKNOWN_QUEUE, f"Unknown queue destination {name}")
    return [
        job
        for job in scheduler.jobs.values()
        if (not name or job.request.queue == name) and (finished_too or job.state is not State.FINISHED)
    ]


def _find_together(line: Parsed, scheduler: Scheduler, found: _Found) -> None:
    """``-E``: one request for all ids. Unknown ones are left out silently unless all are; the order is sorted."""
    finished_too = line.has("x")
    last_error: PBSError | None = None
    for operand in line.operands:
        try:
            found.jobs += _operand(operand, scheduler, finished_too)
        except PBSError as error:
            last_error = error
            if error.exit_code == 1:
                found.jobs = []
                break
    if last_error is not None and not found.jobs:
        found.fail(last_error)
    found.jobs.sort(key=lambda job: job.sequence)


def _queues(line: Parsed, form: str, scheduler: Scheduler) -> Answer:
    found, queues = _Found(), list(scheduler.settings.queues)
    if line.operands:
        queues = []
        for operand in line.operands:
            queue = scheduler.settings.queue(operand.partition("@")[0])
            if queue is None:
                found.fail(PBSError(UNKNOWN_QUEUE, f"Unknown queue {operand}"))
            else:
                queues.append(queue)
    jobs = list(scheduler.jobs.values())
    pairs = [(queue, [job for job in jobs if job.request.queue == queue.name]) for queue in queues]
    if line.has("f"):
        records = [(queue.name, queue_attributes(queue, mine)) for queue, mine in pairs]
        out = _written(line, form, "Queue", "Queue: ", records)
    else:
        out = encoded(queue_table(pairs)) if pairs else b""
    return Answer(found.exit_code, out, encoded(found.stderr))


def _server(line: Parsed, form: str, scheduler: Scheduler) -> Answer:
    if any(operand != SERVER_NAME for operand in line.operands):
        host = next(operand for operand in line.operands if operand != SERVER_NAME)
        text = f"Unknown Host.\nqstat: cannot connect to server {host} (errno=15008)\n"
        return Answer(255, stderr=encoded(text))
    jobs = scheduler.jobs.values()
    if not line.has("f"):
        return Answer(stdout=encoded(server_table(jobs)))
    attributes = server_attributes(jobs, scheduler.settings.default_queue)
    return Answer(stdout=_written(line, form, "Server", "Server: ", [(SERVER_NAME, attributes)]))
