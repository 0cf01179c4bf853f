"""Proving a backup: it is restored into servers of our own, and every conversation there is compared with it."""

import fcntl
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from itertools import cycle, islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
from pymongo import MongoClient
from redis import Redis

from conversations.cache import make_key
from conversations.errors import ConversationError
from conversations.stores import ALIASES, MONGO, REDIS
from conversations.turns import Limits
from onesource import children, embedded
from ops import direct, snapshots
from ops.archive import Archive, counted
from ops.restoring import MongoTarget, RedisTarget, load

_ALL = Limits(ttl=2**31, max_turns=2**31, max_bytes=2**40)
_WINDOW = 2000  # lines that are restored and compared at a time: what a backup of any size needs of memory
_BATCH = 500
_SCRATCH = "onesource-verify-"

Advance = Callable[[int, int], None]


class NotVerified(ConversationError):
    """The backup could not be tried out"""


def verify(path: Path, advance: Advance) -> dict[str, Any]:
    """Restore the backup into servers of our own, some thousand conversations at a time; compare each of them with
    it, and return how many there were and how many differ. Raise BadBackup where the file itself is not whole."""
    _sweep_scratch()
    with ExitStack() as stack:
        archive = stack.enter_context(Archive(path))
        archive.check_dump()
        stores, home = stack.enter_context(_throwaway())
        found = _try_out(archive, stores, advance)
        return {
            "file": str(path),
            "created": archive.manifest["created"],
            "conversations": {alias: found[alias] for alias in ALIASES},
            "differing": found["differing"],
            "snapshot": archive.manifest["snapshot"],
            "snapshot_keys": snapshots.count_keys(archive, home) if archive.has_dump else None,
        }


def _try_out(archive: Archive, stores: embedded.Stores, advance: Advance) -> Counter[str]:
    """Return how many conversations were found of each store, and how many were `differing`."""
    found = Counter[str]()
    with ExitStack() as stack, ThreadPoolExecutor(1) as hand:
        # Two, so that one is compared while the other is restored.
        trials = cycle([stack.enter_context(_trial(stores, number)) for number in range(2)])
        lines = counted(enumerate(archive.raw(), 1), advance, archive.lines)
        comparing: Future[None] | None = None
        while window := list(islice(lines, _WINDOW)):
            trial = next(trials)
            # The servers are nobody's: damage that is met half way harms nothing, and one pass is saved.
            load((archive.parse(number, line) for number, line in window), trial.targets, _ALL)
            if comparing:
                comparing.result()
            comparing = hand.submit(trial.compare, [line for _, line in window], found)
        if comparing:
            comparing.result()
    return found


@contextmanager
def _trial(stores: embedded.Stores, number: int) -> Iterator["_Trial"]:
    database = urlsplit(stores.urls[REDIS])._replace(path=f"/{number}").geturl()
    redis = Redis.from_url(database, socket_timeout=direct.PATIENCE)
    with redis, MongoClient[dict[str, Any]](stores.urls[MONGO], tz_aware=True, journal=False) as mongo:
        yield _Trial(redis, mongo["verify"][f"conversations{number}"])


class _Trial:
    """Room for some lines in the throwaway stores."""

    def __init__(self, redis: Any, documents: direct.Documents) -> None:
        self._redis, self._documents = redis, documents
        self.targets = {REDIS: RedisTarget(redis, _ALL), MONGO: MongoTarget(documents, _ALL, None)}

    def compare(self, lines: list[bytes], found: Counter[str]) -> None:
        """Count which of the lines are in the stores exactly as in the backup, and what else is there; then make
        room for others."""
        records: dict[str, dict[str, dict[str, Any]]] = {alias: {} for alias in ALIASES}
        for record in map(orjson.loads, lines):
            records[record["store"]][make_key(record["session"])] = record
        found["differing"] += len(lines) - sum(map(len, records.values()))  # no session is there twice
        self._compare_redis(records[REDIS], found)
        self._compare_mongo(records[MONGO], found)
        with direct.patient(REDIS):
            self._redis.flushdb()
        with direct.patient(MONGO):
            self._documents.drop()

    def _compare_redis(self, records: dict[str, dict[str, Any]], found: Counter[str]) -> None:
        pending, keys = iter(records), 0
        while batch := list(islice(pending, _BATCH)):
            with direct.patient(REDIS):
                values = self._redis.mget([*batch, *(f"tomb:{{{key}}}" for key in batch)])
            for key, value, tombstone in zip(batch, values, values[len(batch) :], strict=False):
                messages = orjson.loads(b"[%s]" % (value or b"")[:-1].replace(b"\n", b","))
                keys += (value is not None) + (tombstone is not None)
                _count(REDIS, records[key], messages, (tombstone or b"").decode(), found)
        with direct.patient(REDIS):
            found["differing"] += self._redis.dbsize() - keys

    def _compare_mongo(self, records: dict[str, dict[str, Any]], found: Counter[str]) -> None:
        with direct.patient(MONGO):
            for document in self._documents.find({}, {"messages": 1, "tombstone": 1}) if records else ():
                record = records.pop(document["_id"], None)
                if record is None:
                    found["differing"] += 1
                else:
                    _count(MONGO, record, document["messages"], document.get("tombstone", ""), found)
        found["differing"] += len(records)


def _count(alias: str, record: dict[str, Any], messages: Any, tombstone: str, found: Counter[str]) -> None:
    found[alias] += bool(messages)
    found["differing"] += not (messages == record["messages"] and tombstone == (record["tombstone"] or ""))


@contextmanager
def _throwaway() -> Iterator[tuple[embedded.Stores, Path]]:
    """Start an empty Redis and an empty Mongo of our own; they end, and their data goes, with us."""
    home = Path(tempfile.mkdtemp(prefix=_SCRATCH))
    try:
        for name in ALIASES:
            (home / f"{name}.port").write_text(str(children.free_port()))
        with embedded.start(home, redis=True, mongo=True, lasting=False) as stores:
            yield stores, home
    except embedded.EmbeddedError as error:
        raise NotVerified(error) from None
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _sweep_scratch() -> None:
    """Remove what killed runs of ours left in the temporary folder."""
    for left in Path(tempfile.gettempdir()).glob(f"{_SCRATCH}*"):
        with suppress(OSError):
            if left.stat().st_uid != os.getuid() or time.time() - left.stat().st_mtime < 60:
                continue
            with (left / "serve.lock").open() as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
