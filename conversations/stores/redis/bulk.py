"""What operators' commands, and repair, change in Redis in bulk: few commands at a time, so that turns have theirs in
between."""

import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from conversations import clock
from conversations.ids import is_stamped
from conversations.stores.base import NO_TIME
from conversations.stores.batches import batches
from conversations.stores.bulk import Attempt, BulkStore, Removal, Share
from conversations.stores.redis.bulk_reader import RedisReader
from conversations.stores.redis.format import flag_bytes, kept_arguments, stamps
from conversations.stores.redis.kept import Command
from conversations.stores.redis.keys import (
    CONVERSATIONS,
    QUARANTINED,
    TENANTS,
    TOMBSTONES,
    matches,
    newest_key,
    tombstone_key,
    used_keys_key,
    user_key,
)
from conversations.stores.redis.newest import Change, adding, removing
from conversations.stores.redis.patient import (
    BATCH,
    PAUSE,
    SCAN,
    answers,
    errors,
    no_error,
    patient_client,
    scan,
    turns_client,
)
from conversations.stores.redis.put import put
from conversations.stores.redis.scripts import source
from conversations.stores.sessions import is_key, make_key, tenant_of
from conversations.used_keys import Keys

_LASTING = (CONVERSATIONS, TOMBSTONES, QUARANTINED)


class RedisBulk(RedisReader, BulkStore):
    """Many conversations of Redis; putting, removing and trimming are one Lua script for each of them."""

    expired_name = "keys_without_ttl"

    def _put(self, shares: Sequence[Share], replace: bool) -> Attempt:
        self._list({share.session: Change.of(share.turns) for share in shares if share.turns})
        return put(patient_client(self._cache), self.store, shares, replace)

    def keep_keys(self, keys: Mapping[str, Keys]) -> None:
        keep = patient_client(self._cache).register_script(source("keep_keys"))
        for batch in batches(keys.items(), BATCH):
            pipeline = self._pipeline()
            for session, each in batch:
                keep([used_keys_key(make_key(session))], kept_arguments(each), client=pipeline)
            answers(pipeline)

    def remove(self, last_ids: Mapping[str, str], *, tombstones: bool) -> Removal:
        found = self._run("remove", last_ids, tombstones)
        removed = frozenset(session for session, answer in found.items() if answer == 1)
        self._send([command for session in removed for command in removing(session)])
        return Removal(removed, frozenset(session for session, answer in found.items() if answer == -1))

    def trim(self, ends: Mapping[str, str], *, tombstones: bool) -> None:
        self._run("trim", ends, tombstones)

    def expire(self, *, apply: bool) -> int:
        # Redis removes what has expired by itself.
        steps = chain.from_iterable(scan(pattern, SCAN, self._cache) for pattern in _LASTING)
        keys = ([key for key in step if _is_ours(key)] for step in steps)
        return sum(self._give_ttl(batch, apply) for step in keys for batch in batches(step, BATCH))

    def _give_ttl(self, keys: list[bytes], apply: bool) -> int:
        """Give a TTL to those of the keys that have none; return how many those are."""
        pipeline = self._pipeline()
        for key in keys:
            pipeline.ttl(key)
        lasting = [key for key, ttl in zip(keys, answers(pipeline), strict=True) if ttl == -1]
        for key in lasting if apply else ():
            # A turn or deletion in between has set the same.
            pipeline.expire(key, self.store.tombstone_ttl if matches(key, TOMBSTONES) else self.limits.ttl)
        answers(pipeline)
        time.sleep(PAUSE)
        return len(lasting)

    def list_all(self) -> Iterator[int]:
        oldest = 1000 * (clock.timestamp() - 2 * self.store.tombstone_ttl)  # what is there all the same is added again
        with errors():
            tenants = [name.decode(errors="replace") for name in patient_client(self._cache).zrange(TENANTS, 0, -1)]
        for key in (TENANTS, *map(newest_key, tenants)):
            self._send([("ZREMRANGEBYSCORE", key, "-inf", f"({oldest}")])
        pruned = set[str]()
        for names in self.sessions(SCAN):
            found = {session: Change(_time_in(end), users) for session, end, users in self._places(names)}
            users = {user_key(tenant_of(session), user) for session, change in found.items() for user in change.users}
            self._send([("ZREMRANGEBYSCORE", key, "-inf", f"({oldest}") for key in users - pruned])
            pruned |= users
            for answer in self._list(found):
                no_error(answer)  # or the list would count as whole without these
            yield len(found)

    def drop_list_of(self, user: str, tenant: str) -> None:
        self._send([("UNLINK", user_key(tenant, user))])

    def _list(self, places: Mapping[str, Change]) -> list[Any]:
        """Add sessions to the lists; return the answers."""
        return [answer for batch in batches(places.items(), BATCH) for answer in self._send(adding(batch))]

    def _send(self, commands: Sequence[Command]) -> list[Any]:
        """Send the commands; return their answers, an error in the place of an answer. What is wrong with a list keeps
        nothing else from being done."""
        found: list[Any] = []
        for batch in batches(commands, BATCH):
            pipeline = self._pipeline()
            for command in batch:
                pipeline.execute_command(*command)
            found += answers(pipeline, raising=False)
        return found

    def clear_flags(self, values: Mapping[str, str]) -> None:
        flags = self._cache().client.flags
        hashes: dict[str, list[Any]] = {}
        for name, flag in values.items():
            hashes.setdefault(flags.key(make_key(name)), []).extend((name, flag_bytes(flag)))
        clear = turns_client(self._cache).register_script(source("clear_flag"))
        for each in batches(hashes.items(), BATCH):
            pipeline = turns_client(self._cache).pipeline(transaction=False)
            for key, arguments in each:
                clear([key], arguments, client=pipeline)
            answers(pipeline)

    def _run(self, script: str, ids: Mapping[str, str], tombstones: bool) -> dict[str, int]:
        """Run a script on each session with its id; return its answers."""
        run = patient_client(self._cache).register_script(source(script))
        ttl = self.store.tombstone_ttl if tombstones else 0
        found: dict[str, int] = {}
        for names in batches(list(ids), BATCH):
            pipeline = self._pipeline()
            for key, id_ in ((make_key(name), ids[name]) for name in names):
                run([key, tombstone_key(key)], [id_, ttl], client=pipeline)
            found |= zip(names, map(int, answers(pipeline)), strict=True)
            time.sleep(PAUSE)
        return found


def _time_in(end: bytes) -> str:
    """Return the time of the last message, by the end of what is stored; NO_TIME where that is no history."""
    id_, at = stamps(end)
    return at if is_stamped(id_, at) else NO_TIME


def _is_ours(key: bytes) -> bool:
    """Return whether it is no conversation's key, or the key of one whose name can be a session's."""
    return not matches(key, CONVERSATIONS) or is_key(key.decode(errors="replace"))
