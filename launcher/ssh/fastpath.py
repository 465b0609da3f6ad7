"""A faster way of bytes through asyncssh, for connections whose cipher is AES-GCM in both directions.

asyncssh does everything right and much of it in vain for us: an empty packet before each packet, a new cipher object
for each, log lines that nobody reads, copies. ``tune`` gives one living connection another class, whose methods take
over what is by far most frequent: data of forwarded channels. Everything else, key exchanges included, stays with
asyncssh's own code. All this leans on names that are not part of asyncssh's interface, so it is used with the versions
in ``TESTED_VERSIONS`` only, and only after ``fastpath_check`` has passed in this process.
"""

from __future__ import annotations

import contextlib
import functools
import socket
import struct
import time
from collections.abc import Callable
from typing import cast

import asyncssh
from asyncssh.channel import SSHTCPChannel, SSHUNIXChannel
from asyncssh.connection import SSHClientConnection
from asyncssh.constants import (
    MSG_CHANNEL_DATA,
    MSG_CHANNEL_WINDOW_ADJUST,
    MSG_IGNORE,
    MSG_USERAUTH_LAST,
)
from asyncssh.encryption import GCMEncryption
from asyncssh.packet import SSHPacketLogger

from launcher.ssh.gcm import BLOCK_BYTES, LENGTH_BYTES, TAG_BYTES, KeyedGCM
from launcher.ssh.guarded import STEPS_PER_TURN, GuardedConnection

TESTED_VERSIONS = frozenset({"2.24.1"})
"""Of asyncssh. Another one is used as it is, without this module."""

_DATA_HEAD = struct.Struct(">BBII")  # length of the padding, kind of packet, channel, length of the data (or a number)
# With an authenticated cipher the padding's content says nothing to anybody, so it need not be random.
_PADDING = tuple(bytes(count) for count in range(BLOCK_BYTES + 4))
_KEEPALIVE_RESET_SECONDS = 1.0
_CONGESTED_BYTES = 256 * 1024  # waiting for the line, of all channels together; then channels take turns
_SHARE_BYTES = 64 * 1024  # of one channel in its turn
_TURN_BYTES = 64 * 1024  # of packets that wait for the end of the loop's turn, to be written together
_HOLD_SECONDS = 0.00025  # they wait no longer than about this in a long turn, so that the far side works meanwhile
MOST_UNSENT_BYTES = 8 * 1024 * 1024
"""Channels stop long before so much waits for the line: then it is answers to questions of a host that takes none."""
_ALIVE = ("open", "eof_pending", "eof")

Channel = SSHTCPChannel[bytes] | SSHUNIXChannel[bytes]


class TunedConnection(GuardedConnection):
    """A connection after ``tune``. Never made by itself.

    When the line is slower than those who write, channels take turns, so that a WebSocket's message waits behind a
    share of an upload and not behind a window of it. Packets of one turn of the loop are written together: a system
    call costs more than a small packet, here and for the far side. The first is written at once, unless the turn before
    had more than one; and in a long turn they are written now and then, or both sides would wait for each other.
    """

    _keepalive_reset_at = 0.0  # the loop's time
    _is_congested = False
    _write_line: Callable[[bytes], None]
    _held: list[bytes | bytearray]  # sealed packets that are written at the end of this turn
    _held_bytes = 0
    _held_until = 0.0  # monotonic seconds
    _is_in_turn = False  # something was sent in this turn
    _is_burst = False  # the turn before had several packets
    _waiting: dict[Channel, None]  # channels that hold data the far side would take, in the order of their turns
    tuned_packets_sent = 0

    # Receiving

    def data_received(self, data: bytes, datatype: int | None = None) -> None:
        self._inpbuf = self._inpbuf + data if self._inpbuf else data
        self._recv_data()

    def _reset_keepalive_timer(self) -> None:
        """A timer for every piece that comes would cost more than the piece; a second of accuracy is enough."""
        now = self._loop.time()
        if now >= self._keepalive_reset_at:
            self._keepalive_reset_at = now + _KEEPALIVE_RESET_SECONDS
            super()._reset_keepalive_timer()

    def _take_packets(self) -> None:
        for _ in range(STEPS_PER_TURN):
            if not self._inpbuf:
                return
            cipher = self._recv_encryption
            if (
                type(cipher) is KeyedGCM
                and self._recv_handler == self._recv_pkthdr
                and self._decompressor is None
                and not self._take_data(cipher)
            ):
                return
            if not self._recv_handler():
                return
        self._rest()

    def _take_data(self, cipher: KeyedGCM) -> bool:
        """Hand over the data packets at the beginning of what has come. True: what follows is asyncssh's to treat."""
        received = self._inpbuf
        view = memoryview(received)
        at, size = 0, len(received)
        try:
            while size - at >= BLOCK_BYTES:
                start = at + LENGTH_BYTES
                header = received[at:start]
                length = int.from_bytes(header, "big")
                end = start + length + TAG_BYTES
                if length > self._max_recv_pktlen:
                    return True
                if end > size:
                    return False
                packet = cipher.open(header, view[start:end])
                if not self._deliver(packet):
                    cipher.opened = packet
                    return True
                at = end
                self._recv_seq = (self._recv_seq + 1) & 0xFFFFFFFF
                if self._transport is None:  # closed by whoever took the data
                    at = size
            return False
        finally:
            self._inpbuf = received[at:]

    def _deliver(self, packet: bytes) -> bool:
        """Give data or room to the channel it is for. False, and nothing has happened: it is neither, or not simple."""
        kind = packet[1]
        if (kind != MSG_CHANNEL_DATA and kind != MSG_CHANNEL_WINDOW_ADJUST) or len(packet) < _DATA_HEAD.size:
            return False
        padding, _, number, length = _DATA_HEAD.unpack_from(packet)
        channel = self._channels.get(number)
        end = len(packet) - padding
        if (
            (type(channel) is not SSHTCPChannel and type(channel) is not SSHUNIXChannel)
            or not padding
            or channel._encoding
            or channel._session is None
        ):
            return False
        if kind == MSG_CHANNEL_WINDOW_ADJUST:
            if end != _DATA_HEAD.size or channel._recv_state not in _ALIVE:
                return False
            channel._send_window += length
            if channel._send_buf:
                self._waiting[channel] = None
                self._take_turns()
            return True
        if (
            end != _DATA_HEAD.size + length
            or channel._recv_state != "open"
            or channel._recv_paused
            or channel._recv_buf
            or channel._send_state not in _ALIVE
            or not 0 < length <= channel._recv_window
        ):
            return False
        window = channel._recv_window - length
        if window * 2 < channel._init_recv_window:
            channel.send_packet(MSG_CHANNEL_WINDOW_ADJUST, (channel._init_recv_window - window).to_bytes(4, "big"))
            window = channel._init_recv_window
        channel._recv_window = window
        self.tuned_packets_received += 1
        channel._session.data_received(packet[_DATA_HEAD.size : end], None)
        return True

    # Sending

    def _is_plain_sailing(self) -> bool:
        """Whether nothing but a cipher stands between a packet and the line: no key exchange, running or due."""
        return (
            self._kex_complete
            and self._auth_complete
            and self._compressor is None
            and self._rekey_bytes_sent < self._rekey_bytes
            and not (self._rekey_seconds and time.monotonic() >= self._rekey_time)
            and self._transport is not None
        )

    def send_packet(self, pkttype: int, *args: bytes, handler: SSHPacketLogger | None = None) -> None:
        cipher = self._send_encryption
        if type(cipher) is not KeyedGCM:
            super().send_packet(pkttype, *args, handler=handler)
        elif pkttype == MSG_IGNORE:
            pass  # asyncssh puts one before each packet, against an attack that GCM is not open to
        elif pkttype <= MSG_USERAUTH_LAST or not self._is_plain_sailing():
            super().send_packet(pkttype, *args, handler=handler)
        else:
            payload = b"".join(args)
            padding = _padding(2 + len(payload))
            self._send_sealed(cipher, b"".join((bytes((padding, pkttype)), payload, _PADDING[padding])))

    def write_channel(self, channel: Channel, data: bytes | bytearray | memoryview) -> None:
        """As ``channel.write(data)``, without its copies where they can be done without."""
        if channel._send_state != "open" or channel._encoding:
            channel.write(bytes(data))
            return
        at, size = 0, len(data)
        if not channel._send_buf:
            if size <= channel._send_pktsize:  # a message or the head of a request: nothing to be cut
                at = self._send_some(channel, data)
                if at == size:
                    return
            view = memoryview(data)
            while at < size and (length := self._send_some(channel, view[at:])):
                at += length
        if at < size:
            channel._send_buf.append((bytearray(memoryview(data)[at:]), None))
            channel._send_buf_len += size - at
            if channel._send_window:
                self._waiting[channel] = None
                self._take_turns()
            channel._pause_resume_writing()

    def _send_some(self, channel: Channel, data: bytes | bytearray | memoryview) -> int:
        """Send a packet with the beginning of ``data``. Returns how much that is; 0 while that is not possible."""
        cipher = self._send_encryption
        number = channel._send_chan
        size = length = len(data)
        if length > channel._send_pktsize:
            length = channel._send_pktsize
        if length > channel._send_window:
            length = channel._send_window
        if self._is_congested or type(cipher) is not KeyedGCM or number is None or not self._is_plain_sailing():
            return 0
        if length:
            padding = _DATA_PADDING[length % BLOCK_BYTES]
            head = _DATA_HEAD.pack(padding, MSG_CHANNEL_DATA, number, length)
            channel._send_window -= length
            piece = data if length == size else data[:length]
            self._send_sealed(cipher, b"".join((head, piece, _PADDING[padding])))
        return length

    def pause_writing(self) -> None:
        self._is_congested = True

    def resume_writing(self) -> None:
        self._is_congested = False
        self._take_turns()

    def _take_turns(self) -> None:
        """Let the channels that wait send a share each, again and again, until the line has enough."""
        while self._waiting and not self._is_congested:
            channel = next(iter(self._waiting))
            del self._waiting[channel]
            if self._flush_share(channel):
                self._waiting[channel] = None

    def _flush_share(self, channel: Channel) -> bool:
        """Send a share of what a channel holds. True: it holds more that could be sent."""
        if channel._session is None or channel._send_state == "closed":
            return False
        held = channel._send_buf
        share = _SHARE_BYTES
        while held and share > 0 and (length := self._send_some(channel, memoryview(held[0][0]))):
            data, datatype = held[0]
            if length == len(data):
                del held[0]
            else:
                held[0] = (data[length:], datatype)
            channel._send_buf_len -= length
            share -= length
        if held and channel._send_window and (self._is_congested or share <= 0):
            channel._pause_resume_writing()
            return True
        # Its own way for the rest: an end that waits for the last byte, a key exchange, a protocol to be woken.
        channel._flush_send_buf()
        return False

    def _send(self, data: bytes) -> None:
        """Asyncssh's own packets, rare, behind what is held."""
        self._held.append(data)
        self._write_held()

    def _send_sealed(self, cipher: KeyedGCM, packet: bytes) -> None:
        sealed = cipher.seal(packet)
        self._held.append(sealed)
        self._held_bytes += len(sealed)
        if not self._is_in_turn:
            self._is_in_turn = True
            self._loop.call_soon(self._end_turn)
            self._held_until = time.monotonic() + _HOLD_SECONDS
            if not self._is_burst:
                self._write_held()
        elif self._held_bytes >= _TURN_BYTES or time.monotonic() >= self._held_until:
            self._write_held()
        self._send_seq = (self._send_seq + 1) & 0xFFFFFFFF
        self._rekey_bytes_sent += len(packet)
        self.tuned_packets_sent += 1

    def _end_turn(self) -> None:
        self._is_in_turn = False
        self._is_burst = len(self._held) > 1
        if self._held:
            self._write_held()

    def _write_held(self) -> None:
        held = self._held
        data = b"".join(held) if len(held) > 1 else held[0]
        held.clear()
        self._held_bytes = 0
        self._held_until = time.monotonic() + _HOLD_SECONDS
        if self._transport is not None and not self._transport.is_closing():
            with contextlib.suppress(ConnectionError):
                self._write_line(cast(bytes, data))
            if self._is_congested and self._transport.get_write_buffer_size() > MOST_UNSENT_BYTES:
                self._loop.call_soon(self.abort)

    # Keys

    def send_newkeys(self, k: bytes, h: bytes) -> None:
        super().send_newkeys(k, h)
        self.take_over_keys()

    def take_over_keys(self) -> None:
        """Replace asyncssh's cipher objects by ours, where they are AES-GCM."""
        for name in ("_send_encryption", "_recv_encryption", "_next_recv_encryption"):
            cipher = getattr(self, name)
            if type(cipher) is GCMEncryption:
                setattr(self, name, KeyedGCM(cipher))


def _padding(size: int) -> int:
    """How many bytes make ``size`` bytes whole blocks; at least four (RFC 4253, 6)."""
    padding = -size % BLOCK_BYTES
    return padding if padding >= 4 else padding + BLOCK_BYTES


_DATA_PADDING = tuple(_padding(_DATA_HEAD.size + length) for length in range(BLOCK_BYTES))
"""Of a data packet, by its length modulo a block."""


def tune(connection: asyncssh.SSHClientConnection) -> bool:
    """Make an authenticated connection faster, if it is of the kind that can be. Tells whether it was.

    The caller has asked ``fastpath_check`` before.
    """
    ciphers = (connection._send_encryption, connection._recv_encryption)
    if type(connection) not in (SSHClientConnection, GuardedConnection) or any(
        type(cipher) is not GCMEncryption for cipher in ciphers
    ):
        return False
    transport = connection._transport
    if transport is None or not connection._auth_complete:
        return False
    connection.__class__ = TunedConnection
    assert isinstance(connection, TunedConnection)
    connection.take_over_keys()
    connection._waiting = {}
    connection._held = []
    transport.set_write_buffer_limits(high=_CONGESTED_BYTES)
    if isinstance(transport, SSHTCPChannel):  # it goes through another connection
        connection._write_line = writer(transport)
        return True
    connection._write_line = transport.write
    sock = transport.get_extra_info("socket")
    lowat = getattr(socket, "TCP_NOTSENT_LOWAT", None)  # not on every system
    if sock is not None and lowat is not None:  # what the kernel holds back waits as well
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, lowat, _CONGESTED_BYTES)
    transport.set_protocol(connection)  # uvloop remembers the methods of the protocol it was given
    return True


def writer(channel: Channel) -> Callable[[bytes | bytearray | memoryview], None]:
    """How to write to ``channel``: the fast way where its connection is tuned, else its own."""
    connection = channel.get_connection()
    if isinstance(connection, TunedConnection):
        return functools.partial(connection.write_channel, channel)
    return lambda data: channel.write(bytes(data))
