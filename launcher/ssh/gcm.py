"""AES-GCM of SSH packets with one cipher object per key, in the place of asyncssh's, which makes one per packet.

Used by ``fastpath`` only. A nonce must never be used twice with a key, so there is one counter per key, here.
"""

from __future__ import annotations

import struct

from asyncssh.encryption import Encryption, GCMEncryption
from asyncssh.misc import MACError
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

LENGTH_BYTES = 4
"""A packet's length goes before it, signed and not encrypted."""
TAG_BYTES = 16
BLOCK_BYTES = 16

_NONCE = struct.Struct(">4sQ")
_LAST_COUNT = 0xFFFFFFFFFFFFFFFF
_LARGE_BYTES = 2048  # from here on one copy less is worth a second buffer


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
        self._count = (count + 1) & _LAST_COUNT
        return _NONCE.pack(self._fixed, count)

    def seal(self, packet: bytes) -> bytes | bytearray:
        """A packet as it goes over the line: its length, ciphertext, tag."""
        size = len(packet)
        header = size.to_bytes(LENGTH_BYTES, "big")
        if size < _LARGE_BYTES:
            count = self._count  # as in _nonce, without the call
            self._count = (count + 1) & _LAST_COUNT
            return header + self._aes.encrypt(_NONCE.pack(self._fixed, count), packet, header)
        sealed = bytearray(LENGTH_BYTES + size + TAG_BYTES)
        sealed[:LENGTH_BYTES] = header
        self._aes.encrypt_into(self._nonce(), packet, header, memoryview(sealed)[LENGTH_BYTES:])
        return sealed

    def open(self, header: bytes | memoryview, rest: bytes | memoryview) -> bytes:
        """The packet in ``rest``, ciphertext and tag. Raises MACError where it is not what was sent."""
        count = self._count  # as in _nonce, without the call
        self._count = (count + 1) & _LAST_COUNT
        try:
            packet = self._aes.decrypt(_NONCE.pack(self._fixed, count), rest, header)
        except InvalidTag:
            packet = b""
        if not packet:
            raise MACError("MAC verification failed")
        return packet

    # asyncssh's own interface

    def encrypt_packet(self, seq: int, header: bytes, packet: bytes) -> tuple[bytes, bytes]:
        sealed = self._aes.encrypt(self._nonce(), packet, header)
        return header + sealed[:-TAG_BYTES], sealed[-TAG_BYTES:]

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
