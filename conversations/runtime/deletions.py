"""Deletions, noted in files of VAR_DIR: what both stores lose with their tombstones is still known.

The chat path must not wait for `default`, where the ledger of deletions is. So a deletion is one line in a file of
this process; the service, or a command, moves the lines to `default` later. A line has the name of a session and no
word of it.
"""

import fcntl
import logging
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import orjson
from django.conf import settings

from conversations import expiry
from conversations.clock import now
from conversations.ids import MESSAGE_ID, stamp
from conversations.turns import SESSION
from telemetry.logs import event

logger = logging.getLogger(__name__)

MOST_BYTES = 64 * 2**20  # of a file: it grows only while `default` cannot be reached
_MOST_UNWRITTEN = 64 * 2**10  # lines kept in memory while a file cannot be written
_MOST_LINE = 1024  # bytes
_WRITTEN, _TAKEN = ".jsonl", ".taken"


@dataclass(frozen=True, slots=True)
class Deletion:
    """One deletion: all turns of the session up to this id."""

    session: str
    upto: str
    at: datetime
    expires_at: datetime
    """When no copy of what was deleted can live any more, in a backup neither."""

    @classmethod
    def of(cls, session: str, upto: str) -> "Deletion":
        """Return a deletion of now, which lives as long as its tombstone."""
        time = now()
        return cls(session, upto, time, time + timedelta(seconds=expiry.tombstone_ttl(settings.CONV_TTL_SECONDS)))

    @classmethod
    def parse(cls, line: bytes) -> "Deletion":
        """Return the deletion of a line; raise ValueError, quoting nothing of it, if it is none."""
        fields = orjson.loads(line)
        try:
            session, upto, *times = (fields[name] for name in ("session", "upto", "at", "expires_at"))
            at, expires_at = map(datetime.fromisoformat, times)
            right = SESSION.fullmatch(session) and MESSAGE_ID.fullmatch(upto) and at.tzinfo and expires_at.tzinfo
        except (KeyError, TypeError):
            right = None
        if not right:
            raise ValueError("no deletion")
        return cls(session, upto, at, expires_at)

    def line(self) -> bytes:
        """Return it as it is written, in one line."""
        times = {"at": stamp(self.at), "expires_at": stamp(self.expires_at)}
        return orjson.dumps({"session": self.session, "upto": self.upto, **times}) + b"\n"


class DeletionNotes:
    """The file of this process. It is made with the first deletion, and again after it was taken."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path = folder / f"{os.getpid()}-{os.urandom(4).hex()}{_WRITTEN}"
        self._unwritten: list[bytes] = []
        self._changing = threading.Lock()

    def note(self, uptos: Mapping[str, str]) -> None:
        """Note that the turns of these sessions were deleted up to these ids: all in one write, or none. Where the file
        cannot be written that is logged, not raised, since it was deleted; the next call writes it."""
        if not uptos:
            return
        with self._changing:
            self._unwritten += [Deletion.of(session, upto).line() for session, upto in uptos.items()]
            try:
                self._write(b"".join(self._unwritten))
            except OSError as error:
                lost = max(0, len(self._unwritten) - _MOST_UNWRITTEN)
                del self._unwritten[:lost]
                kept = len(self._unwritten)
                event(logger, logging.ERROR, "deletions_not_noted", error=str(error), kept=kept, lost=lost)
            else:
                self._unwritten.clear()

    def _write(self, lines: bytes) -> None:
        with _locked(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND) as file:
            size = os.fstat(file).st_size
            if size + len(lines) > MOST_BYTES:
                raise OSError("the file is too long; nothing takes the lines to the database")
            try:
                written = os.write(file, lines)
            except OSError:
                written = 0
            if written < len(lines):  # a disk that is full; what begins a line would spoil the next one
                os.ftruncate(file, size)
                raise OSError("the disk is full")


def folder() -> Path:
    """Return the folder of all these files."""
    return Path(settings.VAR_DIR) / "run" / "deletions"


def take() -> list[Path]:
    """Return files with noted deletions that no process writes to any more. Whoever has stored them elsewhere removes
    them; until then they are returned again."""
    for path in folder().glob(f"*{_WRITTEN}"):
        try:
            with _locked(path, os.O_RDONLY):
                path.rename(path.with_suffix(f".{os.urandom(4).hex()}{_TAKEN}"))  # never a name that was there before
        except FileNotFoundError:  # another process has taken it
            pass
    return list(folder().glob(f"*{_TAKEN}"))


def noted() -> list[Deletion]:
    """Return every deletion that is noted here. What is moved to the database meanwhile may be missing: read that
    afterwards."""
    while True:
        try:
            return [found for path in list(folder().glob("*")) for found in read(path.read_bytes().splitlines())]
        except FileNotFoundError:  # one was taken meanwhile, and has another name now
            continue


def read(lines: Iterable[bytes]) -> Iterator[Deletion]:
    """Return the deletions of the lines; what is none is skipped and logged."""
    wrong = 0
    for line in lines:
        try:
            if len(line) > _MOST_LINE:
                raise ValueError("too long")
            yield Deletion.parse(line)
        except ValueError:
            wrong += 1
    if wrong:
        event(logger, logging.ERROR, "deletions_damaged", lines=wrong)


@contextmanager
def _locked(path: Path, flags: int) -> Iterator[int]:
    """Open the file and hold its lock, which nobody holds for longer than a write or a rename."""
    while True:
        file = os.open(path, flags, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            # It may have been taken between open and lock: then the path is another file, or none.
            if path.exists() and os.path.samestat(os.fstat(file), path.stat()):
                yield file
                return
        finally:
            os.close(file)
