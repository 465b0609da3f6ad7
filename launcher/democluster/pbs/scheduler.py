"""The life of jobs: from the queue onto nodes, through their processes, into the history. No command lines.

Everything happens in one event loop. Commands call ``submit``, ``delete``, ``hold``, ``release``, ``alter``;
a pass over the queue follows every change.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from launcher.democluster.faults import Faults
from launcher.democluster.pbs.history import History
from launcher.democluster.pbs.job import (
    SUBSTATE_EXITING,
    SUBSTATE_FAILED,
    SUBSTATE_FINISHED,
    SUBSTATE_HELD,
    SUBSTATE_PRERUN,
    SUBSTATE_QUEUED,
    SUBSTATE_RUNNING,
    SUBSTATE_TERMINATED,
    SUBSTATE_WAITING,
    Job,
    Request,
    State,
)
from launcher.democluster.pbs.nodes import Nodes, Placement, Refusal
from launcher.democluster.pbs.runner import Outcome, ProcessRunner, Runner, TimerRunner, deliver
from launcher.democluster.pbs.surroundings import job_place
from launcher.democluster.pbs.values import comment_time
from launcher.democluster.settings import LOGIN_HOST, DemoSettings

_LOOK_AT_LIMIT_SECONDS = 1.0
WALLTIME_EXCEEDED = -29
TERMINATED = 271


class Scheduler:
    """All jobs of one cluster."""

    def __init__(self, settings: DemoSettings, faults: Faults, identity: Callable[[str], Mapping[str, str]]) -> None:
        self.settings = settings
        self.faults = faults
        self.nodes = Nodes(settings.nodes)
        self.spool = settings.root / "spool"
        self.history = History(self.spool / "jobs.jsonl")
        self.jobs: dict[int, Job] = {}
        self.next_sequence = 0
        self._identity = identity
        self._runners: dict[int, Runner] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._pass: asyncio.TimerHandle | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._ended: dict[int, asyncio.Event] = {}
        self._out_of_time: set[int] = set()
        self._to_requeue: set[int] = set()

    def start(self) -> None:
        """Read the history."""
        self.spool.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.jobs, self.next_sequence = self.history.load()

    async def stop(self) -> None:
        """Kill every job and wait until its processes are gone."""
        for timer in (self._pass, self._alarm):
            if timer:
                timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def submit(self, request: Request) -> Job:
        """Accept a job that qsub has checked."""
        now = time.time()
        job = Job(self.next_sequence, request, created_at=now, modified_at=now)
        self.next_sequence += 1
        self.jobs[job.sequence] = job
        if request.held:
            job.state, job.substate, job.hold_types = State.HELD, SUBSTATE_HELD, "u"
        elif request.start_at > now:
            job.state, job.substate = State.WAITING, SUBSTATE_WAITING
        else:
            job.eligible_at = now
        self.history.record(job)
        self.wake()
        return job

    def wake(self) -> None:
        """Look at the queue soon."""
        if self._pass is None:
            loop = asyncio.get_running_loop()
            self._pass = loop.call_later(self.settings.delays.schedule_seconds, self._look)

    def _look(self) -> None:
        self._pass = None
        if self._alarm:
            self._alarm.cancel()
        now = time.time()
        self.nodes.set_down(self.faults.nodes_down)
        running = [job for job in self.jobs.values() if job.is_active]
        later: list[float] = []
        for job in list(self.jobs.values()):
            if job.state is State.WAITING:
                if job.request.start_at > now:
                    later.append(job.request.start_at - now)
                    continue
                job.state, job.substate, job.eligible_at = State.QUEUED, SUBSTATE_QUEUED, now
            if job.state is State.QUEUED:
                placement = self._may_start(job, running)
                if isinstance(placement, Refusal):
                    job.comment = placement.comment
                else:
                    self._begin(job, placement)
                    running.append(job)
        if later:
            # Not a pass of its own: that would keep a change from being seen until then.
            self._alarm = asyncio.get_running_loop().call_later(min(*later, 3600.0), self.wake)

    def _may_start(self, job: Job, running: Iterable[Job]) -> Placement | Refusal:
        queue = self.settings.queue(job.request.queue)
        if queue is None or not queue.is_started:
            return Refusal("Not Running: Queue not started.")
        if queue.max_running_per_user is not None:
            mine = [
                other
                for other in running
                if other.request.owner == job.request.owner and other.request.queue == queue.name
            ]
            if len(mine) >= queue.max_running_per_user:
                return Refusal(f"Not Running: User has reached queue {queue.name} running job limit.")
        return self.nodes.place(job)

    def _begin(self, job: Job, placement: Placement) -> None:
        self.nodes.assign(job, placement)
        now = time.time()
        job.state, job.substate = State.RUNNING, SUBSTATE_PRERUN
        job.started_at = job.modified_at = now
        job.run_count += 1
        job.comment = f"Job run at {comment_time(now)} on {job.execution_vnode}"
        if self.settings.simulate:
            runner: Runner = TimerRunner()
        else:
            runner = ProcessRunner(job, job_place(job, self.settings, self._identity(job.request.owner)))
        self._runners[job.sequence] = runner
        self._ended.setdefault(job.sequence, asyncio.Event())
        task = asyncio.get_running_loop().create_task(self._live(job, runner))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _live(self, job: Job, runner: Runner) -> None:
        await asyncio.sleep(self.settings.delays.start_seconds)

        def started(session_id: int) -> None:
            job.substate, job.session_id = SUBSTATE_RUNNING, session_id
            job.running_at = job.modified_at = time.time()

        guard = asyncio.get_running_loop().create_task(self._enforce_walltime(job, runner))
        try:
            outcome = await runner.run(started)
        finally:
            guard.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await guard
        if job.sequence in self._to_requeue and not job.deleted_by:
            self._requeue(job)
        else:
            await self._exit(job, outcome)

    def _requeue(self, job: Job) -> None:
        self._to_requeue.discard(job.sequence)
        self.nodes.release(job)
        self._runners.pop(job.sequence, None)
        job.state, job.substate, job.modified_at, job.comment = State.QUEUED, SUBSTATE_QUEUED, time.time(), ""
        self.wake()

    async def _enforce_walltime(self, job: Job, runner: Runner) -> None:
        """PBS notices late, says so on the job's stderr, asks, and then kills."""
        delays = self.settings.delays
        began = time.monotonic()
        # The limit may be altered while the job runs.
        while (left := began + job.request.walltime_seconds - time.monotonic()) > 0:  # noqa: ASYNC110  # it waits for time itself
            await asyncio.sleep(min(left, _LOOK_AT_LIMIT_SECONDS))
        await asyncio.sleep(delays.walltime_grace_seconds)
        limit = job.request.walltime_seconds
        used = max(limit + 1, int(time.time() - job.started_at))
        runner.order(f"say =>> PBS: job killed: walltime {used} exceeded limit {limit}")
        self._out_of_time.add(job.sequence)
        runner.order("term")
        await asyncio.sleep(delays.terminate_seconds)
        runner.order("kill")

    async def _exit(self, job: Job, outcome: Outcome) -> None:
        """The processes are gone; their host still has to deliver the output."""
        out_of_time = job.sequence in self._out_of_time
        self._out_of_time.discard(job.sequence)
        if out_of_time:
            job.exit_status = WALLTIME_EXCEEDED
        else:
            job.exit_status = TERMINATED if job.deleted_by else outcome.exit_status
        job.cpu_seconds, job.memory_kib = outcome.cpu_seconds, outcome.memory_kib
        job.vmem_kib, job.used_known = int(outcome.memory_kib * 1.7), True
        job.walltime_used = int(time.time() - job.started_at)
        job.state, job.substate, job.modified_at = State.EXITING, SUBSTATE_EXITING, time.time()
        full = job.request.owner in self.faults.full_homes
        job.staged_out = deliver(job, self.spool, home_is_full=full)
        await asyncio.sleep(self.settings.delays.exit_seconds)
        if job.deleted_by:
            self._finish(job, SUBSTATE_TERMINATED, "")
        elif out_of_time:
            self._finish(job, SUBSTATE_FAILED, " and exceeded resource walltime")
        elif job.exit_status == 0:
            self._finish(job, SUBSTATE_FINISHED, " and finished")
        else:
            self._finish(job, SUBSTATE_FAILED, " and failed")

    def _finish(self, job: Job, substate: int, comment: str) -> None:
        job.state, job.substate = State.FINISHED, substate
        job.ended_at = job.history_at = job.modified_at = time.time()
        job.comment += comment if job.comment else ""
        self.nodes.release(job)
        self._runners.pop(job.sequence, None)
        if event := self._ended.pop(job.sequence, None):
            event.set()
        self.history.record(job)
        self.wake()

    def delete(self, job: Job, user: str, *, force: bool = False) -> None:
        """Cancel. A running job is asked first and killed after a while; ``force`` does not wait for anything."""
        if job.state in (State.QUEUED, State.HELD, State.WAITING):
            job.deleted_by = user
            self._finish(job, SUBSTATE_TERMINATED, " and terminated")
            return
        runner = self._runners.get(job.sequence)
        if job.deleted_by or runner is None:
            return  # a second qdel is harmless
        job.deleted_by, job.modified_at = user, time.time()
        job.comment += f" and terminated by {user}@{LOGIN_HOST}"
        runner.order("kill" if force else "term")
        asyncio.get_running_loop().call_later(self.settings.delays.terminate_seconds, runner.order, "kill")

    def kill_processes(self, job: Job, *, requeue: bool = False) -> bool:
        """What an execution host does to a job under memory pressure: KILL, without a word. The fault.

        ``requeue``: what a server does when it has lost a host: the job goes back to the queue and runs again.
        """
        runner = self._runners.get(job.sequence)
        if runner is None:
            return False
        if requeue:
            self._to_requeue.add(job.sequence)
        runner.order("kill")
        return True

    def hold(self, job: Job) -> None:
        """A user hold. PBS accepts it for a running job and does nothing."""
        if job.state in (State.QUEUED, State.WAITING):
            job.state, job.substate, job.hold_types = State.HELD, SUBSTATE_HELD, "u"
            job.modified_at, job.comment = time.time(), ""

    def release(self, job: Job) -> None:
        """Take the user hold away."""
        if job.state is State.HELD:
            job.state, job.substate, job.hold_types = State.QUEUED, SUBSTATE_QUEUED, "n"
            job.modified_at = job.eligible_at = time.time()
            self.wake()

    def alter(self, job: Job, request: Request) -> None:
        """Put another request in place of a job's."""
        job.request, job.modified_at = request, time.time()
        self.history.record(job)
        self.wake()

    async def ended(self, job: Job) -> None:
        """Wait for a job's end, for ``qsub -W block=true``."""
        if job.state is not State.FINISHED:
            await self._ended.setdefault(job.sequence, asyncio.Event()).wait()

    @property
    def temporary(self) -> Path:
        """Folder of the jobs' TMPDIRs."""
        return self.settings.root / "tmp"
