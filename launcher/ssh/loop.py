"""One event loop in one thread, for code that is not asynchronous: Celery's threads and management commands.

SSH connections belong to a loop, so a process that wants to share them needs one loop that outlives every
task.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from launcher.ssh.errors import TimedOut

T = TypeVar("T")

_STOP_SECONDS = 5.0


class LoopThread:
    """A daemon thread with an event loop. Every method may be called from any thread but its own."""

    def __init__(self, name: str = "ssh loop") -> None:
        self._name = name
        self._starting = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._process_id = 0

    @property
    def is_running(self) -> bool:
        """Whether the thread exists in this process: a fork copies the object, not the thread."""
        return self._process_id == os.getpid() and self._thread is not None and self._thread.is_alive()

    def start(self) -> asyncio.AbstractEventLoop:
        """The loop; its thread is started if it is not running in this process."""
        with self._starting:
            if self.is_running and self._loop is not None:
                return self._loop
            ready = threading.Event()
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._serve, args=(self._loop, ready), name=self._name, daemon=True)
            self._process_id = os.getpid()
            self._thread.start()
            ready.wait()
            return self._loop

    def run(self, coroutine: Coroutine[Any, Any, T], timeout_seconds: float) -> T:
        """Run ``coroutine`` on the loop and wait for its result; its errors are raised here.

        When the time is over it is cancelled and TimedOut is raised. Starts the thread where needed.
        """
        if threading.current_thread() is self._thread and self.is_running:
            coroutine.close()
            raise RuntimeError("the loop's own thread cannot wait for the loop")
        future = asyncio.run_coroutine_threadsafe(coroutine, self.start())
        try:
            return future.result(timeout_seconds)
        except TimeoutError:
            if future.done() and not future.cancelled():
                raise  # the coroutine's own
            future.cancel()
            raise TimedOut(f"no result within {timeout_seconds:g} s") from None
        except BaseException:
            future.cancel()  # Ctrl-C in the waiting thread: nobody wants the answer any more
            raise

    def stop(self) -> None:
        """Cancel what runs, end the thread and close the loop. Does nothing if it is not running."""
        with self._starting:
            if not self.is_running:
                return
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
            if loop is None or thread is None:
                return
            with contextlib.suppress(RuntimeError):  # the loop has just ended by itself
                loop.call_soon_threadsafe(loop.stop)
            thread.join(_STOP_SECONDS)

    @staticmethod
    def _serve(loop: asyncio.AbstractEventLoop, ready: threading.Event) -> None:
        asyncio.set_event_loop(loop)
        loop.call_soon(ready.set)
        try:
            loop.run_forever()
        finally:
            tasks = asyncio.all_tasks(loop)
            for task in tasks:
                task.cancel()
            if tasks:
                loop.run_until_complete(asyncio.wait(tasks, timeout=_STOP_SECONDS / 2))
            loop.run_until_complete(loop.shutdown_asyncgens())
            asyncio.set_event_loop(None)
            loop.close()


_process_loop = LoopThread()


def hands_loop() -> LoopThread:
    """The loop thread of this process, started. After a fork the child gets its own."""
    _process_loop.start()
    return _process_loop


def _forget_in_child() -> None:
    # The parent's locks may have been held by a thread that does not exist here.
    global _process_loop
    _process_loop = LoopThread()


os.register_at_fork(after_in_child=_forget_in_child)
