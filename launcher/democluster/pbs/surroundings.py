"""What a job finds around itself: its folders and its environment, as recorded on an execution host."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path

from launcher.democluster.pbs.job import Job
from launcher.democluster.pbs.runner import Place
from launcher.democluster.settings import DemoSettings

IDENTITY_VARIABLE = "DEMO_PBS_IDENTITY"
"""Tells the PBS commands whose process they are. A real PBS asks the kernel; here every uid is the same."""

MARK_VARIABLE = "DEMO_CLUSTER"
"""Every process of a running cluster carries this with a random value, so that none is left behind; see
``warden``.
"""

SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/games"


def job_place(job: Job, settings: DemoSettings, identity: Mapping[str, str]) -> Place:
    """Folders and environment for ``job``. Writes its node file."""
    spool = settings.root / "spool"
    temporary = settings.root / "tmp" / f"pbs.{job.job_id}"
    home = settings.home(job.request.owner)
    node_file = spool / "aux" / job.job_id
    _write_node_file(node_file, job)
    cores = str(job.request.chunks[0].cores)
    environment = dict(job.request.variables)
    environment |= {
        "ENVIRONMENT": "BATCH",
        "HOME": str(home),
        "LOGNAME": job.request.owner,
        "NCPUS": cores,
        "OMP_NUM_THREADS": cores,
        "PATH": SYSTEM_PATH,
        "PBS_ENVIRONMENT": "PBS_BATCH",
        "PBS_JOBCOOKIE": secrets.token_hex(16).upper(),
        "PBS_JOBDIR": str(home),
        "PBS_JOBID": job.job_id,
        "PBS_JOBNAME": job.request.name,
        "PBS_NODEFILE": str(node_file),
        "PBS_NODENUM": "0",
        "PBS_QUEUE": job.request.queue,
        "PBS_TASKNUM": "1",
        "SHELL": "/bin/bash",
        "TMPDIR": str(temporary),
        "USER": job.request.owner,
        # Of the demonstration, not of PBS: all nodes are one machine, so its own name would be no node's.
        "HOSTNAME": job.nodes[0],
        "DEMO_NODE": job.nodes[0],
    } | dict(identity)
    if job.gpus:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(str(index) for index in range(job.gpus))
    return Place(spool, temporary, home, environment)


def _write_node_file(path: Path, job: Job) -> None:
    """One line per MPI process, at least one per chunk."""
    hosts = [part.partition("/")[0] for part in job.execution_host.split("+")]
    lines = [
        host for host, chunk in zip(hosts, job.request.chunks, strict=True) for _ in range(max(1, chunk.mpi_processes))
    ]
    path.parent.mkdir(mode=0o755, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
