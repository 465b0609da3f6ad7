"""The smallest event loop on which a server's protocol class runs: no sockets, no time, no waiting.

Millions of byte splits can only be tried in memory. Callbacks run in order when ``settle`` is called; timers are kept
and never fire by themselves. ``Pipe`` is the transport: it keeps what was written and whether it was closed.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any


class MemoryLoop(asyncio.AbstractEventLoop):
    """See the module. Use it inside ``with``, which makes it the running loop of this thread."""

    def __init__(self) -> None:
        self._ready: deque[tuple[Callable[..., object], tuple[Any, ...], contextvars.Context | None]] = deque()
        self.now = 0.0
        self.errors: list[dict[str, Any]] = []

    def __enter__(self) -> MemoryLoop:
        asyncio._set_running_loop(self)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio._set_running_loop(None)

    def settle(self) -> None:
        """Run until nothing is left to do."""
        ready = self._ready
        while ready:
            callback, args, context = ready.popleft()
            if context is None:
                callback(*args)
            else:
                context.run(callback, *args)

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> Any:
        self._ready.append((callback, args, context))
        return _NOTHING

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> Any:
        return _NOTHING

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> Any:
        return _NOTHING

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Coroutine[Any, Any, Any], *, name: Any = None, context: Any = None) -> Any:
        return asyncio.Task(coro, loop=self)

    def time(self) -> float:
        return self.now

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.errors.append(context)


class _Handle:
    """A timer that never fires."""

    def cancel(self) -> None:
        """Nothing to take back."""

    def when(self) -> float:
        """Never."""
        return float("inf")


_NOTHING = _Handle()


class Pipe(asyncio.Transport):
    """A transport without a socket."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.is_closed = False
        self.is_paused = False
        self.protocol: Any = None

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("127.0.0.1", 40000), "sockname": ("127.0.0.1", 8000)}.get(name, default)

    def write(self, data: Any) -> None:
        if not self.is_closed:
            self.written.append(bytes(data))

    def writelines(self, list_of_data: Any) -> None:
        for data in list_of_data:
            self.write(data)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        """A server that says no more is as good as gone for what is tested here."""
        self.is_closed = True

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = True

    def is_closing(self) -> bool:
        return self.is_closed

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False

    def is_reading(self) -> bool:
        return not self.is_paused

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def get_protocol(self) -> Any:
        return self.protocol

    def set_write_buffer_limits(self, high: Any = None, low: Any = None) -> None:
        """There is no buffer."""

    def get_write_buffer_size(self) -> int:
        return 0
