"""The Unix socket by which another process switches faults; see ``faults`` for the other end."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path

from launcher.democluster.faults import FaultError, Faults
from launcher.democluster.pbs.service import bound_socket


class Control:
    """Listens on ``control/socket`` below the cluster's folder, readable by its owner alone."""

    def __init__(self, root: Path, faults: Faults) -> None:
        self._folder = root / "control"
        self._faults = faults
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_unix_server(self._accept, sock=bound_socket(self._folder))

    async def stop(self) -> None:
        """Listen no more."""
        if self._server:
            self._server.close()
            await self._server.wait_closed()
        (self._folder / "socket").unlink(missing_ok=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            answer = self._obey(await reader.readline())
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        except (OSError, ValueError):
            pass  # whoever asked has gone, or sent an endless line
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _obey(self, line: bytes) -> dict[str, str]:
        try:
            orders = json.loads(line)
            if not isinstance(orders, list):
                raise FaultError("a list of orders is expected")
            for order in orders:
                if order == "clear":
                    self._faults.clear()
                    continue
                name, equals, value = str(order).partition("=")
                if not equals:
                    raise FaultError(f"write NAME=VALUE, not {order!r}")
                self._faults.set(name, value)
        except (FaultError, ValueError) as error:
            return {"error": str(error)}
        return self._faults.show()
