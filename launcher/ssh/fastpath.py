"""A faster way of bytes through asyncssh, for connections whose cipher is AES-GCM in both directions.

asyncssh does everything right and much of it in vain for us: an empty packet before each packet, a new cipher object
for each, log lines that nobody reads, copies. ``tune`` gives one living connection another class, whose methods take
over what is by far most frequent: data of forwarded channels. Everything else, key exchanges included, stays with
asyncssh's own code. All this leans on names that are not part of asyncssh's interface, so it is used with the versions
in ``TESTED_VERSIONS`` only, and only after ``fastpath_check`` has passed in this process.
"""

from __future__ import annotations

import functools
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
from asyncssh.encryption import Encryption, GCMEncryption
from asyncssh.misc import DisconnectError, MACError
from asyncssh.packet import SSHPacketLogger
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

TESTED_VERSIONS = frozenset({"2.24.1"})
"""Of asyncssh. Another one is used as it is, without this module."""

_LENGTH = 4  # bytes of a packet's length, which are not encrypted
_TAG = 16
_BLOCK = 16
_DATA_HEAD = struct.Struct(">BBII")  # length of the padding, kind of packet, channel, length of the data
_LARGE = 2048  # bytes from which one copy less is worth a second buffer
# With an authenticated cipher the padding's content says nothing to anybody, so it need not be random.
_PADDING = tuple(bytes(count) for count in range(_BLOCK + 4))
_KEEPALIVE_RESET_SECONDS = 1.0

Channel = SSHTCPChannel[bytes] | SSHUNIXChannel[bytes]


class KeyedGCM(Encryption):
    """AES-GCM of one direction, with one cipher object for as long as its key lasts. See RFC 5647.

    It takes over the key and the counter of asyncssh's own object, which must not be used any more.
    """

    def __init__(self, replaced: GCMEncryption) -> None:
        cipher = replaced._cipher
        self._aes = AESGCM(cipher._key)
        self._fixed = cipher._iv[:4]
        self._count = int.from_bytes(cipher._iv[4:], "big")
        self.opened: bytes | None = None  # a packet that was deciphered here and is left to asyncssh

    def _nonce(self) -> bytes:
        count = self._count
        self._count = (count + 1) & 0xFFFFFFFFFFFFFFFF
        return self._fixed + count.to_bytes(8, "big")

    def seal(self, packet: bytes) -> bytes | bytearray:
        """A packet as it goes over the line: its length, ciphertext, tag."""
        size = len(packet)
        header = size.to_bytes(_LENGTH, "big")
        if size < _LARGE:
            return header + self._aes.encrypt(self._nonce(), packet, header)
        sealed = bytearray(_LENGTH + size + _TAG)
        sealed[:_LENGTH] = header
        self._aes.encrypt_into(self._nonce(), packet, header, memoryview(sealed)[_LENGTH:])
        return sealed

    def open(self, header: memoryview, rest: memoryview) -> bytes:
        """The packet in ``rest``, ciphertext and tag. Raises MACError where it is not what was sent."""
        try:
            packet = self._aes.decrypt(self._nonce(), rest, header)
        except InvalidTag:
            packet = b""
        if not packet:
            raise MACError("MAC verification failed")
        return packet

    # asyncssh's own interface

    def encrypt_packet(self, seq: int, header: bytes, packet: bytes) -> tuple[bytes, bytes]:
        sealed = self._aes.encrypt(self._nonce(), packet, header)
        return header + sealed[:-_TAG], sealed[-_TAG:]

    def decrypt_header(self, seq: int, first_block: bytes, header_len: int) -> tuple[bytes, bytes]:
        return first_block, first_block[:header_len]

    def decrypt_packet(self, seq: int, first: bytes, rest: bytes, header_len: int, mac: bytes) -> bytes | None:
        opened, self.opened = self.opened, None
        if opened is not None:
            return opened
        try:
            return self._aes.decrypt(self._nonce(), first[header_len:] + rest + mac, first[:header_len])
        except InvalidTag:
            return None


class TunedConnection(SSHClientConnection):
    """A connection after ``tune``. Never made by itself."""

    _keepalive_reset_at = 0.0  # the loop's time
    tuned_packets_sent = 0
    tuned_packets_received = 0

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

    def _recv_data(self) -> None:
        self._reset_keepalive_timer()
        try:
            while self._inpbuf:
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
        except DisconnectError as error:
            self._send_disconnect(error.code, error.reason, error.lang)
            self._force_close(error)
        except Exception:
            self.internal_error()

    def _take_data(self, cipher: KeyedGCM) -> bool:
        """Hand over the data packets at the beginning of what has come. True: what follows is asyncssh's to treat."""
        received = self._inpbuf
        view = memoryview(received)
        at, size = 0, len(received)
        try:
            while size - at >= _BLOCK:
                start = at + _LENGTH
                length = int.from_bytes(view[at:start], "big")
                end = start + length + _TAG
                if length > self._max_recv_pktlen:
                    return True
                if end > size:
                    return False
                packet = cipher.open(view[at:start], view[start:end])
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
        """Give data to the channel it is for. False, and nothing has happened: it is no data, or not that simple."""
        if packet[1] != MSG_CHANNEL_DATA or len(packet) < _DATA_HEAD.size:
            return False
        padding, _, number, length = _DATA_HEAD.unpack_from(packet)
        channel = self._channels.get(number)
        end = _DATA_HEAD.size + length
        if (
            (type(channel) is not SSHTCPChannel and type(channel) is not SSHUNIXChannel)
            or not padding
            or end != len(packet) - padding
            or channel._recv_state != "open"
            or channel._recv_paused
            or channel._recv_buf
            or channel._send_state not in ("open", "eof_pending", "eof")
            or channel._encoding
            or channel._session is None
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
        cipher = self._send_encryption
        number = channel._send_chan
        if (
            type(cipher) is not KeyedGCM
            or number is None
            or channel._send_buf
            or channel._send_state != "open"
            or channel._encoding
        ):
            channel.write(bytes(data))
            return
        view = memoryview(data)
        at, size = 0, len(view)
        while at < size and channel._send_window and self._is_plain_sailing():
            length = min(size - at, channel._send_window, channel._send_pktsize)
            padding = _padding(_DATA_HEAD.size + length)
            head = _DATA_HEAD.pack(padding, MSG_CHANNEL_DATA, number, length)
            channel._send_window -= length
            self._send_sealed(cipher, b"".join((head, view[at : at + length], _PADDING[padding])))
            at += length
        if at < size:
            channel.write(bytes(view[at:]))

    def _send_sealed(self, cipher: KeyedGCM, packet: bytes) -> None:
        self._send(cast(bytes, cipher.seal(packet)))
        self._send_seq = (self._send_seq + 1) & 0xFFFFFFFF
        self._rekey_bytes_sent += len(packet)
        self.tuned_packets_sent += 1

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
    padding = -size % _BLOCK
    return padding if padding >= 4 else padding + _BLOCK


def tune(connection: asyncssh.SSHClientConnection) -> bool:
    """Make an authenticated connection faster, if it is of the kind that can be. Tells whether it was.

    The caller has asked ``fastpath_check`` before.
    """
    ciphers = (connection._send_encryption, connection._recv_encryption)
    if type(connection) is not SSHClientConnection or any(type(cipher) is not GCMEncryption for cipher in ciphers):
        return False
    transport = connection._transport
    if transport is None or not connection._auth_complete:
        return False
    connection.__class__ = TunedConnection
    assert isinstance(connection, TunedConnection)
    connection.take_over_keys()
    transport.set_protocol(connection)  # uvloop remembers the methods of the protocol it was given
    return True


def writer(channel: Channel) -> Callable[[bytes | bytearray | memoryview], None]:
    """How to write to ``channel``: the fast way where its connection is tuned, else its own."""
    connection = channel.get_connection()
    if isinstance(connection, TunedConnection):
        return functools.partial(connection.write_channel, channel)
    return lambda data: channel.write(bytes(data))
