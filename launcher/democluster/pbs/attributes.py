"""A job's, queue's, node's and server's attributes in PBS's names and order, ready for any output format."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from launcher.democluster.pbs.job import Job, State
from launcher.democluster.pbs.nodes import NodeState
from launcher.democluster.pbs.values import clock_text, ctime, short_size, size_text
from launcher.democluster.settings import LOGIN_HOST, SERVER_NAME, QueueDefinition


@dataclass(frozen=True, slots=True)
class Attribute:
    """One value. ``resource`` is the second part of names such as ``Resource_List.ncpus``."""

    name: str
    value: str
    resource: str = ""


def encoded_variables(variables: Iterable[tuple[str, str]]) -> str:
    """Variable_List: a backslash before commas, quotes and backslashes."""
    return ",".join(f"{_escaped(name)}={_escaped(value)}" for name, value in variables)


def _escaped(text: str) -> str:
    return "".join("\\" + character if character in "\\,\"'" else character for character in text)


def output_path_of(job: Job, kind: str) -> str:
    """Output_Path or Error_Path: a folder is shown as it was given."""
    given = job.request.output_path if kind == "o" else job.request.error_path
    return f"{LOGIN_HOST}:{given if given.endswith('/') else job.path_of(kind)}"


def job_attributes(job: Job, zone: str = "") -> list[Attribute]:
    """All attributes of a job, in the order in which OpenPBS 23.06 prints them (recorded)."""
    request = job.request
    found: list[Attribute] = []

    def add(name: str, value: object, resource: str = "", *, when: object = True) -> None:
        if when:
            found.append(Attribute(name, str(value), resource))

    add("Job_Name", request.name)
    add("Job_Owner", f"{request.owner}@{LOGIN_HOST}")
    if job.used_known:
        for resource, value in _used(job):
            add("resources_used", value, resource)
    add("job_state", job.state.value)
    add("queue", request.queue)
    add("server", SERVER_NAME)
    add("Account_Name", request.account, when=request.account)
    add("Checkpoint", "u")
    add("ctime", ctime(job.created_at, zone))
    add("Error_Path", output_path_of(job, "e"))
    add("exec_host", job.execution_host, when=job.execution_host)
    add("exec_vnode", job.execution_vnode, when=job.execution_host)
    add("Execution_Time", ctime(request.start_at, zone), when=job.state is State.WAITING)
    add("Hold_Types", job.hold_types)
    add("Join_Path", request.join)
    add("Keep_Files", request.keep)
    add("Mail_Points", request.mail_points)
    add("Mail_Users", request.mail_users, when=request.mail_users)
    add("mtime", ctime(job.modified_at, zone))
    add("Output_Path", output_path_of(job, "o"))
    add("Priority", request.priority)
    add("qtime", ctime(job.created_at, zone))
    add("Rerunable", request.rerunable)
    for resource, value in resource_list(job):
        add("Resource_List", value, resource)
    add("Shell_Path_List", request.shell, when=request.shell)
    add("stime", ctime(job.started_at, zone), when=job.started_at)
    add("obittime", ctime(job.ended_at, zone), when=job.ended_at and job.state is State.FINISHED)
    add("session_id", job.session_id, when=job.session_id)
    add("jobdir", _home(request.variables), when=job.running_at)
    add("substate", job.substate)
    add("Variable_List", encoded_variables(request.variables))
    add("comment", job.comment, when=job.comment)
    add("etime", ctime(job.eligible_at, zone), when=job.eligible_at)
    add("umask", f"{request.umask:o}", when=request.umask != 0o077)
    add("run_count", job.run_count, when=job.run_count)
    add("Stageout_status", 1, when=job.staged_out)
    add("Exit_status", job.exit_status, when=job.exit_status is not None)
    add("Submit_arguments", request.arguments, when=request.arguments)
    add("history_timestamp", int(job.history_at), when=job.history_at)
    add("project", request.project)
    add("Submit_Host", LOGIN_HOST)
    return found


def _home(variables: Iterable[tuple[str, str]]) -> str:
    return dict(variables).get("PBS_O_HOME", "/")


def _used(job: Job) -> list[tuple[str, str]]:
    seconds = walltime_used(job)
    return [
        ("cpupercent", str(int(100 * job.cpu_seconds / seconds) if seconds else 0)),
        ("cput", clock_text(int(job.cpu_seconds))),
        ("mem", f"{job.memory_kib}kb"),
        ("ncpus", str(job.cores)),
        ("vmem", f"{job.vmem_kib}kb"),
        ("walltime", clock_text(seconds)),
    ]


def walltime_used(job: Job) -> int:
    """Seconds since the job's start, or its total once it has ended."""
    if job.walltime_used is not None:
        return job.walltime_used
    return int(time.time() - job.started_at) if job.started_at else 0


def resource_list(job: Job) -> list[tuple[str, str]]:
    """Resource_List with what PBS derives from the select statement, sorted by name as PBS does."""
    resources = dict(job.request.resources)
    resources.setdefault("ncpus", str(job.cores))
    resources["nodect"] = str(len(job.request.chunks))
    resources["place"] = job.request.place
    if job.memory_kib_requested:
        resources.setdefault("mem", size_text(job.memory_kib_requested))
    if job.gpus:
        resources.setdefault("ngpus", str(job.gpus))
    if processes := sum(chunk.mpi_processes for chunk in job.request.chunks):
        resources.setdefault("mpiprocs", str(processes))
    resources["walltime"] = clock_text(job.request.walltime_seconds)
    return sorted(resources.items())


def state_counts(jobs: Iterable[Job]) -> Counter[State]:
    """How many jobs are in which state, ended ones left out."""
    return Counter(job.state for job in jobs if job.state is not State.FINISHED)


def state_count_text(counts: Counter[State]) -> str:
    """PBS's ``state_count``, with its blank at the end."""
    words = (("Queued", State.QUEUED), ("Held", State.HELD), ("Waiting", State.WAITING),
             ("Running", State.RUNNING), ("Exiting", State.EXITING))  # fmt: skip
    return "Transit:0 " + "".join(f"{word}:{counts[state]} " for word, state in words) + "Begun:0 "


def queue_attributes(queue: QueueDefinition, jobs: list[Job]) -> list[Attribute]:
    """Attributes of a queue."""
    counts = state_counts(jobs)
    found = [
        Attribute("queue_type", "Execution"),
        Attribute("total_jobs", str(sum(counts.values()))),
        Attribute("state_count", state_count_text(counts)),
    ]
    if queue.max_queued_per_user is not None:
        found.append(Attribute("max_queued", f"[u:PBS_GENERIC={queue.max_queued_per_user}]"))
    if queue.users:
        found += [Attribute("acl_user_enable", "True"), Attribute("acl_users", ",".join(queue.users))]
    limits = {
        "mem": short_size(queue.max_memory_mib * 1024) if queue.max_memory_mib is not None else None,
        "ncpus": queue.max_cores,
        "ngpus": queue.max_gpus,
        "walltime": None if queue.max_walltime_seconds is None else clock_text(queue.max_walltime_seconds),
    }
    found += [Attribute("resources_max", str(v), k) for k, v in limits.items() if v is not None]
    found.append(Attribute("resources_default", clock_text(queue.default_walltime_seconds), "walltime"))
    if queue.default_gpus:
        found.append(Attribute("default_chunk", str(queue.default_gpus), "ngpus"))
    active = [job for job in jobs if job.is_active]
    found.append(Attribute("resources_assigned", str(sum(job.cores for job in active)), "ncpus"))
    nodes = sum(len(job.request.chunks) for job in active)
    found.append(Attribute("resources_assigned", str(nodes), "nodect"))
    if queue.max_running_per_user is not None:
        found.append(Attribute("max_run", f"[u:PBS_GENERIC={queue.max_running_per_user}]"))
    return [*found, Attribute("enabled", str(queue.is_enabled)), Attribute("started", str(queue.is_started))]


def server_attributes(jobs: Iterable[Job], default_queue: str) -> list[Attribute]:
    """Attributes of the server; the comment says what this is."""
    counts = state_counts(jobs)
    return [
        Attribute("server_state", "Active"),
        Attribute("server_host", SERVER_NAME),
        Attribute("scheduling", "True"),
        Attribute("total_jobs", str(sum(counts.values()))),
        Attribute("state_count", state_count_text(counts)),
        Attribute("default_queue", default_queue),
        Attribute("query_other_jobs", "True"),
        Attribute("comment", "A demonstration: every job runs on this machine, as one and the same account."),
        Attribute("job_history_enable", "True"),
        Attribute("pbs_version", "23.06.06"),
    ]


def node_attributes(state: NodeState, logical_cores: int) -> list[Attribute]:
    """Attributes of a node, without its jobs, which each format places in its own way."""
    node = state.node
    found = [
        Attribute("Mom", node.name),
        Attribute("ntype", "PBS"),
        Attribute("state", state.state),
        Attribute("pcpus", str(logical_cores)),
        Attribute("resources_available", "linux", "arch"),
        Attribute("resources_available", node.name, "host"),
        Attribute("resources_available", f"{node.memory_mib * 1024}kb", "mem"),
        Attribute("resources_available", str(node.cores), "ncpus"),
    ]
    if node.gpus:
        found.append(Attribute("resources_available", str(node.gpus), "ngpus"))
    found.append(Attribute("resources_available", node.name, "vnode"))
    if state.memory_kib:
        found.append(Attribute("resources_assigned", f"{state.memory_kib}kb", "mem"))
    if state.cores:
        found.append(Attribute("resources_assigned", str(state.cores), "ncpus"))
    if state.gpus:
        found.append(Attribute("resources_assigned", str(state.gpus), "ngpus"))
    if not (state.memory_kib or state.cores or state.gpus):
        found.append(Attribute("resources_assigned", ""))
    if state.is_down:
        found.append(Attribute("comment", "node down: communication closed"))
    found += [
        Attribute("resv_enable", "True"),
        Attribute("sharing", "default_shared"),
        Attribute("license", "l"),
        Attribute("last_state_change_time", str(int(state.state_changed_at))),
    ]
    if state.used_at:
        found.append(Attribute("last_used_time", str(int(state.used_at))))
    return found
