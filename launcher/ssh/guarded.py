"""What a login host may not do to this process: hold up its event loop, fill its memory, or fill its log.

asyncssh treats all that has come in one turn of the loop, keeps every answer it cannot send yet, and exchanges keys as
often as it is asked to and for as long as that takes. Between honest ends nothing of this matters; here the other end
may be anybody's. ``GuardedClient`` gives a connection another class before its first byte is read. All this leans on
names that are not part of asyncssh's interface, so it is done with the versions in ``TESTED_VERSIONS`` only.
"""

from __future__ import annotations

import asyncio
import sys
import time

import asyncssh
from asyncssh.connection import SSHClientConnection
from asyncssh.constants import (
    MSG_CHANNEL_FAILURE,
    MSG_CHANNEL_OPEN,
    MSG_CHANNEL_OPEN_FAILURE,
    MSG_CHANNEL_REQUEST,
    MSG_CHANNEL_SUCCESS,
    MSG_CHANNEL_WINDOW_ADJUST,
    MSG_DEBUG,
    MSG_EXT_INFO,
    MSG_GLOBAL_REQUEST,
    MSG_IGNORE,
    MSG_REQUEST_FAILURE,
    MSG_REQUEST_SUCCESS,
    MSG_UNIMPLEMENTED,
    MSG_USERAUTH_BANNER,
)
from asyncssh.logging import SSHLogger
from asyncssh.misc import DisconnectError, OptExcInfo, ProtocolError
from asyncssh.packet import SSHPacketLogger

from portal.errors import FootbridgeError

TESTED_VERSIONS = frozenset({"2.24.1"})
"""Of asyncssh. Another one is used as it is, without this module."""

STEPS_PER_TURN = 40
"""Of asyncssh's own reading, two for each packet; then everybody else has a turn. Each step copies what has come and is
not read yet, up to 256 KiB."""
MOST_NOISE = 10_000
"""Packets that carry nothing, in ``NOISE_SECONDS``. asyncssh's servers send one before each packet that does."""
NOISE_SECONDS = 10.0
MOST_ANSWERS = 4096
"""Answers to the host's own questions that wait, for a key exchange or for the line."""
MOST_KEY_EXCHANGES = 600
"""In ``KEY_EXCHANGES_SECONDS``; each costs us about a millisecond."""
KEY_EXCHANGES_SECONDS = 60.0
LONGEST_KEY_EXCHANGE_SECONDS = 60.0

_LINE_IS_FREE_BYTES = 64 * 1024  # or fewer wait for it
_NOISE = frozenset(
    {
        MSG_IGNORE,
        MSG_UNIMPLEMENTED,
        MSG_DEBUG,
        MSG_EXT_INFO,
        MSG_USERAUTH_BANNER,
        MSG_GLOBAL_REQUEST,
        MSG_CHANNEL_OPEN,
        MSG_CHANNEL_REQUEST,
    }
)
_ANSWERS = frozenset(
    {
        MSG_UNIMPLEMENTED,
        MSG_REQUEST_SUCCESS,
        MSG_REQUEST_FAILURE,
        MSG_CHANNEL_OPEN_FAILURE,
        MSG_CHANNEL_SUCCESS,
        MSG_CHANNEL_FAILURE,
    }
)


class GuardedConnection(SSHClientConnection):
    """A connection to a host that may be hostile. Never made by itself.

    What it ends, it ends with a ProtocolError that says why; its channels and whoever waits for them hear of it.
    """

    _is_resting = False  # what has come waits for the loop's next turn
    _noise = 0  # packets without content, less those with, since ...
    _noise_since = 0.0  # monotonic seconds
    _answers = 0  # since they were last known to have gone
    _key_exchanges = 0  # begun since ...
    _key_exchanges_since = 0.0  # monotonic seconds
    _key_exchange_timer: asyncio.TimerHandle | None = None
    tuned_packets_received = 0  # with content, that took a way of their own
    _tuned_packets_counted = 0

    def end(self, why: str) -> None:
        """Close it now."""
        self._force_close(ProtocolError(why))

    # Receiving

    def _recv_data(self) -> None:
        if self._is_resting:
            return
        self._reset_keepalive_timer()
        try:
            self._take_packets()
        except DisconnectError as error:
            self._send_disconnect(error.code, error.reason, error.lang)
            self._force_close(error)
        except Exception:
            self.internal_error()

    def _take_packets(self) -> None:
        for _ in range(STEPS_PER_TURN):
            if not self._inpbuf or not self._recv_handler():
                return
        self._rest()

    def _rest(self) -> None:
        """Leave what has come for the next turn of the loop, and let no more come until then."""
        transport = self._transport
        if transport is None:
            return
        self._is_resting = True
        if not transport.is_closing():
            transport.pause_reading()
        self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._is_resting = False
        if self._transport is None:
            self._inpbuf = b""
            return
        self._recv_data()
        transport = self._transport
        if transport is not None and not self._is_resting and not transport.is_closing():
            transport.resume_reading()

    def _finish_recv_packet(
        self, pkttype: int, seq: int, _task: asyncio.Task[None] | None = None, is_async: bool = False
    ) -> None:
        if pkttype not in _NOISE:
            if self._noise:
                self._noise -= 1
        else:
            self._noise += 1
            if self._noise > MOST_NOISE:
                self._judge_noise()
        super()._finish_recv_packet(pkttype, seq, _task, is_async)

    def _judge_noise(self) -> None:
        self._noise -= min(self._noise, self.tuned_packets_received - self._tuned_packets_counted)
        self._tuned_packets_counted = self.tuned_packets_received
        if self._noise > MOST_NOISE // 2:
            now = time.monotonic()
            if now < self._noise_since + NOISE_SECONDS:
                self.end("the host sends packets without content and hardly anything else")
            self._noise_since, self._noise = now, 0

    def internal_error(self, exc_info: OptExcInfo | None = None, error_logger: SSHLogger | None = None) -> None:
        """What asyncssh trips over is the host's breach of the protocol, whatever Python calls it."""
        exc_info = exc_info or sys.exc_info()
        error = exc_info[1]
        if error is not None and not isinstance(error, asyncssh.Error | OSError | FootbridgeError):
            (error_logger or self.logger).debug1("Uncaught exception", exc_info=exc_info)
            self.end(f"what the host sent is no SSH: {error or type(error).__name__}")
        else:
            super().internal_error(exc_info, error_logger)

    # Sending

    def _send(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():  # asyncio would log each try
            super()._send(data)

    def send_packet(self, pkttype: int, *args: bytes, handler: SSHPacketLogger | None = None) -> None:
        if pkttype in _ANSWERS or (pkttype == MSG_CHANNEL_WINDOW_ADJUST and not self._kex_complete):
            self._answers += 1
            if self._answers > MOST_ANSWERS:
                if self._transport is None:  # it has ended; this is the rest of the turn
                    return
                if not self._kex_complete or self._transport.get_write_buffer_size() > _LINE_IS_FREE_BYTES:
                    self.end("the host asks and does not take the answers")
                    return
                self._answers = 0
        super().send_packet(pkttype, *args, handler=handler)

    # Keys

    def _send_kexinit(self) -> None:
        now = time.monotonic()
        if now >= self._key_exchanges_since + KEY_EXCHANGES_SECONDS:
            self._key_exchanges_since, self._key_exchanges = now, 0
        self._key_exchanges += 1
        if self._key_exchanges > MOST_KEY_EXCHANGES:
            self.end("the host asks for new keys again and again")
            return
        super()._send_kexinit()
        self._stop_key_exchange_timer()
        self._key_exchange_timer = self._loop.call_later(
            LONGEST_KEY_EXCHANGE_SECONDS, self.end, "the host did not finish an exchange of keys"
        )

    def send_newkeys(self, k: bytes, h: bytes) -> None:
        """The host has done its part."""
        self._stop_key_exchange_timer()
        self._answers = 0
        super().send_newkeys(k, h)

    def _force_close(self, exc: Exception | None) -> None:
        self._stop_key_exchange_timer()
        super()._force_close(exc)

    def _stop_key_exchange_timer(self) -> None:
        if self._key_exchange_timer is not None:
            self._key_exchange_timer.cancel()
            self._key_exchange_timer = None


class GuardedClient(asyncssh.SSHClient):
    """Guards its connection from the first byte on."""

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        if asyncssh.__version__ in TESTED_VERSIONS and type(conn) is SSHClientConnection:
            conn.__class__ = GuardedConnection
