"""Redis read in bulk: pipelines of few commands, so that turns have theirs in between."""

import time
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from itertools import chain
from typing import Any

from conversations.errors import CorruptHistory, StoreUnavailable
from conversations.ids import MESSAGE_ID
from conversations.merge import digest_of
from conversations.stores.base import Contents, HistoryStore, tombstone_in
from conversations.stores.batches import PATIENCE, Deadline, batches
from conversations.stores.bulk_reader import BulkReader, Entry, Found, Memory, UsersPage
from conversations.stores.redis.client import histories
from conversations.stores.redis.cluster import servers
from conversations.stores.redis.entries import entries
from conversations.stores.redis.format import TAIL, flag_text, keys_of, stamps, turn_ids
from conversations.stores.redis.keys import (
    CONVERSATIONS,
    QUARANTINED,
    TOMBSTONES,
    matches,
    name_in,
    quarantine_key,
    tombstone_key,
    used_keys_key,
)
from conversations.stores.redis.lines import whole
from conversations.stores.redis.patient import (
    BATCH,
    PAUSE,
    SCAN,
    Cache,
    answers,
    errors,
    is_wrong_type,
    no_error,
    patient_client,
    scan,
    turns_client,
)
from conversations.stores.redis.scripts import source
from conversations.stores.sessions import KEY_BEGINS, is_of, make_key
from conversations.turns import SESSION, History

_SAMPLE = 1000  # keys that tell which part of them are conversations


class RedisReader(BulkReader):
    """Many conversations of Redis, and its memory."""

    supports_memory = True

    def __init__(self, store: HistoryStore, cache: Cache = histories) -> None:
        super().__init__(store)
        self._cache = cache

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
        flags = self._cache().client.flags
        for session in names:
            key = make_key(session)
            pipeline.get(key).get(tombstone_key(key)).hget(flags.key(key), session)
            pipeline.zrange(used_keys_key(key), 0, -1, withscores=True)
        found = answers(pipeline, raising=False)
        return {
            session: _found(session, self.limits.max_turns, *found[place : place + 4])
            for session, place in zip(names, range(0, len(found), 4), strict=True)
        }

    def digests(self, sessions: Collection[str]) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for names in batches(sessions, BATCH):
            pipeline = self._pipeline()
            for key in map(make_key, names):
                pipeline.get(key).get(tombstone_key(key))
            held = answers(pipeline, raising=False)
            for session, value, deleted in zip(names, held[::2], held[1::2], strict=True):
                if digest := _digest(session, value, deleted, self.limits.max_turns):
                    found[session] = digest
            time.sleep(PAUSE)
        return found

    def last_ids(self, sessions: Collection[str]) -> dict[str, str]:
        ends = self._each(sessions, lambda pipeline, key: pipeline.getrange(key, -TAIL, -1))
        found = {session: stamps(end or b"")[0] for session, end in ends}
        return {session: last for session, last in found.items() if MESSAGE_ID.fullmatch(last)}

    def histories(self, sessions: Collection[str]) -> dict[str, History]:
        values = self._each(sessions, lambda pipeline, key: pipeline.get(key))
        found = ((session, _history(value, self.limits.max_turns)) for session, value in values)
        return {session: history for session, history in found if history}

    def all_sizes(self, size: int) -> Iterator[dict[str, int]]:
        for names in self.sessions(size):
            found = self._each(filter(SESSION.fullmatch, names), lambda pipeline, key: pipeline.strlen(key))
            yield {session: length or 0 for session, length in found}

    def ttls(self, sessions: Collection[str]) -> dict[str, int]:
        found = self._each(sessions, lambda pipeline, key: pipeline.ttl(key))
        return {session: self.limits.ttl if ttl == -1 else ttl for session, ttl in found if ttl != -2}

    def tombstones(self, size: int) -> Iterator[dict[str, str]]:
        for keys in scan(TOMBSTONES, max(size, SCAN), self._cache):
            pipeline = self._pipeline()
            for key in keys:
                pipeline.get(key)
            names = [name_in(key, TOMBSTONES).decode(errors="replace") for key in keys]
            held = zip(names, answers(pipeline, raising=False), strict=True)
            found = {name: tombstone_in(self.alias, name, no_error(value)) for name, value in held}
            yield {name: tombstone for name, tombstone in found.items() if tombstone}

    def entries(self, size: int) -> Iterator[list[Entry]]:
        read = partial(scan, count=size, cache=self._cache)
        return entries(patient_client(self._cache), read, self.limits.max_turns)

    def estimate(self, seconds: float = PATIENCE) -> int:
        deadline = Deadline(self.alias, seconds)
        self.store.ping()  # which fails fast
        with errors():
            return sum(_estimate(server, deadline) for server in servers(turns_client(self._cache)))

    def flagged(self, size: int) -> Iterator[list[str]]:
        return batches(filter(SESSION.fullmatch, chain.from_iterable(self._flagged(size))), size)

    def _flagged(self, size: int) -> Iterator[list[str]]:
        """Yield the names in the hashes, a step at a time."""
        with errors():
            yield from self._cache().client.flags.walk(patient_client(self._cache), size)

    def of_user(self, user: str, tenant: str, size: int) -> Iterator[UsersPage]:
        for names in self.sessions(max(size, SCAN)):
            found = {session for session, _, users in self._places(names) if user in users and is_of(session, tenant)}
            yield UsersPage(len(names), frozenset(found))
        place = patient_client(self._cache).register_script(source("place"))
        for keys in scan(QUARANTINED, max(size, SCAN), self._cache):
            pipeline = self._pipeline()
            for key in keys:
                place([key], client=pipeline)
            held = zip(map(_session_in_copy, keys), answers(pipeline), strict=True)
            of_user = {session for session, answer in held if answer and user.encode() in answer[1:]}
            named = filter(partial(is_of, tenant=tenant), filter(SESSION.fullmatch, of_user))
            yield UsersPage(0, frozenset(named), quarantined=True)

    def memory(self) -> Memory:
        with errors():
            return _together([_memory(server) for server in servers(patient_client(self._cache))])

    def sizes(self, sessions: Collection[str]) -> dict[str, int]:
        found = self._each(sessions, lambda pipeline, key: pipeline.memory_usage(key))
        return {session: size or 0 for session, size in found}

    def _places(self, names: Iterable[str]) -> Iterator[tuple[str, bytes, list[str]]]:
        """Yield the end of the last line of each session that there is, and its users."""
        place = patient_client(self._cache).register_script(source("place"))
        sessions = list(filter(SESSION.fullmatch, names))
        for session, found in self._each(sessions, lambda pipeline, key: place([key], client=pipeline)):
            if found is not None:
                yield session, found[0], [user.decode(errors="replace") for user in found[1:]]

    def _pipeline(self) -> Any:
        return patient_client(self._cache).pipeline(transaction=False)

    def _each(self, sessions: Iterable[str], command: Callable[[Any, str], Any]) -> Iterator[tuple[str, Any]]:
        """Yield the answer of one command for each session, None where something of another type is there."""
        for names in batches(sessions, BATCH):
            pipeline = self._pipeline()
            for name in names:
                command(pipeline, make_key(name))
            found = answers(pipeline, raising=False)
            time.sleep(PAUSE)
            yield from zip(names, map(no_error, found), strict=True)


def _session_in_copy(key: bytes) -> str:
    """Return whose quarantined copy has that key."""
    return key.removeprefix(quarantine_key(KEY_BEGINS)[:-1].encode()).rpartition(b"}")[0].decode(errors="replace")


def _found(session: str, most_turns: int, value: Any, tombstone: Any, flag: Any, keys: Any) -> Found:
    if any(is_wrong_type(answer) for answer in (value, flag)):
        return CorruptHistory("redis", "ResponseError")
    value, tombstone, flag, keys = map(no_error, (value, tombstone, flag, keys))
    try:
        history = None if value is None else whole(value, most_turns)
    except CorruptHistory as error:
        return error
    return Contents(
        history, tombstone_in("redis", session, tombstone), flag_text(flag) if flag else None, keys_of(keys)
    )


def _digest(session: str, value: Any, deleted: Any, most_turns: int) -> bytes | None:
    tombstone = tombstone_in("redis", session, no_error(deleted))
    ids = [] if value is None else turn_ids(no_error(value) or b"")
    return None if ids is None else digest_of(ids[-most_turns:], tombstone)


def _history(value: Any, most_turns: int) -> History | None:
    try:
        return None if value is None else whole(value, most_turns)
    except CorruptHistory:
        return None


def _estimate(client: Any, deadline: Deadline) -> int:
    size = int(client.dbsize())
    seen, complete = _sample(client, deadline)
    ours = sum(1 for key in seen if matches(key, CONVERSATIONS))
    return ours if complete else round(size * ours / len(seen))


def _memory(client: Any) -> Memory:
    found = client.info("memory")
    return Memory(int(found["used_memory"]), int(found.get("maxmemory", 0)))


def _together(each: list[Memory]) -> Memory:
    """Return the memory of all masters as if each were as full as the fullest: that one refuses turns first."""
    limit = sum(one.limit for one in each) if all(one.limit for one in each) else 0
    used = max(one.used / one.limit for one in each) * limit if limit else sum(one.used for one in each)
    return Memory(round(used), limit)


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
