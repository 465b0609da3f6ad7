"""The Celery application: broker and schedule. No result backend; nothing waits for a task."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery
from celery.signals import after_task_publish, beat_init

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")

from portal import coredumps
from portal.conf import conf

coredumps.write_none()

_URL = conf().valkey_url

app = Celery("footbridge")
app.conf.update(
    broker_url=_URL.replace("unix://", "redis+socket://", 1) if _URL.startswith("unix://") else _URL,
    broker_connection_retry_on_startup=True,
    broker_transport_options={"visibility_timeout": 600, "socket_keepalive": True, "socket_connect_timeout": 5},
    task_ignore_result=True,
    task_acks_late=True,  # a worker that dies leaves its message to another; every task may run twice
    task_default_queue="footbridge",
    worker_prefetch_multiplier=1,
    worker_hijack_root_logger=False,
    worker_send_task_events=False,
    enable_utc=True,
    timezone="UTC",
    beat_schedule={
        "tick": {"task": "launcher.tick", "schedule": 1.0, "options": {"expires": 5}},
        "warn owners of ends to come": {"task": "launcher.remind", "schedule": 10.0, "options": {"expires": 20}},
        "remove old session folders": {"task": "launcher.clean_up", "schedule": 3600.0, "options": {"expires": 3000}},
        "take out lines of revoked keys": {
            "task": "launcher.remove_key_lines",
            "schedule": 600.0,
            "options": {"expires": 500},
        },
        "verify the audit chain": {"task": "audit.verify", "schedule": 24 * 3600.0},
    },
)
app.autodiscover_tasks(["launcher", "portal.audit"])

SENT_FILE = "beat-sent"
"""In beat's data folder: touched whenever beat has put something into the queue, by which its health is told."""


def _tell_of_health(**_kwargs: Any) -> None:
    after_task_publish.connect(_note_sent)


def _note_sent(**_kwargs: Any) -> None:
    (conf().data_folder / SENT_FILE).touch(mode=0o600)


beat_init.connect(_tell_of_health)
