"""Reading a Redis snapshot: by redis-check-rdb, which redis-server is under that name, key by key and with no room for
them all; by the snapshot's own checksum where a later Redis than the one here has written it."""

import re
import subprocess
import sys
from array import array
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from conversations.errors import BadSnapshot, UnverifiedSnapshot
from embedded import children

SECONDS = 600
_KEYS_READ = re.compile(rb"\[info\] (\d+) keys read")
_ERROR = re.compile(rb"ERROR DETECTED ---\n(.{1,200})")
_LATER = re.compile(r"Can't handle RDB format version [1-9]")
_CHUNK = 2**20
_END, _SUM = b"\xff", 8  # a snapshot's last bytes: the opcode, then the checksum
_POLYNOMIAL = 0x95AC9329AC4BC9B5  # Redis' CRC-64, by Jones, its bits in reverse


def count_keys(dump: Path) -> int | None:
    """Return how many keys Redis finds, every one read; None where only a later Redis can read them, and the checksum
    is right. Raise BadSnapshot."""
    try:
        done = subprocess.run(  # noqa: S603
            ["redis-check-rdb", str(dump)],  # noqa: S607
            executable=children.redis_binary(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BadSnapshot(f"redis-check-rdb took longer than {SECONDS} s") from None
    read = _KEYS_READ.search(done.stdout)
    if read and not done.returncode:
        return int(read[1])
    error = _ERROR.search(done.stdout)
    reason = error[1].decode(errors="replace") if error else f"redis-check-rdb ended with {done.returncode}"
    if not _LATER.search(reason):
        raise BadSnapshot(reason)
    _check(dump)
    return None


def _check(dump: Path) -> None:
    """Raise BadSnapshot where the snapshot does not end as one does, UnverifiedSnapshot where it has no checksum."""
    size = dump.stat().st_size - _SUM
    with dump.open("rb") as file:
        file.seek(size - len(_END))
        end, written = file.read(len(_END)), int.from_bytes(file.read(), "little")
    if end != _END:
        raise BadSnapshot("it does not end as a snapshot does")
    if not written:  # Redis was configured to write none
        raise UnverifiedSnapshot
    if written != crc64(_chunks(dump, size)):
        raise BadSnapshot("its checksum is wrong")


def _chunks(dump: Path, size: int) -> Iterator[bytes]:
    with dump.open("rb") as file:
        while chunk := file.read(min(_CHUNK, size)):
            size -= len(chunk)
            yield chunk


def crc64(chunks: Iterator[bytes]) -> int:
    """Return the checksum of the chunks, of which all but the last have an even length."""
    table, crc = _table(), 0
    for chunk in chunks:
        words = array("H", chunk[: len(chunk) & ~1])
        if sys.byteorder == "big":
            words.byteswap()
        for word in words:  # two bytes at a time: about twice as fast
            crc = table[(crc ^ word) & 0xFFFF] ^ crc >> 16
        for byte in chunk[len(words) * 2 :]:
            crc = _shifted(crc ^ byte, 8)
    return crc


@cache
def _table() -> list[int]:
    return [_shifted(word, 16) for word in range(2**16)]


def _shifted(crc: int, bits: int) -> int:
    for _ in range(bits):
        crc = crc >> 1 ^ (_POLYNOMIAL if crc & 1 else 0)
    return crc
