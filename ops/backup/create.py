"""Backups: one file of both stores, made atomically, and kept so many of."""

import fcntl
import os
import re
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
from django.conf import settings

from conversations.errors import ConversationError, NoStore
from conversations.runtime.sampling import NOTE
from conversations.stores import ALIASES, MONGO, REDIS, store
from conversations.stores.redis.client import HistorySerializer
from conversations.stores.sessions import make_key, session_of
from conversations.turns import MESSAGE_ID, History, now, stamp
from ops import direct
from ops.backup import store_snapshot
from ops.backup.archive import FORMAT, MAX_LINE, VERSION, Writer, is_ours

NAME = re.compile(r"onesource-\d{8}T\d{6}Z\.tar")
_PAGE = 250

Advance = Callable[[int, int], None]


class BackupRunning(ConversationError):
    """Another backup is being written to this folder"""


@dataclass(frozen=True, slots=True)
class Made:
    """A backup that is there now."""

    path: Path
    bytes: int
    manifest: dict[str, Any]
    removed: tuple[str, ...]
    missing: tuple[str, ...]
    """The stores that could not be reached, and are not in it."""


def create(folder: Path, keep: int, advance: Advance) -> Made:
    """Write a backup of the stores that can be reached; with both in it, remove the oldest beyond `keep`.

    Raise NoStore, BackupRunning, StoreUnavailable or OSError with nothing left behind.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _alone(folder):
        aliases = direct.reachable()
        if not aliases:
            raise NoStore
        with _writer(folder) as (writer, created):
            census = _Census()
            writer.add_lines(census.lines(aliases, created, advance))
            dump = store_snapshot.add(writer) if REDIS in aliases else "none: Redis could not be reached"
            manifest = {
                "format": FORMAT,
                "version": VERSION,
                "created": stamp(created),
                "tool": f"onesource {settings.VERSION}",
                "stores": list(aliases),
                "counts": {alias: dict(census.counts[alias]) for alias in aliases},
                "snapshot": dump,
            }
            size = writer.finish(manifest)
        missing = tuple(alias for alias in ALIASES if alias not in aliases)
        removed = () if missing else _retain(folder, keep, writer.path)
        if not missing:
            for alias in aliases:
                store(alias).write_note(NOTE, stamp(created))
        return Made(writer.path, size, manifest, removed, missing)


class _Census:
    """Reads the stores line by line, and counts."""

    def __init__(self) -> None:
        self.counts = {alias: Counter(conversations=0, turns=0, tombstones=0, corrupt=0) for alias in ALIASES}
        self._parse = HistorySerializer({}).loads

    def lines(self, aliases: Iterable[str], created: datetime, advance: Advance) -> Iterator[bytes]:
        """Return what the stores have, a page of each in turn: one store reads while the other one's is packed."""
        read = {REDIS: self._redis, MONGO: self._mongo}
        expected = sum(map(_about, aliases))
        number = 0
        unread = deque(read[alias](created) for alias in aliases)
        while unread:
            pages = unread.popleft()
            if (page := next(pages, None)) is not None:
                unread.append(pages)
                yield from page
                number += len(page)
                advance(number, max(number, expected))

    def _redis(self, created: datetime) -> Iterator[list[bytes]]:
        for read, page in direct.ahead(_redis_pages()):
            since = int((read - created).total_seconds())
            yield list(filter(None, (self._redis_line(*each, since) for each in page)))

    def _redis_line(self, session: str, value: Any, ttl: Any, tombstone: Any, since: int) -> bytes:
        history = History()
        messages: list[bytes] = []
        try:
            make_key(session)
            if isinstance(value, bytes):
                history = self._parse(value)
                messages = value[:-1].split(b"\n")
            elif value is not None:
                raise ValueError("not a string")
        except (ConversationError, ValueError):
            self.counts[REDIS]["corrupt"] += 1
        seconds = ttl + since if isinstance(ttl, int) and ttl >= 0 else None
        buried = tombstone.decode(errors="replace") if isinstance(tombstone, bytes) else None
        return self._line(REDIS, session, seconds, buried, history, messages)

    def _mongo(self, created: datetime) -> Iterator[list[bytes]]:
        for page in direct.ahead(direct.pages({}, _PAGE)):
            time = now()
            yield list(filter(None, (self._mongo_line(document, time, created) for document in page)))

    def _mongo_line(self, document: dict[str, Any], time: datetime, created: datetime) -> bytes:
        expiry, session = document.get("expires_at"), session_of(str(document["_id"]))
        if expiry is None or expiry.replace(tzinfo=time.tzinfo) <= time:
            return b""
        history = History()
        records: Any = document.get("messages")
        try:
            make_key(session)
            if records != []:
                history = History.parse(records)
        except (TypeError, ValueError):
            self.counts[MONGO]["corrupt"] += 1
        seconds = int((expiry.replace(tzinfo=time.tzinfo) - created).total_seconds())
        messages = [message.line()[:-1] for message in history]
        return self._line(MONGO, session, seconds, document.get("tombstone"), history, messages)

    def _line(
        self, alias: str, session: str, ttl: int | None, tombstone: str | None, history: History, messages: list[bytes]
    ) -> bytes:
        """Return the line of a conversation, counted; nothing for one that is none."""
        if tombstone and not MESSAGE_ID.fullmatch(tombstone):
            self.counts[alias]["corrupt"] += 1
            tombstone = None
        if not (history or tombstone):
            return b""
        head = orjson.dumps({"store": alias, "session": session, "ttl": ttl, "tombstone": tombstone})
        line = b'%s,"messages":[%s]}\n' % (head[:-1], b",".join(messages))
        if len(line) > MAX_LINE:
            self.counts[alias]["corrupt"] += 1
            return b""
        self.counts[alias].update(conversations=bool(history), turns=len(history) // 2, tombstones=bool(tombstone))
        return line


def _redis_pages() -> Iterator[tuple[datetime, list[tuple[str, Any, Any, Any]]]]:
    """Return all sessions by the page, each once, with their values, TTLs and tombstones, and when they were read."""
    client = direct.redis()
    seen: set[int] = set()  # SCAN may name a key twice
    for pattern, begin, end in ((b"conv:*", 5, None), (b"tomb:{conv:*}", 11, -1)):
        cursor = 0
        while True:
            cursor, keys = direct.step(client, pattern.decode(), cursor, _PAGE)
            names = [name for name in {key[begin:end] for key in keys} if hash(name) not in seen]
            seen.update(map(hash, names))
            pipeline = client.pipeline(transaction=False)
            for name in names:
                pipeline.get(b"conv:" + name).ttl(b"conv:" + name).get(b"tomb:{conv:%s}" % name)
            with direct.patient(REDIS):
                answers = pipeline.execute(raise_on_error=False)
            sessions = [name.decode(errors="replace") for name in names]
            yield now(), list(zip(sessions, answers[::3], answers[1::3], answers[2::3], strict=True))
            if not cursor:
                break


def _about(alias: str) -> int:
    """Return about how many conversations a store has, at once."""
    with direct.patient(alias):
        return int(direct.redis().dbsize() if alias == REDIS else direct.documents().estimated_document_count())


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder; what a dead run left in it is removed. The lock ends with the process that holds it."""
    lock = os.open(folder / ".onesource-backup.lock", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BackupRunning(folder) from None
        for left in folder.glob(".onesource-*.part"):
            left.unlink(missing_ok=True)
        yield
    finally:
        os.close(lock)


@contextmanager
def _writer(folder: Path) -> Iterator[tuple[Writer, datetime]]:
    """Begin a backup under a name of this second, or of the next one that is free."""
    while True:
        created = now()
        writer = Writer(folder, created)
        with writer:
            if not writer.path.exists():
                yield writer, created
                return
        time.sleep(0.2)


def _retain(folder: Path, keep: int, newest: Path) -> tuple[str, ...]:
    """Remove the oldest of our own complete backups beyond so many; nothing else, whatever its name."""
    named = sorted(path for path in folder.iterdir() if NAME.fullmatch(path.name) and not path.is_symlink())
    surplus = [path for path in named if path != newest and is_ours(path)][: -(keep - 1) or None]
    for path in surplus:
        path.unlink()
    return tuple(path.name for path in surplus)
