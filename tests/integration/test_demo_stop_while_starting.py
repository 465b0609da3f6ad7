"""A wish to stop the demo that comes while one of its processes is being started."""

from __future__ import annotations

import os
import secrets
import signal
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr

from launcher.demo import parts, ports
from launcher.demo.folder import DemoFolder
from launcher.demo.parts import Part
from launcher.demo.process import Process
from launcher.demo.steps import Steps
from launcher.demo.supervisor import Supervisor
from portal.conf import Conf
from tests.waiting import wait_for

pytestmark = pytest.mark.integration


class Interrupted(Process):
    """The signal comes right after the process was made, before the supervisor knows of it."""

    def start(self) -> None:
        super().start()
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_in_the_middle_of_a_start_stops_that_process_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = Interrupted(
        name="valkey", command=[sys.executable, "-c", "import signal; signal.pause()"],
        environment=dict(os.environ), log=tmp_path / "log", grace_seconds=20,
    )  # fmt: skip
    monkeypatch.setattr(parts, "valkey", lambda _folder: Part("Valkey", process, lambda: True, 60))
    conf = Conf(host="127.0.0.1", port=ports.free_port(), demo=True, secret_key=SecretStr(secrets.token_urlsafe(40)))
    supervisor = Supervisor(folder=DemoFolder(tmp_path), conf=conf, steps=Steps())
    try:
        assert supervisor.run(ready=lambda _running: pytest.fail("it went on")) == 0
        assert not process.is_running
    finally:
        process.kill()
        wait_for(lambda: process.wait(1))
