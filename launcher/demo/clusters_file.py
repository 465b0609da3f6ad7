"""Writes the clusters file of the demo, such as an administrator writes, from the demo cluster's settings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from launcher.demo.parts import CLUSTER_ID
from launcher.democluster.settings import DemoSettings, QueueDefinition

MODULES = ("anaconda/5.3.0",)
LABELS = {"workq": "Standard", "interactive": "Short and interactive", "gpuq": "GPU"}

Value = str | int | float | bool | Sequence[str]


def clusters_text(settings: DemoSettings, *, port: int, host_key: str, host: str = "127.0.0.1") -> str:
    """The clusters file that leads to the demo cluster on ``host`` and ``port``, whose host key is ``host_key``."""
    operator = next((account.name for account in settings.accounts if account.is_operator), "")
    lines = [
        "# Written by manage.py demo at each start; changes are lost.",
        f"[clusters.{CLUSTER_ID}]",
        *_pairs(
            {
                "name": "Demo cluster",
                "scheduler": "pbs",
                "login_hosts": [f"{host}:{port}"],
                "host_keys": [host_key],
                "commands_folder": str(settings.commands_folder),
                "listen_address": "127.0.0.1",
                "image_folders": [str(settings.image_folder)],
                "modules": MODULES,
                "commands_per_second": 20,
                "poll_fast_seconds": 1,
                "poll_slow_seconds": 5,
                "operator": operator,
                "extend_times": 3 if operator else 0,
                "is_demonstration": True,
            }
        ),
    ]
    for queue in settings.queues:
        lines += ["", f"[[clusters.{CLUSTER_ID}.queues]]", *_pairs(_queue(queue, settings))]
    return "\n".join(lines) + "\n"


def _queue(queue: QueueDefinition, settings: DemoSettings) -> dict[str, Value]:
    largest = max(node.memory_mib for node in settings.nodes)
    return {
        "name": queue.name,
        "label": LABELS.get(queue.name, queue.name),
        "max_cores": min(queue.max_cores or 64, max(node.cores for node in settings.nodes)),
        "max_memory": f"{queue.max_memory_mib or largest}mb",
        "max_hours": (queue.max_walltime_seconds or 86_400) / 3600,
        "max_gpus": queue.max_gpus or 0,
    }


def _pairs(values: Mapping[str, Value]) -> list[str]:
    # JSON's text, numbers, truth values and lists of text are TOML's as well
    return [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in values.items()]
