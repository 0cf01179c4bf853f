"""The backup file: one tar of `conversations.jsonl.gz`, `dump.rdb` where there is one, and `manifest.json`, last.

It is read as if a stranger had made it: nothing is unpacked to disk, every length is bounded before it is
read, and a file that lacks its end lacks its manifest.
"""

import gzip
import hashlib
import io
import os
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO, Self, TypeVar

import orjson

from conversations.errors import ConversationError
from conversations.stores import ALIASES
from conversations.turns import MESSAGE_ID, SESSION, History
from ops.long_work import prefetched

FORMAT, VERSION = "onesource-backup", 1
LINES, DUMP, MANIFEST = "conversations.jsonl.gz", "dump.rdb", "manifest.json"
MAX_LINE = 16 * 2**20  # what MongoDB holds in one document
MAX_MANIFEST = 2**20
_BLOCK = tarfile.BLOCKSIZE
_CHUNK = 2**20  # smaller ones are handed over so often that a thread waits more for the interpreter than it works
_USUAL = 5000  # bytes
T = TypeVar("T")
_FAST = 1  # level 6 takes four times as long for a fifth less


class BadBackup(ConversationError):
    """This file cannot be restored"""

    code = "bad_backup"


@dataclass(frozen=True, slots=True)
class Record:
    """One conversation of one store; its TTL in seconds as of the manifest's `created`, None for the usual one."""

    store: str
    session: str
    ttl: int | None
    tombstone: str | None
    history: History
    size: int
    """How many bytes its line has."""

    @classmethod
    def parse(cls, line: bytes, *, known: bool = False) -> "Record":
        """Return the record of a line; raise ValueError, quoting nothing of it, if it is none. Messages that are
        `known` from another record are left out."""
        fields = orjson.loads(line.partition(b',"messages":')[0] + b',"messages":[]}' if known else line)
        if not isinstance(fields, dict) or set(fields) != {"store", "session", "ttl", "tombstone", "messages"}:
            raise ValueError("other fields than a conversation has")
        store, session, ttl, tombstone = (fields[name] for name in ("store", "session", "ttl", "tombstone"))
        if store not in ALIASES or not isinstance(session, str) or not SESSION.fullmatch(session):
            raise ValueError("no such store or session can be")
        if ttl is not None and (type(ttl) is not int or not 0 <= ttl < 2**40):
            raise ValueError("no such TTL can be")
        if tombstone is not None and not (isinstance(tombstone, str) and MESSAGE_ID.fullmatch(tombstone)):
            raise ValueError("no such tombstone can be")
        if not isinstance(fields["messages"], list) or not (fields["messages"] or tombstone or known):
            raise ValueError("no messages")
        history = History.parse(fields["messages"]) if fields["messages"] else History()
        return cls(store, session, ttl, tombstone, history, len(line))


class Writer:
    """Writes a backup under a temporary name, on which nobody else may look, and renames it when it is whole."""

    def __init__(self, folder: Path, created: datetime) -> None:
        self.path = folder / f"onesource-{created:%Y%m%dT%H%M%SZ}.tar"
        self._draft = folder / f".{self.path.name}.part"
        self._file = os.fdopen(os.open(self._draft, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600), "w+b")
        self.files: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            self._file.close()
        finally:  # closing a file on a full disk fails too
            self._draft.unlink(missing_ok=True)

    def add_lines(self, lines: Iterable[bytes]) -> None:
        """Write the conversations, compressed as they come."""
        raw = number = 0
        with (
            _Member(self._file, LINES) as member,
            gzip.GzipFile("", "wb", _FAST, member, mtime=0) as packed,
            ThreadPoolExecutor(1) as hand,  # zlib needs no interpreter: it packs while the next lines are read
        ):
            pending = bytearray()
            packing: Future[Any] = hand.submit(packed.flush)
            for line in lines:
                number += 1
                raw += len(line)
                pending += line
                if len(pending) > _CHUNK:
                    packing.result()
                    packing = hand.submit(packed.write, pending)
                    pending = bytearray()
            packing.result()
            packed.write(pending)
        self.files[LINES] = {**member.facts(), "lines": number, "raw_bytes": raw}

    def add(self, name: str, source: BinaryIO) -> None:
        """Write a file as it is."""
        with _Member(self._file, name) as member:
            while chunk := source.read(_CHUNK):
                member.write(chunk)
        self.files[name] = member.facts()

    def finish(self, manifest: dict[str, Any]) -> int:
        """Write the manifest and let the file appear, whole and on disk; return its size."""
        self.add(MANIFEST, io.BytesIO(orjson.dumps(manifest | {"files": self.files}, option=orjson.OPT_INDENT_2)))
        self._file.write(bytes(2 * _BLOCK))
        self._file.flush()
        os.fsync(self._file.fileno())
        size = self._file.tell()
        self._draft.rename(self.path)
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return size


class Archive:
    """A backup opened for reading; raise BadBackup where it is not whole, not ours, or from a later version."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        try:
            self._places = self._look()
            self.manifest = self._manifest()
            self.created = datetime.fromisoformat(self.manifest["created"])
            self._promised = self.manifest["files"][LINES]
            sizes = {name: self.manifest["files"][name]["bytes"] for name in self._places if name != MANIFEST}
            if sizes != {name: size for name, (_, size) in self._places.items() if name != MANIFEST}:
                raise BadBackup("damaged: a file in it has another length than the manifest says")
            if self.created.tzinfo is None or any(type(self._promised[n]) is not int for n in ("lines", "raw_bytes")):
                raise BadBackup("damaged: its manifest is not one")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            self._file.close()
            if isinstance(error, BadBackup):
                raise
            raise BadBackup("damaged: its manifest is not one") from None
        except BadBackup:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    @property
    def lines(self) -> int:
        return int(self._promised["lines"])

    @property
    def has_dump(self) -> bool:
        return DUMP in self._places

    def age(self, now: datetime) -> int:
        """Return how many seconds ago it was made."""
        return max(0, int((now - self.created.astimezone(UTC)).total_seconds()))

    def records(self, *, once: bool = False) -> Iterator[Record]:
        """Return every conversation, with `once` leaving out those whose turns the other store's record had; raise
        BadBackup, at the latest after the last, where any of it is damaged."""
        for number, line, again in self._told():
            if not (once and again):
                yield self.parse(number, line)

    def heads(self) -> Iterator[Record]:
        """Return every conversation as `records` does, every byte of it checked, but without its messages where
        the other store's record had the same."""
        for number, line, again in self._told():
            yield self.parse(number, line, known=again)

    def _told(self) -> Iterator[tuple[int, bytes, bool]]:
        """Return every line with its number, and whether one before it told the same."""
        seen: set[bytes] = set()
        for number, line in enumerate(self.raw(), 1):
            same = _likeness(line)
            yield number, line, same in seen
            seen.add(same)

    def parse(self, number: int, line: bytes, *, known: bool = False) -> Record:
        """Return the conversation of a line; raise BadBackup, which names the line, if it is none."""
        try:
            return Record.parse(line, known=known)
        except ValueError as error:
            reason = "not JSON" if isinstance(error, orjson.JSONDecodeError) else error
            raise BadBackup(f"damaged: line {number} of {LINES}: {reason}") from None

    def raw(self) -> Iterator[bytes]:
        """Return every line; raise BadBackup as `records` does, but for what is in a line."""
        place = _Region(self._file, *self._places[LINES])
        number = size = 0
        try:
            # zlib needs no interpreter: it unpacks while the lines before are read.
            with closing(prefetched(_unpacked(place))) as chunks:
                for line in _lines(chunks):
                    number, size = number + 1, size + len(line)
                    if len(line) > MAX_LINE or size > self._promised["raw_bytes"]:
                        raise BadBackup(f"oversized: line {number} is longer than the manifest allows")
                    yield line
        except (EOFError, zlib.error):
            raise BadBackup(f"damaged: {LINES} cannot be unpacked after line {number}") from None
        place.drain()
        if place.sha256() != self._promised["sha256"]:
            raise BadBackup(f"damaged: {LINES} has another SHA-256 than the manifest says")
        if (number, size) != (self._promised["lines"], self._promised["raw_bytes"]):
            raise BadBackup(f"damaged: {LINES} has other lengths than the manifest says")

    def check_dump(self) -> None:
        """Return when the Redis snapshot is as it was written, or there is none."""
        if self.has_dump:
            self.copy_dump(None)

    def copy_dump(self, target: BinaryIO | None) -> None:
        """Copy the Redis snapshot out; raise BadBackup if it is not as it was written."""
        place = _Region(self._file, *self._places[DUMP])
        begin = place.drain(target)
        if place.sha256() != self.manifest["files"][DUMP]["sha256"]:
            raise BadBackup(f"damaged: {DUMP} has another SHA-256 than the manifest says")
        if not begin.startswith(b"REDIS"):
            raise BadBackup(f"damaged: {DUMP} is no Redis snapshot")

    def _look(self) -> dict[str, tuple[int, int]]:
        """Return where in the file each of its files begins, and how long it is."""
        end = self._file.seek(0, os.SEEK_END)
        position, places = 0, dict[str, tuple[int, int]]()
        while True:
            self._file.seek(position)
            block = self._file.read(_BLOCK)
            if block == bytes(_BLOCK) and MANIFEST in places:
                return places
            try:
                info = tarfile.TarInfo.frombuf(block, "ascii", "strict")
            except (tarfile.HeaderError, UnicodeError, ValueError):
                raise BadBackup("truncated" if places else "foreign: not a backup made by `backup --to`") from None
            if info.name not in (LINES, DUMP, MANIFEST) or info.name in places or info.type != tarfile.REGTYPE:
                raise BadBackup("foreign: it holds something else than a backup does")
            places[info.name] = (position + _BLOCK, info.size)
            position += _BLOCK + _padded(info.size)
            if info.size < 0 or position > end:
                raise BadBackup("truncated")

    def _manifest(self) -> dict[str, Any]:
        begin, size = self._places[MANIFEST]
        if size > MAX_MANIFEST:
            raise BadBackup("oversized: its manifest is too long to be one")
        self._file.seek(begin)
        manifest: dict[str, Any] = orjson.loads(self._file.read(size))
        if manifest.get("format") != FORMAT:
            raise BadBackup("foreign: not a backup made by `backup --to`")
        if type(manifest.get("version")) is not int or manifest["version"] > VERSION:
            raise BadBackup("newer: it was made by a later version of onesource; restore it with that one")
        return manifest


def is_ours(path: Path) -> bool:
    """Return whether the file is a complete backup, as far as can be told without reading it all."""
    with suppress(OSError, BadBackup), Archive(path):
        return True
    return False


class _Member(io.RawIOBase):
    """One file within the tar, whose header is written when its length is known."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._out, self._name, self._size, self._hash = file, name, 0, hashlib.sha256()
        self._begin = file.tell()
        file.write(bytes(_BLOCK))

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._out.write(data)
        self._hash.update(data)
        self._size += len(data)
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._out.write(bytes(_padded(self._size) - self._size))
            end = self._out.tell()
            header = tarfile.TarInfo(self._name)
            header.size, header.mode = self._size, 0o600
            self._out.seek(self._begin)
            self._out.write(header.tobuf(tarfile.GNU_FORMAT))
            self._out.seek(end)
        super().close()

    def facts(self) -> dict[str, Any]:
        return {"bytes": self._size, "sha256": self._hash.hexdigest()}


class _Region(io.RawIOBase):
    """A part of a file, hashed as it is read."""

    def __init__(self, file: BinaryIO, begin: int, size: int) -> None:
        self._in, self._position, self._end, self._hash = file, begin, begin + size, hashlib.sha256()

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        left = self._end - self._position
        self._in.seek(self._position)
        data = self._in.read(left if size < 0 else min(size, left))
        self._position += len(data)
        self._hash.update(data)
        return data

    def drain(self, target: BinaryIO | None = None) -> bytes:
        """Read what is left; return how it begins."""
        begin = b""
        while chunk := self.read(_CHUNK):
            begin = begin or chunk[:16]
            if target:
                target.write(chunk)
        return begin

    def sha256(self) -> str:
        return self._hash.hexdigest()


def counted(records: Iterable[T], advance: Callable[[int, int], None], total: int) -> Iterator[T]:
    """Pass records on and say how many have passed."""
    for number, record in enumerate(records, 1):
        if number % 500 == 0:
            advance(number, total)
        yield record


def in_batches(records: Iterable[Record], most: int) -> Iterator[list[Record]]:
    """Return the records in lists of so many, or fewer where they are long: a list needs about the same memory."""
    batch, size = list[Record](), 0
    for record in records:
        batch.append(record)
        size += record.size
        if len(batch) >= most or size >= most * _USUAL:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _unpacked(packed: "_Region") -> Iterator[bytes]:
    """Return what is packed by gzip, by the chunk; raise EOFError or zlib.error where it is damaged."""
    unpacking = zlib.decompressobj(31)
    while not unpacking.eof:
        data = unpacking.unconsumed_tail or packed.read(_CHUNK)
        if not data:
            raise EOFError
        if chunk := unpacking.decompress(data, _CHUNK):
            yield chunk


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Return the lines, newlines included; of one that is too long only how it begins."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line + b"\n"
        if len(rest) > MAX_LINE:
            break
    if rest:
        yield rest


def _likeness(line: bytes) -> bytes:
    """Return a digest that two lines have in common if they have the same session and turns, and about the same TTL."""
    head, _, rest = line.partition(b',"ttl":')
    ttl, _, messages = rest.partition(b",")
    digest = blake2b(head.partition(b',"session":')[2], digest_size=16)
    digest.update(b"\n%s\n" % ttl[:-4])
    digest.update(messages)
    return digest.digest()


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK
