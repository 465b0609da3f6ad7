"""A channel to a server inside the job, in the shape of an asyncio transport.

Any ``asyncio.Protocol`` works over it as over a TCP connection: backpressure in both directions, half close,
abort. No local port is opened, so no other account of the portal's machine can use it. How much may be under
way is bounded by the channel's window (ours grows, see ``windows``; sshd's is 2 MiB), because asyncssh itself
never tells a channel that the connection is slow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar, cast

import asyncssh

from launcher.ssh import windows
from launcher.ssh.channels import Channels, channels_of, opened
from launcher.ssh.errors import TimedOut, TunnelRefused, Unreachable
from launcher.ssh.fastpath import Channel, writer
from launcher.ssh.inbox import Arrival, Closed, EndOfData, Inbox

T = TypeVar("T")

_PACKET_BYTES = 32 * 1024
_HIGH_WATER_BYTES = 64 * 1024


async def open_tunnel(
    connection: asyncssh.SSHClientConnection,
    host: str,
    port: int,
    protocol_factory: Callable[[], asyncio.Protocol],
    *,
    timeout_seconds: float = 10.0,
) -> tuple[asyncio.Transport, asyncio.Protocol]:
    """Open a channel to ``host:port``, as seen from the other end, and set the protocol on it. Where ``host`` is an
    absolute path, to the Unix socket there.

    ``connection_made`` is called before this returns and before any data. Raises TunnelRefused (nobody
    listens there, or forwarding is forbidden: ``ssh.forwarding_prohibited``), TimedOut, Unreachable (the
    connection itself is gone).
    """
    channels = channels_of(connection)
    session = _Session(asyncio.get_running_loop(), (host, port), protocol_factory(), channels)
    is_socket = host.startswith("/")
    place = f"the socket {host}" if is_socket else f"{host}, port {port}"
    options: dict[str, Any] = {
        "encoding": None,
        "window": windows.AT_FIRST_BYTES,
        "max_pktsize": _PACKET_BYTES,
    }
    opening: Coroutine[Any, Any, tuple[Channel, object]]
    if is_socket:
        opening = connection.create_unix_connection(lambda: cast(Any, session), host, **options)
    else:
        opening = connection.create_connection(lambda: session, host, port, "127.0.0.1", 0, **options)
    channels.opening += 1  # so that those who ask at the same moment do not all choose this connection
    try:
        await opened(
            _answered(opening, session, channels),
            timeout_seconds=timeout_seconds,
            give_back=lambda pair: pair[0].abort(),
            what=f"a channel to {place}",
        )
    except asyncssh.ChannelOpenError as error:
        if connection.is_closed():
            raise Unreachable(error.reason) from None
        forbidden = error.code == asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED
        raise TunnelRefused(
            f"{place}: {error.reason}",
            code="ssh.forwarding_prohibited" if forbidden else "",
            params={"host": host, "port": port},
        ) from None
    except (asyncssh.Error, OSError) as error:
        raise Unreachable(str(error)) from None
    except (TimedOut, asyncio.CancelledError):
        session.abandoned = True
        channels.unanswered += not session.is_answered
        raise
    except BaseException:
        session.abandoned = True
        raise
    finally:
        channels.opening -= 1
    transport = cast(TunnelTransport, session.transport)  # set before the opening is reported
    return transport, transport.protocol


async def _answered(opening: Coroutine[Any, Any, T], session: _Session, channels: Channels) -> T:
    """Open a channel, and note its late answer."""
    try:
        return await opening
    finally:
        session.is_answered = True
        if session.abandoned:
            channels.unanswered -= 1


class TunnelTransport(asyncio.Transport):
    """An asyncio transport over an SSH channel. ``get_extra_info`` knows ``peername`` and
    ``ssh_connection``.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        channel: Channel,
        peer: tuple[str, int],
        protocol: asyncio.Protocol,
        window: windows.Window,
    ) -> None:
        super().__init__({"peername": peer, "ssh_connection": channel.get_connection()})
        self.protocol = protocol
        self._loop = loop
        self._channel = channel
        self._write = writer(channel)
        self._limits = (0, 0)
        self._closing = False
        self._eof_written = False
        self._lost = False
        self.inbox = Inbox(loop, channel, self._deliver)
        self.window = window
        self.set_write_buffer_limits()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = cast(asyncio.Protocol, protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self.protocol

    def is_closing(self) -> bool:
        return self._closing

    def is_reading(self) -> bool:
        return not self.inbox.paused and not self._closing

    def pause_reading(self) -> None:
        if not self._closing and not self.inbox.paused:
            self.window.paused(self._loop.time())
            self.inbox.pause()

    def resume_reading(self) -> None:
        if not self._closing and self.inbox.paused:
            self.window.resumed(self._loop.time())
            self.inbox.resume()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._eof_written:
            raise RuntimeError("write after write_eof")
        if self._closing or not data:
            return
        # Suppressed: the far side has closed; connection_lost is on its way, and until then a socket is
        # silent too.
        try:  # noqa: SIM105 - to enter a context costs a tenth of what a small packet does
            self._write(data)
        except BrokenPipeError:
            pass

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        if not self._closing and not self._eof_written:
            self._eof_written = True
            self._channel.write_eof()

    def get_write_buffer_size(self) -> int:
        return self._channel.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._limits

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        if high is None:
            high = _HIGH_WATER_BYTES if low is None else 4 * low
        if low is None:
            low = high // 4
        if not 0 <= low <= high:
            raise ValueError(f"high ({high}) must be at least low ({low}), and neither below 0")
        self._limits = (low, high)
        if not self._lost:
            self._channel.set_write_buffer_limits(high, low)

    def close(self) -> None:
        """Send what was written, then close; ``connection_lost`` follows when the far side has agreed."""
        if not self._closing:
            self._closing = True
            self.inbox.discard()
            self._channel.close()

    def abort(self) -> None:
        """Close now; what was written and not yet sent is lost."""
        self._drop(None)

    def _drop(self, error: Exception | None) -> None:
        self._closing = True
        if not self._lost:
            self.inbox.discard()
            self._channel.abort()
            self._loop.call_soon(self.inbox.put, Closed(error))

    def _deliver(self, arrival: Arrival) -> None:
        """Pass on what came. The protocol's own mistake ends this tunnel: in asyncssh it would end the
        connection.
        """
        try:
            if isinstance(arrival, Closed):
                if not self._lost:
                    self._lost = self._closing = True
                    self.protocol.connection_lost(arrival.error)
            elif self._closing:
                pass
            elif isinstance(arrival, EndOfData):
                if not self.protocol.eof_received():
                    self.close()
            else:
                self.protocol.data_received(arrival)
        except Exception as error:
            self.fail(error)

    def tell(self, call: Callable[..., None], *arguments: object) -> None:
        """Call the protocol on behalf of the session, with the same care."""
        try:
            call(*arguments)
        except Exception as error:
            self.fail(error)

    def fail(self, error: Exception) -> None:
        """The protocol raised an error: report it and drop this tunnel, as asyncio does for a socket."""
        self._loop.call_exception_handler(
            {
                "message": "a protocol over a tunnel failed",
                "exception": error,
                "transport": self,
                "protocol": self.protocol,
            }
        )
        self._drop(error)


class _Session(asyncssh.SSHTCPSession[bytes]):
    """What asyncssh calls; it only passes on."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        peer: tuple[str, int],
        protocol: asyncio.Protocol,
        channels: Channels,
    ) -> None:
        self.transport: TunnelTransport | None = None
        self.is_answered = False  # the request to open it
        self.abandoned = False  # whoever opened it has left: the protocol must hear of nothing
        self._loop = loop
        self._peer = peer
        self._protocol = protocol
        self._channels = channels
        self._got_eof = False
        self._last_was_kept = False

    def connection_made(self, chan: asyncssh.SSHTCPChannel[bytes]) -> None:
        if self.abandoned:
            return
        self._channels.tunnel_opened()
        window = windows.Window(chan, self._channels)
        self.transport = TunnelTransport(self._loop, chan, self._peer, self._protocol, window)
        self.transport.tell(self._protocol.connection_made, self.transport)

    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        transport = self.transport
        if transport is None:
            return
        inbox = transport.inbox
        self._last_was_kept = inbox.handing_over
        if inbox.holds or transport.is_closing():
            inbox.put(data)
            return
        if len(data) >= windows.BULK_BYTES:
            transport.window.took(len(data))
        try:  # the usual case of ``TunnelTransport._deliver``
            transport.protocol.data_received(data)
        except Exception as error:
            transport.fail(error)

    def eof_received(self) -> bool:
        self._got_eof = True
        if self.transport is not None:
            self.transport.inbox.put(EndOfData())
        return True  # asyncssh has nothing to add: either the transport stays half open, or it closes

    def pause_writing(self) -> None:
        if self.transport is not None:
            self.transport.tell(self.transport.protocol.pause_writing)

    def resume_writing(self) -> None:
        if self.transport is not None:
            self.transport.tell(self.transport.protocol.resume_writing)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.transport is None:
            return
        self._channels.tunnel_closed()
        self.transport.window.closed()
        error: Exception | None = None
        if exc is not None:
            error = ConnectionResetError(str(exc))
            self.transport.inbox.discard()
        elif not self._got_eof and not self.transport.is_closing():
            if self._last_was_kept:
                # asyncssh forgets an end of file that the closing overtakes while it keeps data back; sshd sends both.
                self.transport.inbox.put(EndOfData())
            else:
                # What the protocol has may be only a part, so this must not look like a clean end.
                error = ConnectionResetError("the tunnel was closed by the other side")
        self.transport.inbox.put(Closed(error))
