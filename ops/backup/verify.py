"""Proving a backup: it is restored into servers of our own, and every conversation there is compared with it."""

import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from itertools import cycle
from pathlib import Path
from typing import Any

import django
from filelock import FileLock

import embedded
from conversations.background.sampling import VERIFIED, backups_recorded
from conversations.errors import BadSnapshot, ConversationError, StoreUnavailable, UnverifiedSnapshot
from conversations.ids import stamp
from conversations.stores import ALIASES, scratch, store
from conversations.stores.batches import batches
from conversations.stores.bulk import BulkStore, Share
from conversations.stores.bulk_reader import Entry
from conversations.stores.scratch import UNLIMITED, Scratch
from embedded import children
from ops.backup import store_snapshot
from ops.backup.archive import Archive
from ops.backup.record import Record, counted, in_batches, is_of
from ops.backup.restore import Putting
from ops.errors import NotVerified
from ops.long_work import Advance, collect_seldom

_WINDOW = 1500  # lines that are restored and compared at a time: what a backup of any size needs of memory
_BATCH = 500
_ONE_HOUR = 3600  # seconds, in which a window is compared
_SCRATCH = "onesource-verify-"
_ROOM = 100_000_000  # bytes: what both stores need for a window
_LEAST_FREE = 16_000_000  # bytes: with fewer a store may have failed for want of them
_FIRST, _SECOND = ALIASES


class SnapshotState(StrEnum):
    """What became of the snapshot in a backup."""

    NONE = "none"
    WHOLE = "whole"
    """Every key was read."""
    CHECKSUM = "checksum"
    """Only its checksums could be verified."""
    UNVERIFIED = "unverified"
    DAMAGED = "damaged"


@dataclass(slots=True)
class Compared:
    """What was compared of one store so far."""

    conversations: int = 0
    """Those that were there after they had been restored."""
    differing: int = 0


@dataclass(frozen=True, slots=True)
class Verified:
    """What became of a backup that was restored."""

    file: str
    created: str
    conversations: dict[str, int]
    differing: int
    snapshot: str
    """How the store's own snapshot was reached; without one, why."""
    snapshot_keys: int | None
    """None where there is no snapshot, or it cannot be read here."""
    snapshot_error: str
    """Why it cannot be read; the conversations can be restored without."""
    snapshot_state: SnapshotState

    def as_dict(self) -> dict[str, Any]:
        """Return it for machines, which know the snapshot by its keys and its error."""
        fields = asdict(self)
        del fields["snapshot_state"]
        return fields


def verify(path: Path, advance: Advance) -> Verified:
    """Restore the backup into servers of our own, some thousand conversations at a time; compare each of them with
    it, and return how many there were, how many differ, and what the snapshot beside them has. Where a backup of both
    stores is as it should be, that is noted in the stores that can be reached. Raise BadBackup where the file itself is
    not whole."""
    _sweep_scratch()
    with Archive(path) as archive, _throwaway() as (urls, home), _another_process() as other:
        archive.check_seal()
        archive.check_dump()
        first = other.submit(_try_out_first, os.getpid(), path, urls[_FIRST])
        found = {_SECOND: _try_out(path, _SECOND, urls[_SECOND], advance), _FIRST: first.result()}
        result = Verified(
            str(path),
            stamp(archive.manifest.created),
            {alias: found[alias].conversations for alias in ALIASES},
            sum(one.differing for one in found.values()),
            archive.manifest.snapshot,
            *_snapshot(archive, home),
        )
        if not (result.differing or result.snapshot_error) and archive.manifest.is_complete:
            _note(result)
        return result


def _note(verified: Verified) -> None:
    """Record in the stores that this backup was verified, unless a newer one was. A machine that only verifies may
    reach none of them."""
    created = datetime.fromisoformat(verified.created).timestamp()
    for alias, newest in backups_recorded(VERIFIED).items():
        if created > newest:
            with suppress(StoreUnavailable):
                store(alias).write_note(VERIFIED, verified.created)


def _snapshot(archive: Archive, home: Path) -> tuple[int | None, str, SnapshotState]:
    """Return how many keys the snapshot has, why it cannot be read, and its state."""
    if not archive.dumps:
        return None, "", SnapshotState.NONE
    try:
        keys = store_snapshot.count_keys(archive, home)
    except UnverifiedSnapshot as error:
        return None, str(error), SnapshotState.UNVERIFIED
    except BadSnapshot as error:
        return None, str(error), SnapshotState.DAMAGED
    return keys, "", SnapshotState.CHECKSUM if keys is None else SnapshotState.WHOLE


def _try_out(path: Path, alias: str, url: str, advance: Advance = lambda done, total: None) -> Compared:
    """Restore what the backup has of one store, and compare it."""
    result = Compared()
    with ExitStack() as stack, ThreadPoolExecutor(1) as worker:
        archive = stack.enter_context(Archive(path))
        # Two, so that one is compared while the other is restored.
        rooms = cycle([stack.enter_context(scratch(alias, url, number)) for number in range(2)])
        every = counted(enumerate(archive.raw(), 1), advance, archive.lines)
        ours = (archive.parse(*each) for each in every if is_of(each[1], _FIRST) == (alias == _FIRST))
        comparing: Future[None] | None = None
        for records in in_batches(ours, _WINDOW):
            room = next(rooms)
            # Nobody uses these servers: damage that is met half way harms nothing, and one pass is saved.
            _load(records, room.bulk)
            if comparing:
                comparing.result()
            comparing = worker.submit(_compare, records, room, result)
        if comparing:
            comparing.result()
    return result


def _load(records: list[Record], store: BulkStore) -> None:
    """Put the records into a store of their kind, whatever their age."""
    wanted = {record.session: _share(record) for record in records}
    with Putting(store) as putting:
        for batch in batches(wanted.values(), _BATCH):
            putting.put(batch)


def _share(record: Record) -> Share:
    ttl = max(_ONE_HOUR, UNLIMITED.ttl if record.ttl is None else record.ttl)
    return Share(record.session, record.history.turns(), ttl, record.tombstone or "")


def _compare(records: list[Record], room: Scratch, result: Compared) -> None:
    """Count which of the records are in the store exactly as in the backup, and what else is there; then make room for
    others."""
    wanted = {record.session: record for record in records}
    result.differing += len(records) - len(wanted)  # no session is there twice
    for page in room.bulk.entries(_BATCH):
        for entry in page:
            record = wanted.pop(entry.session, None)
            result.conversations += bool(entry.history)
            result.differing += not (record and _is_same(entry, record))
    result.differing += len(wanted)
    room.clear()


def _is_same(entry: Entry, record: Record) -> bool:
    return (entry.history, entry.tombstone, entry.corrupt) == (record.history, record.tombstone, False)


def _another_process() -> ProcessPoolExecutor:
    """Return what gives half of the work a processor of its own."""
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=django.setup)


def _try_out_first(parent: int, path: Path, url: str) -> Compared:
    if parent != os.getpid():
        children.die_with_parent(parent)
        collect_seldom()
    return _try_out(path, _FIRST, url)


@contextmanager
def _throwaway() -> Iterator[tuple[dict[str, str], Path]]:
    """Start an empty server of our own for each store that has one in `embedded`, and yield its URL, "" for another
    store; they end, and their data goes, with us."""
    home = Path(tempfile.mkdtemp(prefix=_SCRATCH))
    try:
        wanted = {name: name in ALIASES for name in children.ADDRESS}
        for name in wanted:
            (home / f"{name}.port").write_text(str(children.free_port()))
        with embedded.start(home, **wanted, lasting=False) as stores:
            yield dict.fromkeys(ALIASES, "") | stores.urls, home
    except embedded.EmbeddedError as error:
        raise NotVerified(_full(home) or error) from None
    except (ConversationError, OSError) as error:
        if full := _full(home):
            raise NotVerified(full) from error
        raise
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _full(home: Path) -> str:
    """Return what to do where its disk is full, else "": stores that cannot write fail in many ways."""
    free = shutil.disk_usage(home).free
    if free >= _LEAST_FREE:
        return ""
    return (
        f"{home.parent} has only {free:,} bytes free, needed are those of the snapshot in it and some {_ROOM:,}. Make"
        " room, or name another folder with TMPDIR. What was written there is removed, and the backup is as it was"
    )


def _sweep_scratch() -> None:
    """Remove what killed runs of ours left in the temporary folder."""
    for left in Path(tempfile.gettempdir()).glob(f"{_SCRATCH}*"):
        with suppress(OSError):
            if left.stat().st_uid != os.getuid() or time.time() - left.stat().st_mtime < 60:
                continue
            # Its stores hold this lock as long as one of them runs.
            with FileLock(left / "serve.lock", blocking=False, fallback_to_soft=False):
                shutil.rmtree(left, ignore_errors=True)
