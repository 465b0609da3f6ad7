"""What the adapters make of a recording, in one line, so that a table can hold what is expected of each.

A recording of OpenPBS was made with some form of a command; an adapter may ask in another. Where the two
differ, the answer is brought into the adapter's form as the same client would print it: ``|`` becomes the
delimiter that we ask for, text gets the header that our script puts before it, and JSON of jobs (which the
adapter never asks for) becomes dsv.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence

from launcher.schedulers.base import CommandResult, JobStatus, Node, Queue, SchedulerError, StatusReport
from launcher.schedulers.pbs import JOB_ID, PBS, Client
from launcher.schedulers.slurm import Slurm
from tests.recordings import Recording

SEPARATOR = b"\x1e"


def openpbs_outcome(recording: Recording) -> str:
    """What the OpenPBS adapter answers, or which error it raises. KeyError for a command it never meets."""
    words = recording.command.split() if "'a" in recording.command else shlex.split(recording.command)
    words = words or ["pbsnodes"]
    if words[0].startswith("PBS_SERVER"):
        words = words[1:]
    name = words[0].removesuffix("-next-release")
    if recording.command == "echo sleep 1 | qsub":
        name = "qsub"
    try:
        return _openpbs(name, words, recording.result)
    except SchedulerError as error:
        return _error(error)


def _openpbs(name: str, words: Sequence[str], result: CommandResult) -> str:
    if name == "qsub":
        return f"submitted {PBS().parse_submit(result)}"
    if name == "qdel":
        return f"cancel {PBS().parse_cancel(result)}"
    if name == "qalter":
        PBS().parse_extend(result)
        return "altered"
    if name == "qselect":
        return "found " + " ".join(PBS().parse_find(result))
    if name == "pbsnodes":
        return _nodes(PBS().parse_nodes(result))
    if name == "qstat" and "-Q" in words:
        client = Client() if "json" in words else Client(grouped=False, dsv=False)
        return _queues(PBS(client=client).parse_queues(result))
    if name == "qstat":
        return _openpbs_status(words, result)
    raise KeyError(name)


def _openpbs_status(words: Sequence[str], result: CommandResult) -> str:
    ids = [word for word in words[1:] if JOB_ID.fullmatch(word)] or _ids_of_all(result)
    if "json" in words:
        result = CommandResult(result.exit_status, _dsv_from_json(result.stdout), result.stderr)
    elif "dsv" in words:
        result = CommandResult(result.exit_status, result.stdout.replace(b"|", SEPARATOR), result.stderr)
    elif result.exit_status == 0:
        return _report(PBS(client=Client(grouped=False, dsv=False)).parse_status(framed(ids[0], result), ids))
    history = any(word.startswith("-") and "x" in word for word in words)
    return _report(PBS(client=Client(history=history)).parse_status(result, ids))


def framed(label: str, result: CommandResult) -> CommandResult:
    """``result`` as one part of an answer whose parts are preceded by their length."""
    answer = result.stdout.rstrip(b"\n")  # as the shell does
    header = f"{label} {result.exit_status} {len(answer)}\n".encode()
    return CommandResult(0, header + answer + b"\n", result.stderr)


def _ids_of_all(result: CommandResult) -> list[str]:
    try:
        return sorted(json.loads(result.stdout).get("Jobs", {}))
    except ValueError:
        return []


def _dsv_from_json(stdout: bytes) -> bytes:
    jobs = json.loads(stdout.decode("utf-8", "surrogateescape"), parse_int=str, parse_float=str).get("Jobs", {})
    lines = []
    for job_id, attributes in jobs.items():
        parts = [f"Job Id: {job_id}"]
        for key, value in attributes.items():
            if not isinstance(value, dict):
                parts.append(f"{key}={value}")
            elif key == "Variable_List":
                parts.append(f"{key}=" + ",".join(f"{name}={inner}" for name, inner in value.items()))
            else:
                parts += [f"{key}.{name}={inner}" for name, inner in value.items()]
        printed = [part.replace("\n", "\\n").replace("\x1e", "\\^^") for part in parts]
        lines.append("\x1e".join(printed) + "\n")
    return "".join(lines).encode("utf-8", "surrogateescape")


def slurm_outcome(recording: Recording) -> str:
    """The same for the recordings of Slurm that were made with the adapter's own commands."""
    slurm, result = Slurm(), recording.result
    words = shlex.split(recording.command)
    try:
        if "sbatch" in words:
            return f"submitted {slurm.parse_submit(result)}"
        if "scancel" in words:
            return f"cancel {slurm.parse_cancel(result)}"
        if words[:2] == ["scontrol", "update"]:
            slurm.parse_extend(result)
            return "altered"
        if words[:3] == ["scontrol", "--oneliner", "show"]:
            return _queues(slurm.parse_queues(result))
        if words[0] == "squeue":
            return "found " + " ".join(slurm.parse_find(result))
        if "sinfo" in words:
            return _nodes(slurm.parse_nodes(result))
        if "sh" in words:
            ids = words[words.index("\x1e") + 1 :]
            return _report(slurm.parse_status(result, ids))
    except SchedulerError as error:
        return _error(error)
    raise KeyError(recording.command)


def _error(error: SchedulerError) -> str:
    return f"{type(error).__name__} {error.code}: {error.detail.splitlines()[0] if error.detail else ''}".strip()


def _report(report: StatusReport) -> str:
    parts = [_job(job) for job in report.jobs.values()]
    if report.missing:
        parts.append("missing " + " ".join(sorted(report.missing)))
    if report.without_history:
        parts.append("without history")
    return " ; ".join(parts)


def _job(job: JobStatus) -> str:
    times = (("submitted", job.submitted_at), ("started", job.started_at), ("estimated", job.estimated_start_at))
    shown = {
        "exit": job.exit_status,
        "hosts": "+".join(job.execution_hosts) or None,
        **{name: time.strftime("%m-%dT%H:%M:%S") if time else None for name, time in times},
        "wall": job.walltime_seconds,
        "used": job.walltime_used_seconds,
        "mib": job.memory_used_mib,
        "runs": job.run_count,
    }
    facts = " ".join(f"{key}={value}" for key, value in shown.items() if value is not None)
    who = f"{job.owner}@{job.queue}" + (f" name={job.name[:20]}" if job.name else "")
    return f"{job.job_id} {job.state}({job.raw_state}) {who} {facts}" + (f" “{job.comment}”" if job.comment else "")


def _queues(queues: Sequence[Queue]) -> str:
    return " ; ".join(
        f"{queue.name} accepts={queue.accepts_jobs} starts={queue.starts_jobs} wall={queue.max_walltime_seconds} "
        f"cores={queue.max_cores} mib={queue.max_memory_mib} gpus={queue.max_gpus}"
        for queue in queues
    )


def _nodes(nodes: Sequence[Node]) -> str:
    return " ; ".join(
        f"{node.name} up={node.is_up} cores={node.cores_free}/{node.cores} "
        f"mib={node.memory_free_mib}/{node.memory_mib} gpus={node.gpus_free}/{node.gpus}"
        for node in nodes
    )
