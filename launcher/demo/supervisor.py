"""Starts the parts of the demo in order, restarts what dies, and stops everything, whatever happens.

The supervisor is a single thread that looks and sleeps; nothing it starts outlives it (see ``keeper``).
Only ports are checked before the first process is started, so a taken one leaves nothing to clean up.
"""

from __future__ import annotations

import collections
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from django.core.management import call_command
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from launcher.demo import parts, ports
from launcher.demo.clusters_file import clusters_text
from launcher.demo.folder import DemoError, DemoFolder, Running
from launcher.demo.parts import Part
from launcher.demo.steps import Steps
from launcher.democluster.settings import DemoSettings
from portal.conf import Conf

QUICK_DEATH_SECONDS = 20.0
DEATHS_ALLOWED = 5
"""So many quick deaths of one process in a row end the demo."""
LOOK_SECONDS = 0.05
STOP_SECONDS = 15.0
LAST_LINES = 15


class Restarts:
    """Decides how long to wait before a process that ended is started again, and when to give up."""

    def __init__(self) -> None:
        self._deaths: collections.Counter[str] = collections.Counter()

    def pause_seconds(self, name: str, lived_seconds: float) -> float | None:
        """The pause before the next start of ``name``, longer each time; ``None`` when it has died too often."""
        if lived_seconds > QUICK_DEATH_SECONDS:
            self._deaths[name] = 0
        self._deaths[name] += 1
        count = self._deaths[name]
        return None if count >= DEATHS_ALLOWED else 0.25 * 2**count


class StopRequested(BaseException):
    """Ctrl-C, SIGTERM or the end of the terminal: leave through every ``finally``."""


class Supervisor:
    """One run of the demo."""

    def __init__(self, *, folder: DemoFolder, conf: Conf, steps: Steps) -> None:
        self._folder = folder
        self._conf = conf
        self._steps = steps
        self._parts: list[Part] = []
        self._ending = False
        self._holds_stops = False
        self._restarts = Restarts()
        self._restart_at: dict[str, float] = {}

    def run(self, *, ready: Callable[[Running], None]) -> int:
        """Start, call ``ready``, keep going until somebody stops it. Returns the exit code. Raises
        DemoError.
        """
        with self._signals():
            try:
                running = self._start()
                self._folder.announce(running)
                ready(running)
                while True:
                    self._watch()
                    time.sleep(0.2)
            except StopRequested:
                self._steps.say("")
                return 0
            finally:
                self._ending = True
                self._stop()

    # starting

    def _start(self) -> Running:
        conf, folder = self._conf, self._folder
        refuse_taken_port(conf.host, conf.port, name="PORTAL_PORT")
        cluster_port = conf.demo_cluster_port
        if cluster_port:
            refuse_taken_port("127.0.0.1", cluster_port, name="PORTAL_DEMO_CLUSTER_PORT")
        else:
            cluster_port = ports.free_port()

        valkey = self._launch(parts.valkey(folder))
        cluster = self._launch(parts.cluster(folder, port=cluster_port))
        self._migrate()
        self._await(valkey)
        self._await(cluster, note=f"SSH on port {cluster_port}")
        settings = DemoSettings(root=folder.cluster, port=cluster_port)
        host_key = parts.host_key(cluster)
        folder.clusters_file.write_text(clusters_text(settings, port=cluster_port, host_key=host_key), "utf-8")

        web = self._launch(parts.web(folder, host=conf.host, port=conf.port))
        worker = self._launch(parts.worker(folder))
        beat = self._launch(parts.beat(folder))
        for part in (web, worker, beat):
            self._await(part)
        return Running(pid=os.getpid(), url=conf.portal_url, port=conf.port, cluster_port=cluster_port)

    def _migrate(self) -> None:
        self._steps.begin("database")
        executor = MigrationExecutor(connection)
        todo = len(executor.migration_plan(executor.loader.graph.leaf_nodes()))
        if todo:
            call_command("migrate", verbosity=0, interactive=False)
        connection.close()
        self._steps.done(f"{todo} migrations" if todo else "")

    def _launch(self, part: Part) -> Part:
        with self._stops_held():
            part.process.start()
            self._parts.append(part)
        return part

    def _await(self, part: Part, *, note: str = "") -> None:
        """Wait until ``part`` does its work. Raises DemoError with its last words when it does not."""
        self._steps.begin(part.label, since=part.process.started_at)
        deadline = time.monotonic() + part.timeout_seconds
        while True:
            code = part.process.exit_code
            if code is not None:
                self._steps.failed(f"it ended with exit code {code}")
                raise DemoError(_last_words(part))
            try:
                if part.is_ready():
                    break
            except Exception as error:  # not yet: any way of not answering counts the same, and time decides
                if time.monotonic() > deadline:
                    self._steps.failed(str(error))
                    raise DemoError(_last_words(part)) from error
            if time.monotonic() > deadline:
                self._steps.failed(f"no answer within {part.timeout_seconds:.0f} s")
                raise DemoError(_last_words(part))
            self._steps.tick()
            time.sleep(LOOK_SECONDS)
        self._steps.done(note)

    # keeping it up

    def _watch(self) -> None:
        """Restart what has ended, later each time; give up on what keeps dying. Raises DemoError."""
        moment = time.monotonic()
        for part in self._parts:
            process = part.process
            if process.is_running:
                continue
            if process.name not in self._restart_at:
                pause = self._restarts.pause_seconds(process.name, moment - process.started_at)
                if pause is None:
                    raise DemoError(f"{part.label} ended {DEATHS_ALLOWED} times within seconds.\n{_last_words(part)}")
                self._restart_at[process.name] = moment + pause
                self._steps.say(
                    f"  ! {part.label} ended with exit code {process.exit_code}; starting it again in {pause:.1f} s"
                )
            elif moment >= self._restart_at[process.name]:
                with self._stops_held():
                    del self._restart_at[process.name]
                    process.start()

    # stopping

    def _stop(self) -> None:
        """Web, worker and beat first, so that nothing asks for the cluster any more; then the cluster;
        Valkey last.
        """
        if not self._parts:
            return
        self._steps.begin("stopping")
        order = [[part for part in self._parts if part.process.name not in ("cluster", "valkey")]]
        order += [[part for part in self._parts if part.process.name == name] for name in ("cluster", "valkey")]
        for group in order:
            for part in group:
                part.process.ask_to_stop()
            deadline = time.monotonic() + STOP_SECONDS
            for part in group:
                while not part.process.wait(0.05):
                    self._steps.tick()
                    if time.monotonic() > deadline:
                        part.process.kill()
        self._steps.done()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        def stop(_number: int, _frame: FrameType | None) -> None:
            if self._ending:  # a second Ctrl-C while stopping changes nothing: the stop has a time limit
                return
            self._ending = True
            if not self._holds_stops:
                raise StopRequested

        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        for number, handler in before.items():
            if handler is not signal.SIG_IGN or number == signal.SIGINT:  # nohup stays nohup
                signal.signal(number, stop)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def _stops_held(self) -> Iterator[None]:
        """A wish to stop waits until a process that is being started is also one that will be stopped."""
        self._holds_stops = True
        try:
            yield
        finally:
            self._holds_stops = False
        if self._ending:
            raise StopRequested


def refuse_taken_port(host: str, port: int, *, name: str) -> None:
    """Raises DemoError when ``port`` is taken, with who has it and what to do."""
    try:
        taken = ports.is_taken(host, port)
    except PermissionError:
        raise DemoError(
            f"Port {port} may not be used by this account; choose one above 1023: {_cure(name, port)}"
        ) from None
    except OSError as error:
        raise DemoError(f"PORTAL_HOST={host}: {error.strerror}") from error
    if taken:
        holder = ports.holder_of(port)
        by = f" by {holder}" if holder else ""
        raise DemoError(f"Port {port} is already taken{by}.\nEnd that, or choose another port: {_cure(name, port)}")


def _cure(name: str, port: int) -> str:
    other = port + 1 if 1023 < port < 65535 else 8001
    return f"{name}={other} make demo"


def _last_words(part: Part) -> str:
    lines = part.process.last_lines(LAST_LINES)
    shown = "\n".join(f"    {line}" for line in lines) or "    (nothing)"
    return f"The last lines of {part.process.log}:\n{shown}"
