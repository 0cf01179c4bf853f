"""Redis in bulk: pipelines of few commands, so that turns have theirs in between."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any

from conversations.errors import CorruptHistory, StoreUnavailable
from conversations.ids import MESSAGE_ID
from conversations.merge import digest_of
from conversations.stores.base import Contents, HistoryStore, tombstone_in
from conversations.stores.batches import PATIENCE, Deadline, batches
from conversations.stores.bulk import Attempt, BulkStore, Removal, Share
from conversations.stores.bulk_reader import Entry, Found, Memory
from conversations.stores.redis.client import FLAGS, TAIL, HistorySerializer, histories, tombstone_key
from conversations.stores.redis.entries import entries
from conversations.stores.redis.format import flag_bytes, flag_text, kept_arguments, keys_of, turn_ids
from conversations.stores.redis.keys import used_keys_key
from conversations.stores.redis.patient import (
    Cache,
    answers,
    errors,
    is_wrong_type,
    no_error,
    patient_client,
    scan,
    turns_client,
)
from conversations.stores.redis.put import put
from conversations.stores.redis.scripts import source
from conversations.stores.sessions import is_key, make_key
from conversations.turns import SESSION, History
from conversations.used_keys import Keys

BATCH = 50  # commands at a time: together well below a millisecond of Redis' only thread
PAUSE = 0.002  # seconds in which other clients have their turn
_SCAN = 200
_SAMPLE = 1000  # keys that tell which part of them are conversations
_TOMBSTONES = "tomb:{conv:*}"
_LASTING = ("conv:*", "tomb:{conv:*", "corrupt:{conv:*")


class RedisBulk(BulkStore):
    """Many conversations of Redis; removing and trimming are one Lua script each."""

    supports_memory = True
    expired_name = "keys_without_ttl"

    def __init__(self, store: HistoryStore, cache: Cache = histories) -> None:
        super().__init__(store)
        self._cache = cache

    # --- Reading ---------------------------------------------------------------------------------------

    def present(self, sessions: Collection[str]) -> set[str]:
        found = self._each(sessions, lambda pipeline, key: pipeline.exists(key))
        return {session for session, there in found if there}

    def contents(self, sessions: Collection[str]) -> dict[str, Found]:
        names = list(sessions)
        if not names:
            return {}
        try:
            return self._contents(names)
        except StoreUnavailable:
            if len(names) == 1:
                raise
            half = len(names) // 2  # a batch of long ones may take longer than one answer may
            return self.contents(names[:half]) | self.contents(names[half:])

    def _contents(self, names: list[str]) -> dict[str, Found]:
        """Return what a batch of sessions holds, within a turn's timeout."""
        pipeline = turns_client(self._cache).pipeline(transaction=False)
        for session in names:
            key = make_key(session)
            pipeline.get(key).get(tombstone_key(key)).hget(FLAGS, session)
            pipeline.zrange(used_keys_key(key), 0, -1, withscores=True)
        found = answers(pipeline, raising=False)
        return {
            session: _found(session, *found[place : place + 4])
            for session, place in zip(names, range(0, len(found), 4), strict=True)
        }

    def digests(self, sessions: Collection[str]) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for names in batches(sessions, BATCH):
            pipeline = patient_client(self._cache).pipeline(transaction=False)
            for key in map(make_key, names):
                pipeline.get(key).get(tombstone_key(key))
            held = answers(pipeline, raising=False)
            for session, value, deleted in zip(names, held[::2], held[1::2], strict=True):
                if digest := _digest(session, value, deleted):
                    found[session] = digest
            time.sleep(PAUSE)
        return found

    def last_ids(self, sessions: Collection[str]) -> dict[str, str]:
        ends = self._each(sessions, lambda pipeline, key: pipeline.getrange(key, -TAIL, -1))
        found = {session: _id_in(end) for session, end in ends}
        return {session: last for session, last in found.items() if MESSAGE_ID.fullmatch(last)}

    def histories(self, sessions: Collection[str]) -> dict[str, History]:
        values = self._each(sessions, lambda pipeline, key: pipeline.get(key))
        found = ((session, _history(value)) for session, value in values)
        return {session: history for session, history in found if history}

    def ttls(self, sessions: Collection[str]) -> dict[str, int]:
        found = self._each(sessions, lambda pipeline, key: pipeline.ttl(key))
        return {session: self.limits.ttl if ttl == -1 else ttl for session, ttl in found if ttl != -2}

    def tombstones(self, size: int) -> Iterator[dict[str, str]]:
        for keys in scan(_TOMBSTONES, max(size, _SCAN), self._cache):
            pipeline = patient_client(self._cache).pipeline(transaction=False)
            for key in keys:
                pipeline.get(key)
            names = [key.decode(errors="replace")[len(_TOMBSTONES) - 2 : -1] for key in keys]
            held = zip(names, answers(pipeline, raising=False), strict=True)
            found = {name: tombstone_in(self.alias, name, no_error(value)) for name, value in held}
            yield {name: tombstone for name, tombstone in found.items() if tombstone}

    def entries(self, size: int) -> Iterator[list[Entry]]:
        return entries(patient_client(self._cache), partial(scan, count=size, cache=self._cache))

    def estimate(self, seconds: float = PATIENCE) -> int:
        deadline = Deadline(self.alias, seconds)
        self.store.ping()  # which fails fast
        with errors():
            size = int(turns_client(self._cache).dbsize())
            seen, complete = _sample(turns_client(self._cache), deadline)
        ours = sum(1 for key in seen if key.startswith(b"conv:"))
        return ours if complete else round(size * ours / len(seen))

    # --- Changing --------------------------------------------------------------------------------------

    def _put(self, shares: Sequence[Share], replace: bool) -> Attempt:
        return put(patient_client(self._cache), self.store, shares, replace)

    def keep_keys(self, keys: Mapping[str, Keys]) -> None:
        client = patient_client(self._cache)
        keep = client.register_script(source("keep_keys"))
        for batch in batches(keys.items(), BATCH):
            pipeline = client.pipeline(transaction=False)
            for session, each in batch:
                keep([used_keys_key(make_key(session))], kept_arguments(each), client=pipeline)
            answers(pipeline)

    def remove(self, last_ids: Mapping[str, str], *, tombstones: bool) -> Removal:
        found = self._run("remove", last_ids, tombstones)
        return Removal(
            frozenset(session for session, answer in found.items() if answer == 1),
            frozenset(session for session, answer in found.items() if answer == -1),
        )

    def trim(self, ends: Mapping[str, str], *, tombstones: bool) -> None:
        self._run("trim", ends, tombstones)

    def expire(self, *, apply: bool) -> int:
        # Redis removes what has expired by itself.
        steps = chain.from_iterable(scan(pattern, _SCAN, self._cache) for pattern in _LASTING)
        keys = ([key for key in step if _is_ours(key)] for step in steps)
        return sum(self._give_ttl(batch, apply) for step in keys for batch in batches(step, BATCH))

    def _give_ttl(self, keys: list[bytes], apply: bool) -> int:
        """Give a TTL to those of the keys that have none; return how many those are."""
        pipeline = patient_client(self._cache).pipeline(transaction=False)
        for key in keys:
            pipeline.ttl(key)
        lasting = [key for key, ttl in zip(keys, answers(pipeline), strict=True) if ttl == -1]
        for key in lasting if apply else ():
            # A turn or deletion in between has set the same.
            pipeline.expire(key, self.store.tombstone_ttl if key.startswith(b"tomb:") else self.limits.ttl)
        answers(pipeline)
        time.sleep(PAUSE)
        return len(lasting)

    # --- Unsynced flags --------------------------------------------------------------------------------

    def flagged(self, size: int) -> Iterator[list[str]]:
        return batches(filter(SESSION.fullmatch, chain.from_iterable(self._flagged(size))), size)

    def _flagged(self, size: int) -> Iterator[list[str]]:
        """Yield the names in the hash, a step of HSCAN at a time."""
        client, cursor = patient_client(self._cache), 0
        while True:
            with errors():
                cursor, fields = client.hscan(FLAGS, int(cursor), count=size)
            yield [flag_text(field) for field in fields]
            if not int(cursor):
                return

    def clear_flags(self, values: Mapping[str, str]) -> None:
        if values:
            clear = turns_client(self._cache).register_script(source("clear_flag"))
            with errors():
                clear([FLAGS], list(chain.from_iterable((name, flag_bytes(flag)) for name, flag in values.items())))

    # --- Memory ----------------------------------------------------------------------------------------

    def memory(self) -> Memory:
        with errors():
            found = patient_client(self._cache).info("memory")
        return Memory(int(found["used_memory"]), int(found.get("maxmemory", 0)))

    def sizes(self, sessions: Collection[str]) -> dict[str, int]:
        found = self._each(sessions, lambda pipeline, key: pipeline.memory_usage(key))
        return {session: size or 0 for session, size in found}

    # --- Pipelines -------------------------------------------------------------------------------------

    def _each(self, sessions: Collection[str], command: Callable[[Any, str], Any]) -> Iterator[tuple[str, Any]]:
        """Yield the answer of one command for each session, None where something of another type is there."""
        for names in batches(sessions, BATCH):
            pipeline = patient_client(self._cache).pipeline(transaction=False)
            for name in names:
                command(pipeline, make_key(name))
            found = answers(pipeline, raising=False)
            time.sleep(PAUSE)
            yield from zip(names, map(no_error, found), strict=True)

    def _run(self, script: str, ids: Mapping[str, str], tombstones: bool) -> dict[str, int]:
        """Run a script on each session with its id; return its answers."""
        run = patient_client(self._cache).register_script(source(script))
        ttl = self.store.tombstone_ttl if tombstones else 0
        found: dict[str, int] = {}
        for names in batches(list(ids), BATCH):
            pipeline = patient_client(self._cache).pipeline(transaction=False)
            for key, id_ in ((make_key(name), ids[name]) for name in names):
                run([key, tombstone_key(key)], [id_, ttl], client=pipeline)
            found |= zip(names, map(int, answers(pipeline)), strict=True)
            time.sleep(PAUSE)
        return found


def _found(session: str, value: Any, tombstone: Any, flag: Any, keys: Any) -> Found:
    if any(is_wrong_type(answer) for answer in (value, flag)):
        return CorruptHistory("redis", "ResponseError")
    value, tombstone, flag, keys = map(no_error, (value, tombstone, flag, keys))
    try:
        history = None if value is None else HistorySerializer({}).loads(value)
    except CorruptHistory as error:
        return error
    return Contents(
        history, tombstone_in("redis", session, tombstone), flag_text(flag) if flag else None, keys_of(keys)
    )


def _digest(session: str, value: Any, deleted: Any) -> bytes | None:
    tombstone = tombstone_in("redis", session, no_error(deleted))
    ids = [] if value is None else turn_ids(no_error(value) or b"")
    return None if ids is None else digest_of(ids, tombstone)


def _id_in(end: Any) -> str:
    """Return the id in the end of a conversation's last line, if there is one."""
    return end[6:42].decode("ascii", "replace") if end else ""


def _history(value: Any) -> History | None:
    try:
        return None if value is None else HistorySerializer({}).loads(value)
    except CorruptHistory:
        return None


def _is_ours(key: bytes) -> bool:
    """Return whether it is no conversation's key, or the key of one whose name can be a session's."""
    return not key.startswith(b"conv:") or is_key(key.decode(errors="replace"))


def _sample(client: Any, deadline: Deadline) -> tuple[list[bytes], bool]:
    """Return some keys, whatever they are of, and whether those are all."""
    seen: list[bytes] = []
    cursor = 0
    while len(seen) < _SAMPLE:
        deadline.check()
        cursor, keys = client.scan(int(cursor), count=_SAMPLE)
        seen += keys
        if not int(cursor):
            return seen, True
    return seen, False
