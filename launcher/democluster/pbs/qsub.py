"""``qsub``: reads a command line and a script into a request, checks it, submits it.

Not imitated: job arrays, dependencies, interactive jobs and staging; they are refused in words.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from launcher.democluster.pbs.calls import Answer, Call, refused, version_answer
from launcher.democluster.pbs.errors import (
    NOT_PERMITTED,
    OVER_LIMIT,
    QUEUE_DISABLED,
    TOO_MANY_QUEUED,
    UNKNOWN_QUEUE,
    PBSError,
    UsageError,
)
from launcher.democluster.pbs.job import Request, State
from launcher.democluster.pbs.options import Parsed, directives, getopt
from launcher.democluster.pbs.qsub_values import (
    Resources,
    attributes,
    check_name,
    read_resources,
    user_variables,
)
from launcher.democluster.pbs.scheduler import Scheduler
from launcher.democluster.settings import LOGIN_HOST, SERVER_NAME, QueueDefinition

SPEC = "a:A:c:C:e:fhIj:J:k:l:m:M:N:o:p:P:q:r:R:S:u:v:VW:Xz"
USAGE = """usage: qsub [-a date_time] [-A account_string] [-c interval]
\t[-C directive_prefix] [-e path] [-f ] [-h ] [-I [-X]] [-j oe|eo] [-J X-Y[:Z]]
\t[-k keep] [-l resource_list] [-m mail_options] [-M user_list]
\t[-N jobname] [-o path] [-p priority] [-P project] [-q queue] [-r y|n]
\t[-R o|e|oe] [-S path] [-u user_list] [-W otherattributes=value...]
\t[-v variable_list] [-V ] [-z] [script | -- command [arg1 ...]]
       qsub --version
"""
_LARGEST_SCRIPT_BYTES = 64 << 20


async def qsub(call: Call, scheduler: Scheduler) -> Answer:
    """Submit a job."""
    if call.arguments == ("--version",):
        return version_answer()
    try:
        line = getopt(call.arguments, SPEC)
        complaints = line.complaints + _complaints(line)
        if complaints:
            raise UsageError("\nqsub: ".join(complaints))
        if line.has("I"):
            raise PBSError(1, "\tstandard input and output must be a terminal for\n\tinteractive job submission")
        script, name = await _script(call, line)
        inside = getopt(directives(script, line.last("C", "#PBS")), SPEC)
        if complaints := inside.complaints + _complaints(inside):
            raise UsageError("\nqsub: ".join(complaints))
        request = _request(call, scheduler, _merged(line, inside), script, name)
    except PBSError as error:
        if isinstance(error, UsageError) or not error.message.startswith("\t"):
            return refused("qsub", error, USAGE)
        return Answer(error.exit_code, stderr=f"qsub:{error.message}\n".encode())
    job = scheduler.submit(request)
    exit_code = 0
    if request.block:
        await scheduler.ended(job)
        exit_code = (job.exit_status or 0) & 0xFF
    return Answer(exit_code, b"" if line.has("z") else f"{job.job_id}\n".encode())


def _complaints(line: Parsed) -> list[str]:
    """Values that qsub refuses before it asks the server."""
    allowed = {
        "j": {"oe", "eo", "n"},
        "r": {"y", "n"},
        "R": {"o", "e", "oe", "eo"},
        "k": {"o", "e", "oe", "eo", "n", "od", "ed", "oed", "eod", "d", "doe", "deo"},
    }
    complaints = [
        f"illegal -{name} value" for name, value in line.options if name in allowed and value not in allowed[name]
    ]
    for name, value in line.options:
        if name == "N":
            complaints += check_name(value)
        elif name == "J":
            complaints.append("illegal -J value")
        elif name == "p" and not (value.lstrip("+-").isdigit() and -1024 <= int(value[:6]) <= 1023):
            complaints.append("illegal -p value")
        elif name == "m" and (not value or set(value) - set("abenj")):
            complaints.append("illegal -m value")
    return complaints


def _merged(line: Parsed, inside: Parsed) -> Parsed:
    """Both, with the command line winning. Resources add up, name by name."""
    given = {name for name, _ in line.options}
    kept = [(name, value) for name, value in inside.options if name not in given or name in "lvW"]
    return Parsed(options=kept + line.options)


async def _script(call: Call, line: Parsed) -> tuple[bytes, str]:
    """The script and the job's name if nothing else names it. Raises PBSError."""
    if line.after_dashes and line.operands:
        return f"exec {shlex.join(line.operands)}\n".encode("utf-8", "surrogateescape"), "STDIN"
    if not line.operands or line.operands == ["-"]:
        return await call.read_stdin(), "STDIN"
    if len(line.operands) > 1:
        raise UsageError("too many operands")
    path = Path(call.folder) / line.operands[0]
    try:
        with path.open("rb") as file:
            script = file.read(_LARGEST_SCRIPT_BYTES)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "No such file or directory"
        raise PBSError(1, f"script file:: {reason}") from None
    return script, path.name[:230] if len(path.name) <= 236 else path.name


def _request(call: Call, scheduler: Scheduler, line: Parsed, script: bytes, name: str) -> Request:
    """Everything checked, in the order in which qsub and then the server look at it. Raises PBSError."""
    if not line.has("N") and (complaints := check_name(name)):
        raise UsageError(complaints[0])
    queue_name = _queue_name(line.last("q"), scheduler)
    variables = user_variables([value for letter, value in line.options if letter == "v"], call.environment)
    resources = read_resources([value for letter, value in line.options if letter == "l"])
    if line.last("u") not in ("", call.user.name):
        raise PBSError(175, "Bad UID for job execution")
    queue = scheduler.settings.queue(queue_name)
    if queue is None:
        raise PBSError(UNKNOWN_QUEUE, "Unknown queue")
    settled = resources.settled(queue)
    _check_queue(queue, settled, call, scheduler)
    environment = call.environment
    inherited = [
        ("PBS_O_HOME", environment.get("HOME", "")),
        ("PBS_O_LANG", environment.get("LANG", "")),
        ("PBS_O_LOGNAME", call.user.name),
        ("PBS_O_PATH", environment.get("PATH", "")),
        ("PBS_O_SHELL", environment.get("SHELL", "")),
        ("PBS_O_WORKDIR", call.folder),
        ("PBS_O_SYSTEM", "Linux"),
    ]
    known = [(key, value) for key, value in inherited if value]
    return Request(
        name=line.last("N", name),
        owner=call.user.name,
        queue=queue_name,
        script=script,
        resources=settled.given,
        chunks=settled.chunks,
        place=settled.place,
        walltime_seconds=settled.walltime_seconds,
        working_folder=call.folder,
        output_path=_path(call, line.last("o")),
        error_path=_path(call, line.last("e")),
        variables=(*known, *variables, ("PBS_O_QUEUE", queue_name), ("PBS_O_HOST", LOGIN_HOST)),
        arguments=" ".join(call.arguments),
        **attributes(line),
    )


def _queue_name(destination: str, scheduler: Scheduler) -> str:
    name, _, server = destination.partition("@")
    if server and server != SERVER_NAME:
        # PBS cuts the name.
        message = f"cannot connect to server {server[:7]} (errno=15008)"
        raise PBSError(160, message, preface="Unknown Host.\n")
    return name or scheduler.settings.default_queue


def _check_queue(queue: QueueDefinition, wanted: Resources, call: Call, scheduler: Scheduler) -> None:
    if queue.users and call.user.name not in queue.users:
        raise PBSError(NOT_PERMITTED, "Unauthorized Request ")
    if not queue.is_enabled:
        raise PBSError(QUEUE_DISABLED, "Queue is not enabled")
    if wanted.violates(queue):
        raise PBSError(OVER_LIMIT, "Job violates queue and/or server resource limits")
    if queue.max_queued_per_user is not None:
        mine = [
            job
            for job in scheduler.jobs.values()
            if job.state is not State.FINISHED
            and job.request.queue == queue.name
            and job.request.owner == call.user.name
        ]
        if len(mine) >= queue.max_queued_per_user:
            raise PBSError(TOO_MANY_QUEUED, "would exceed queue generic's per-user limit")


def _path(call: Call, text: str) -> str:
    """An absolute path; a host before a colon is dropped, for there is one machine. A folder gets its slash."""
    if not text:
        return ""
    host, colon, rest = text.partition(":")
    path = rest if colon and "/" not in host else text
    absolute = str(Path(call.folder) / path) + ("/" if path.endswith("/") else "")
    return absolute + "/" if not absolute.endswith("/") and Path(absolute).is_dir() else absolute
