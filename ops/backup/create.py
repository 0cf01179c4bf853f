"""Backups: one file of both stores, made atomically, and kept so many of."""

import errno
import os
import re
import resource
import shutil
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from django.conf import settings
from filelock import FileLock, Timeout

from conversations.background.sampling import NOTE
from conversations.clock import now
from conversations.errors import NoStore, StoreUnavailable
from conversations.ids import stamp
from conversations.runtime.deletions import Deletion
from conversations.stores import ALIASES, bulk, control, reachable, store
from conversations.stores.bulk_reader import Entry
from conversations.stores.sessions import is_of
from ops.backup import deletions, keys, store_snapshot
from ops.backup.archive import is_ours
from ops.backup.keys import Keys
from ops.backup.manifest import Counts, Manifest
from ops.backup.record import MAX_LINE, line_of
from ops.backup.writer import Writer
from ops.errors import BackupRunning, CannotWrite
from ops.long_work import Advance, prefetched

NAME = re.compile(r"onesource-\d{8}T\d{6}Z\.(?:zip|zip\.enc|tar)")
_NO_SNAPSHOT = "none: a backup of one tenant has none"
_PAGE = 250
_COUNT_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Made:
    """A backup that is there now."""

    path: Path
    bytes: int
    manifest: Manifest
    removed: tuple[str, ...]
    missing: tuple[str, ...]
    """The stores that could not be reached, and are not in it."""
    key: str | None
    """The id of the key that it is encrypted with."""


def create(folder: Path, keep: int, advance: Advance, tenant: str | None = None) -> Made:
    """Write a backup of the stores that can be reached; with both in it, remove the oldest beyond `keep`.

    One of a tenant has its conversations alone, "" being no tenant. It has a name of its own, and no snapshot; none is
    removed for it, and it is not noted as the newest one. Neither is the ledger written, which has all tenants.

    Raise BadKeys, NoStore, BackupRunning, StoreUnavailable or CannotWrite with nothing left behind.
    """
    known = keys.known()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return _create(folder, keep, known, advance, tenant)
    except OSError as error:
        raise CannotWrite(_why(folder, error)) from error


def _why(folder: Path, error: OSError) -> str:
    """Return why nothing could be written to the folder, and what to do."""
    match error.errno:
        case errno.EEXIST | errno.ENOTDIR:
            return f"{folder} is, or is in, a file; name a folder with --to"
        case errno.ENOSPC | errno.EDQUOT:
            free = shutil.disk_usage(folder).free
            return (
                f"the disk of {folder} is full: {free:,} bytes are free, needed are {_needed(folder)}. Make room, or"
                " --keep fewer"
            )
        case errno.EFBIG:
            most = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
            return (
                f"no file in {folder} may have more than {most:,} bytes, needed are {_needed(folder)}. Raise the limit"
                " (ulimit -f), or --to elsewhere"
            )
        case errno.EROFS | errno.EACCES | errno.EPERM:
            reason = os.strerror(error.errno).lower()
            return (
                f"{folder} cannot be written to by user {os.getuid()}: {reason}. Give it the right, or --to elsewhere"
            )
    return f"{folder}: {error.strerror or error}"


def _needed(folder: Path) -> str:
    """Return how many bytes a backup there has, as far as one of before tells."""
    newest = max((path for path in folder.glob("onesource-*") if NAME.fullmatch(path.name)), default=None)
    return f"about {newest.stat().st_size:,}, as {newest.name} has" if newest else "as many as both stores hold"


def _create(folder: Path, keep: int, known: Keys, advance: Advance, tenant: str | None) -> Made:
    with _alone(folder):
        aliases = reachable()
        if not aliases:
            raise NoStore
        with _writer(folder, known, tenant) as (writer, created):
            census = _Census(tenant)
            datasets = _datasets(aliases)  # first: a store that is wiped later has another one
            writer.add_lines(census.lines(aliases, created, advance))
            dump = store_snapshot.add(writer, aliases) if tenant is None else _NO_SNAPSHOT
            counts = {alias: census.counts[alias] for alias in aliases}
            tool = f"onesource {settings.VERSION}"
            manifest = Manifest(created, tool, aliases, counts, dump, {}, datasets=datasets, tenant=tenant)
            if tenant is None:
                ledger = deletions.gather(folder)
                ledger.add(census.deletions())
                deletions.write(folder, ledger, created)
            size = writer.finish(manifest)
        missing = tuple(alias for alias in ALIASES if alias not in aliases)
        complete = not missing and tenant is None
        removed = _retain(folder, keep, writer.path) if complete else ()
        if complete:
            for alias in aliases:
                store(alias).write_note(NOTE, stamp(created))
        return Made(writer.path, size, manifest, removed, missing, next(iter(known), None))


class _Census:
    """Reads the stores line by line, and counts."""

    def __init__(self, tenant: str | None = None) -> None:
        self._tenant = tenant
        self.counts = {alias: Counts() for alias in ALIASES}
        self._tombstones: dict[str, str] = {}

    def deletions(self) -> Iterator[Deletion]:
        """Return the deletions that the stores' tombstones tell of."""
        return (Deletion.of(session, tombstone) for session, tombstone in self._tombstones.items())

    def lines(self, aliases: Iterable[str], created: datetime, advance: Advance) -> Iterator[bytes]:
        """Return what the stores have, a page of each in turn: one store reads while the other one's is packed."""
        expected = sum(map(about, aliases))
        number = 0
        unread = deque((alias, prefetched(bulk(alias).entries(_PAGE))) for alias in aliases)
        while unread:
            alias, pages = unread.popleft()
            if (page := next(pages, None)) is not None:
                unread.append((alias, pages))
                lines = list(filter(None, (self._line(alias, entry, created) for entry in page)))
                yield from lines
                number += len(lines)
                advance(number, max(number, expected))

    def _line(self, alias: str, entry: Entry, created: datetime) -> bytes:
        """Return the line of a conversation, counted; nothing where there is nothing to restore."""
        if not is_of(entry.session, self._tenant):
            return b""
        counts, history = self.counts[alias], entry.history
        counts.corrupt += entry.corrupt
        if not (history or entry.tombstone):
            return b""
        line = line_of(alias, entry, created)
        if len(line) > MAX_LINE:
            counts.corrupt += 1
            return b""
        counts.conversations += bool(history)
        counts.turns += len(history) // 2
        if entry.tombstone:
            counts.tombstones += 1
            self._tombstones[entry.session] = max(self._tombstones.get(entry.session, ""), entry.tombstone)
        return line


def about(alias: str) -> int:
    """Return about how many conversations a store has, 0 where counting them takes long: it is for progress alone."""
    try:
        return bulk(alias).estimate(_COUNT_SECONDS)
    except StoreUnavailable:
        return 0


def _datasets(aliases: Iterable[str]) -> dict[str, str]:
    """Return the id of each store's dataset, of those that have one."""
    reported = {alias: control(alias).report().dataset for alias in aliases}
    return {alias: dataset.id for alias, dataset in reported.items() if dataset}


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder, and remove what a killed run left in it. The lock ends with the process that holds it."""
    lock = FileLock(folder / ".onesource-backup.lock", mode=0o600, fallback_to_soft=False)
    try:
        held = lock.acquire(blocking=False)
    except Timeout:
        raise BackupRunning(folder) from None
    with held:
        for left in folder.glob(".onesource-*.part"):
            left.unlink(missing_ok=True)
        yield


@contextmanager
def _writer(folder: Path, known: Keys, tenant: str | None) -> Iterator[tuple[Writer, datetime]]:
    """Begin a backup under a name of this second, or of the next one that is free."""
    while True:
        created = now()
        writer = Writer(folder, created, known, "onesource-" if tenant is None else f"tenant-{tenant}-")
        with writer:
            if not writer.path.exists():
                yield writer, created
                return
        time.sleep(0.2)


def _retain(folder: Path, keep: int, newest: Path) -> tuple[str, ...]:
    """Remove the oldest of our own complete backups beyond so many; nothing else, whatever its name."""
    removed = surplus([path for path in backups(folder) if path != newest], keep)
    for path in removed:
        path.unlink()
    return tuple(path.name for path in removed)


def backups(folder: Path) -> list[Path]:
    """Return our own complete backups in the folder, the oldest first."""
    named = sorted(path for path in folder.iterdir() if NAME.fullmatch(path.name) and not path.is_symlink())
    return [path for path in named if is_ours(path)]


def surplus(older: list[Path], keep: int) -> list[Path]:
    """Return those of the older backups that are too many beside a new one."""
    return older[: -(keep - 1) or None]
