"""Files that are encrypted and authenticated, written and read in constant memory, read from any place.

The construction is STREAM of Hoang, Reyhanitabar, Rogaway and Vizár, "Online Authenticated-Encryption and its
Nonce-Reuse Misuse-Resistance" (CRYPTO 2015), with AES-256-GCM. The text is cut into chunks, and the nonce of each is
a prefix of the file, the chunk's number, and whether it is the last. So a chunk decrypts only at its own place in its
own file, and only the last one ends it: what was changed, cut off, moved or exchanged is found.

The key and the prefix of a file are derived by HKDF-SHA256 from a key of BACKUP_KEY_FILE, a random salt and the first
line, which is in clear text: no two files have a nonce in common, and a changed first line decrypts nothing.
"""

import io
import os
import re
import secrets
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ops.backup.keys import Keys
from ops.backup.manifest import FOREIGN, NEWER
from ops.errors import BadBackup

CHUNK = 65_536  # bytes of text; whoever opens a backup of any size decrypts three or four of them
TAG = 16
_MAGIC, _VERSION = b"onesource-encrypted ", 1
_HEAD = re.compile(rb"onesource-encrypted (\d{1,9}) ([A-Za-z0-9_-]{1,32}) ([0-9a-f]{64})\n")
_MOST_HEAD = 160  # bytes
_MOST_CHUNKS = 2**32
_KEY, _PREFIX = 32, 7  # bytes


class _Stream:
    """The chunks of one file."""

    def __init__(self, key: bytes, head: bytes) -> None:
        salt = bytes.fromhex(head.split()[-1].decode())
        derived = HKDF(SHA256(), _KEY + _PREFIX, salt, info=head).derive(key)
        self._cipher, self._prefix = AESGCM(derived[:_KEY]), derived[_KEY:]

    def seal(self, number: int, last: bool, text: bytes) -> bytes:
        return self._cipher.encrypt(self._nonce(number, last), text, None)

    def open(self, number: int, last: bool, sealed: bytes) -> bytes:
        """Return the text of a chunk; raise InvalidTag where it is not this one."""
        return self._cipher.decrypt(self._nonce(number, last), sealed, None)

    def _nonce(self, number: int, last: bool) -> bytes:
        return self._prefix + number.to_bytes(4) + bytes([last])


class Sealing:
    """Writes a file with the first of the keys, from its beginning to its end: without `tell` and `seek`, ZipFile never
    goes back. It is one when `finish` has returned."""

    def __init__(self, file: BinaryIO, keys: Keys) -> None:
        self.key, secret = next(iter(keys.items()))
        head = b"%s%d %s %s\n" % (_MAGIC, _VERSION, self.key.encode(), secrets.token_hex(32).encode())
        self._file, self._stream = file, _Stream(secret, head)
        self._pending, self._number = bytearray(), 0
        file.write(head)

    def write(self, data: bytes, /) -> int:
        self._pending += data
        while len(self._pending) > CHUNK:  # one that is full may be the last
            self._seal(CHUNK, last=False)
        return len(data)

    def flush(self) -> None:
        """Do nothing: what is pending is no whole chunk."""

    def close(self) -> None:
        """Do nothing: the file is its owner's."""

    def finish(self) -> None:
        """Write the last chunk."""
        self._seal(len(self._pending), last=True)

    def _seal(self, size: int, *, last: bool) -> None:
        if self._number == _MOST_CHUNKS:
            raise OSError("the backup is longer than one file can be")
        self._file.write(self._stream.seal(self._number, last, bytes(self._pending[:size])))
        del self._pending[:size]
        self._number += 1


class Opened(io.RawIOBase):
    """Reads such a file from any place, a chunk at a time. Raise BadBackup where it has an end or a beginning that was
    not written so, and for each read of what was changed. It owns the file."""

    def __init__(self, file: BinaryIO, keys: Keys) -> None:
        self._file, self._at = file, 0
        head = file.readline(_MOST_HEAD)
        self.key, self._stream = _stream(head, keys)
        self._begin = len(head)
        length = file.seek(0, os.SEEK_END) - self._begin
        self._last = max(0, -(-length // (CHUNK + TAG)) - 1)
        self._size = length - TAG * (self._last + 1)
        if self._size <= CHUNK * self._last:  # no text in the last chunk: none is written so
            raise BadBackup("truncated")
        self._number = -1
        self._text = b""
        self._load(0)
        self._load(self._last)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if at < 0:
            raise OSError(22, "a place before the file's begin")
        self._at = at
        return at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        if self._at >= self._size:
            return 0
        number, place = divmod(self._at, CHUNK)
        self._load(number)
        part = memoryview(self._text)[place : place + len(buffer)]
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)

    def check(self) -> None:
        """Decrypt it all; raise BadBackup where any of it was changed."""
        for number in range(self._last + 1):
            self._load(number)

    def close(self) -> None:
        self._file.close()
        super().close()

    def _load(self, number: int) -> None:
        if number == self._number:
            return
        self._file.seek(self._begin + number * (CHUNK + TAG))
        try:
            self._text = self._stream.open(number, number == self._last, self._file.read(CHUNK + TAG))
        except InvalidTag:
            raise BadBackup(self._why(number)) from None
        self._number = number

    def _why(self, number: int) -> str:
        if number == 0:
            return f"not authentic: it was changed, or the key {self.key} here is not the one that encrypted it"
        if number == self._last:
            return f"not authentic: it was cut off, or changed at its end, since the key {self.key} encrypted it"
        begin = number * CHUNK
        return f"not authentic: bytes {begin:,} to {begin + CHUNK:,} were changed since the key {self.key} encrypted it"


def is_one(begin: bytes) -> bool:
    """Return whether a file that begins so may be one."""
    return begin.startswith(_MAGIC)


def _stream(head: bytes, keys: Keys) -> tuple[str, _Stream]:
    """Return the id of the key and the chunks of a file with this first line; raise BadBackup."""
    match = _HEAD.fullmatch(head)
    if not match:
        raise BadBackup(FOREIGN)
    if int(match[1]) != _VERSION:
        raise BadBackup(NEWER)
    name = match[2].decode()
    if not keys:
        raise BadBackup(f"encrypted with the key {name}: set BACKUP_KEY_FILE to the file that has it")
    if name not in keys:
        raise BadBackup(f"encrypted with the key {name}, which is not in the file of BACKUP_KEY_FILE")
    return name, _Stream(keys[name], head)
