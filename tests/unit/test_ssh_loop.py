"""The loop thread: synchronous callers, their timeouts, and a life of its own in every process."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator

import pytest

from launcher.ssh.errors import TimedOut
from launcher.ssh.loop import LoopThread, hands_loop
from tests.waiting import until


@pytest.fixture
def loop() -> Iterator[LoopThread]:
    thread = LoopThread("test loop")
    yield thread
    thread.stop()


async def _thread_name() -> str:
    return threading.current_thread().name


def test_a_coroutine_runs_on_the_loops_own_thread(loop: LoopThread) -> None:
    assert loop.run(_thread_name(), 5) == "test loop"


def test_every_call_shares_one_loop(loop: LoopThread) -> None:
    async def running_loop() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    assert loop.run(running_loop(), 5) is loop.run(running_loop(), 5)


def test_a_slow_coroutine_is_cancelled_and_reported(loop: LoopThread) -> None:
    cancelled = threading.Event()

    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    with pytest.raises(TimedOut):
        loop.run(slow(), 0.05)
    assert cancelled.wait(60)


def test_an_error_of_the_coroutine_comes_back(loop: LoopThread) -> None:
    async def fail() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        loop.run(fail(), 5)


def test_the_loops_own_thread_cannot_wait_for_itself(loop: LoopThread) -> None:
    async def nested() -> str:
        return loop.run(_thread_name(), 5)

    with pytest.raises(RuntimeError, match="own thread"):
        loop.run(nested(), 5)


def test_stopping_cancels_what_runs_and_a_later_call_starts_anew(loop: LoopThread) -> None:
    begun, cancelled = threading.Event(), threading.Event()

    async def forever() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async def begin() -> asyncio.Task[None]:
        task = asyncio.create_task(forever())
        await until(begun.is_set, "the task to begin")
        return task

    task = loop.run(begin(), 5)
    loop.stop()
    assert task.cancelled()
    assert cancelled.is_set()
    assert not loop.is_running
    assert loop.run(_thread_name(), 5) == "test loop"


@pytest.fixture
def _own_process_loop(loop: LoopThread, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop of this process is one that nobody else uses: other tests have connections on theirs."""
    monkeypatch.setattr("launcher.ssh.loop._process_loop", loop)


@pytest.mark.usefixtures("_own_process_loop")
def test_a_process_has_one_loop() -> None:
    assert hands_loop() is hands_loop()
    assert hands_loop().is_running


@pytest.mark.usefixtures("_own_process_loop")
def test_a_forked_child_gets_a_loop_of_its_own() -> None:
    parents = hands_loop()
    child = os.fork()
    if child == 0:  # only _exit from here on: this copy of pytest must not report anything
        fine = hands_loop() is not parents and hands_loop().run(_thread_name(), 5) == "ssh loop"
        os._exit(0 if fine else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert parents.run(_thread_name(), 5) == "test loop"
