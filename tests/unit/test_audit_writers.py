"""Several processes record at the same time, over one real database: nothing is lost and the chain holds."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.db import connections, transaction

from portal.audit import selectors
from portal.audit.events import SessionSubmitted
from portal.audit.models import AuditEvent
from portal.audit.services import record

WRITERS, EVENTS = 4, 100

SETTINGS = """
from tests.settings import *
SECRET_KEY = "one key for all processes of the portal, as it must be"
DATABASES["default"]["NAME"] = {name!r}
INSTALLED_APPS = ["portal.audit"]
"""

MANAGE = "import sys; from django.core.management import execute_from_command_line as run; run(sys.argv)"

PROGRAM = """
import sys
import django
django.setup()
from django.db import transaction
from portal.audit.events import SessionSubmitted
from portal.audit.services import record
print("ready", flush=True)
sys.stdin.readline()
for number in range(int(sys.argv[2])):
    with transaction.atomic():
        record(SessionSubmitted(job_id=f"{sys.argv[1]}-{number}"), actor="alice")
"""


def test_processes_lose_no_event(tmp_path: Path) -> None:
    """SQLite as the portal sets it up: a file, a write-ahead log, transactions that lock at their start."""
    root = Path(__file__).resolve().parents[2]
    (tmp_path / "writers_settings.py").write_text(SETTINGS.format(name=str(tmp_path / "audit.sqlite3")))
    environment = {
        "DJANGO_SETTINGS_MODULE": "writers_settings",
        "PYTHONPATH": f"{root}:{tmp_path}",
        "PATH": "/usr/bin:/bin",
    }

    def manage(*arguments: str) -> str:
        command = [sys.executable, "-c", MANAGE, *arguments, "--skip-checks"]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, check=True, stdout=subprocess.PIPE, text=True, timeout=60
        ).stdout

    manage("migrate", "audit", "-v0")
    with contextlib.ExitStack() as stack:
        writers = [stack.enter_context(_writer(number, tmp_path, environment)) for number in range(WRITERS)]
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"ready\n"
        for writer in writers:
            assert writer.stdin is not None
            writer.stdin.write(b"go\n")
            writer.stdin.flush()
        assert [writer.wait(120) for writer in writers] == [0] * WRITERS
    assert f"{WRITERS * EVENTS}:" in manage("verifyaudit")


@contextlib.contextmanager
def _writer(number: int, folder: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process that says when it is ready to record and begins when it is told to."""
    command = [sys.executable, "-c", PROGRAM, str(number), str(EVENTS)]
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.django_db(transaction=True)
def test_threads_lose_no_event() -> None:
    """On the database the suite runs on, which may be PostgreSQL."""
    start = threading.Barrier(WRITERS)
    errors: list[Exception] = []

    def write(writer: int) -> None:
        start.wait(60)
        try:
            for number in range(EVENTS):
                with transaction.atomic():
                    record(SessionSubmitted(job_id=f"{writer}-{number}"), actor="alice")
        except Exception as error:
            errors.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=write, args=[writer]) for writer in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert errors == []
    assert selectors.verify().broken is None
    jobs = {event.data["job_id"] for event in AuditEvent.objects.all()}
    assert jobs == {f"{writer}-{number}" for writer in range(WRITERS) for number in range(EVENTS)}
