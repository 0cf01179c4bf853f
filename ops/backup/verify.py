"""Proving a backup: it is restored into servers of our own, and every conversation there is compared with it."""

import fcntl
import multiprocessing
import os
import shutil
import tempfile
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from itertools import cycle, islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import django
import orjson
from pymongo import MongoClient
from redis import Redis

import embedded
from conversations.errors import BadSnapshot, ConversationError
from conversations.stores import ALIASES, MONGO, REDIS
from conversations.stores.redis.client import tombstone_key
from conversations.stores.sessions import make_key
from conversations.turns import Limits
from embedded import children
from ops import direct
from ops.backup import store_snapshot
from ops.backup.archive import Archive, Record, counted, in_batches
from ops.backup.restore import MongoTarget, RedisTarget, Target, load

_ALL = Limits(ttl=2**31, max_turns=2**31, max_bytes=2**40)
_WINDOW = 1500  # lines that are restored and compared at a time: what a backup of any size needs of memory
_BATCH = 500
_SCRATCH = "onesource-verify-"
_OF_REDIS = b'{"store":"redis",'

Advance = Callable[[int, int], None]


class NotVerified(ConversationError):
    """The backup could not be tried out"""


def verify(path: Path, advance: Advance) -> dict[str, Any]:
    """Restore the backup into servers of our own, some thousand conversations at a time; compare each of them with
    it, and return how many there were, how many differ, and what the Redis snapshot beside them has. Raise BadBackup
    where the file itself is not whole."""
    _sweep_scratch()
    with Archive(path) as archive, _throwaway() as (urls, home), _another_process() as other:
        archive.check_dump()
        redis = other.submit(_try_out_there, os.getpid(), path, urls[REDIS])
        found = {MONGO: _try_out(path, MONGO, urls[MONGO], advance), REDIS: redis.result()}
        return {
            "file": str(path),
            "created": archive.manifest["created"],
            "conversations": {alias: found[alias]["found"] for alias in ALIASES},
            "differing": sum(one["differing"] for one in found.values()),
            "snapshot": archive.manifest["snapshot"],
            **(_snapshot(archive, home) if archive.has_dump else {"snapshot_keys": None, "snapshot_error": ""}),
        }


def _snapshot(archive: Archive, home: Path) -> dict[str, Any]:
    """Return how many keys the snapshot has, or why it cannot be read: the conversations can be restored without."""
    try:
        return {"snapshot_keys": store_snapshot.count_keys(archive, home), "snapshot_error": ""}
    except BadSnapshot as error:
        return {"snapshot_keys": None, "snapshot_error": str(error)}


def _try_out(path: Path, alias: str, url: str, advance: Advance = lambda done, total: None) -> Counter[str]:
    """Restore what the backup has of one store; return how many conversations were `found`, and how many were
    `differing`."""
    result = Counter[str]()
    with ExitStack() as stack, ThreadPoolExecutor(1) as hand:
        archive = stack.enter_context(Archive(path))
        # Two, so that one is compared while the other is restored.
        trials = cycle([stack.enter_context(_TRIALS[alias](url, number)) for number in range(2)])
        every = counted(enumerate(archive.raw(), 1), advance, archive.lines)
        ours = (archive.parse(*each) for each in every if each[1].startswith(_OF_REDIS) == (alias == REDIS))
        comparing: Future[None] | None = None
        for records in in_batches(ours, _WINDOW):
            trial = next(trials)
            # The servers are nobody's: damage that is met half way harms nothing, and one pass is saved.
            load(records, trial.target, _ALL)
            if comparing:
                comparing.result()
            comparing = hand.submit(trial.compare, records, result)
        if comparing:
            comparing.result()
    return result


class _Trial(ABC):
    """Room for some conversations in a throwaway store."""

    target: Target

    def compare(self, records: list[Record], result: Counter[str]) -> None:
        """Count which of the records are in the store exactly as in the backup, and what else is there; then make
        room for others."""
        wanted = {make_key(record.session): record for record in records}
        result["differing"] += len(records) - len(wanted)  # no session is there twice
        for key, messages, tombstone in self.held(list(wanted)):
            record = wanted.pop(key, None)
            same = record and messages == [message.as_dict() for message in record.history]
            result["found"] += bool(messages)
            result["differing"] += not (same and record and tombstone == (record.tombstone or ""))
        result["differing"] += len(wanted)
        self.clear()

    @abstractmethod
    def held(self, keys: list[str]) -> Iterator[tuple[str, Any, str]]:
        """Yield all that the store holds, under these keys and any other: its key, messages and tombstone."""

    @abstractmethod
    def clear(self) -> None:
        """Leave nothing."""


class _RedisTrial(_Trial):
    def __init__(self, redis: Any) -> None:
        self._redis = redis
        self.target = RedisTarget(redis, _ALL)

    @classmethod
    @contextmanager
    def of(cls, url: str, number: int) -> Iterator["_RedisTrial"]:
        database = urlsplit(url)._replace(path=f"/{number}").geturl()
        with Redis.from_url(database, socket_timeout=direct.PATIENCE) as redis:
            yield cls(redis)

    def held(self, keys: list[str]) -> Iterator[tuple[str, Any, str]]:
        pending, seen = iter(keys), 0
        while batch := list(islice(pending, _BATCH)):
            with direct.patient(REDIS):
                values = self._redis.mget([*batch, *map(tombstone_key, batch)])
            for key, value, tombstone in zip(batch, values, values[len(batch) :], strict=False):
                seen += (value is not None) + (tombstone is not None)
                messages = orjson.loads(b"[%s]" % (value or b"")[:-1].replace(b"\n", b","))
                if messages or tombstone:
                    yield key, messages, (tombstone or b"").decode()
        with direct.patient(REDIS):
            yield from [("", None, "")] * (self._redis.dbsize() - seen)

    def clear(self) -> None:
        with direct.patient(REDIS):
            self._redis.flushdb()


class _MongoTrial(_Trial):
    def __init__(self, documents: direct.Documents) -> None:
        self._documents = documents
        self.target = MongoTarget(documents, _ALL, None)

    @classmethod
    @contextmanager
    def of(cls, url: str, number: int) -> Iterator["_MongoTrial"]:
        with MongoClient[dict[str, Any]](url, tz_aware=True, journal=False) as mongo:
            yield cls(mongo["verify"][f"conversations{number}"])

    def held(self, keys: list[str]) -> Iterator[tuple[str, Any, str]]:
        with direct.patient(MONGO):
            for document in self._documents.find({}):
                yield document["_id"], document["messages"], document.get("tombstone", "")

    def clear(self) -> None:
        with direct.patient(MONGO):
            self._documents.drop()


_TRIALS = {REDIS: _RedisTrial.of, MONGO: _MongoTrial.of}


def _another_process() -> ProcessPoolExecutor:
    """Return what gives half of the work a processor of its own."""
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=django.setup)


def _try_out_there(parent: int, path: Path, url: str) -> Counter[str]:
    if parent != os.getpid():
        children.die_with_parent(parent)
        direct.collect_seldom()
    return _try_out(path, REDIS, url)


@contextmanager
def _throwaway() -> Iterator[tuple[dict[str, str], Path]]:
    """Start an empty Redis and an empty Mongo of our own; they end, and their data goes, with us."""
    home = Path(tempfile.mkdtemp(prefix=_SCRATCH))
    try:
        for name in ALIASES:
            (home / f"{name}.port").write_text(str(children.free_port()))
        with embedded.start(home, redis=True, mongo=True, lasting=False) as stores:
            yield stores.urls, home
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
