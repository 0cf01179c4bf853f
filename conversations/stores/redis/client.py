"""The client behind `caches["conversations"]`: Django's cache of histories, and what a history needs beside it.

`.get(session)` gives a History, `.set(session, history)` takes one; keys are `conv:<session>`.
"""

from collections.abc import Callable, Collection, Iterable
from functools import cached_property, partial
from typing import Any
from uuid import uuid4

from django.core.cache import caches
from django_redis.client import DefaultClient
from django_redis.exceptions import ConnectionInterrupted
from django_redis.util import CacheKey
from redis.commands.core import Script
from redis.exceptions import NoPermissionError, RedisError

from conversations.datasets import SILENT, Dataset
from conversations.stores.control import Report
from conversations.stores.redis.format import (
    TAIL,
    HistorySerializer,
    flag_bytes,
    flag_text,
    keeping,
    kept_arguments,
    report_of,
    stamps,
)
from conversations.stores.redis.keys import (
    DATASET,
    FLAGS,
    HEARTBEATS,
    flags_key,
    note_key,
    quarantine_key,
    tombstone_key,
    used_keys_key,
)
from conversations.stores.redis.scripts import registered, run_each
from conversations.turns import SESSION, History, Limits, Turn
from conversations.used_keys import Keys, asked_at

__all__ = ["FLAGS", "TAIL", "HistoryClient", "HistorySerializer", "histories", "tombstone_key"]


class HistoryClient(DefaultClient[Any, Any, Any, Any, Any]):
    """django-redis' client, with the operations a history needs beside Django's own."""

    def encode(self, value: Any, *, allow_int: bool = True) -> bytes:
        return bytes(self._serializer.dumps(value))

    def decode(self, value: Any) -> History:
        history: History = self._serializer.loads(value)
        return history

    def make_pattern(self, pattern: str, version: int | None = None, prefix: str | None = None) -> CacheKey:
        return CacheKey(f"{self._backend.key_prefix if prefix is None else prefix}:{pattern}")

    def inspect(self, session: str) -> tuple[History | None, Any, str | None, Any]:
        """Return the history, its tombstone as it is stored, its flag, and its Idempotency-Keys as they are stored, in
        one round trip."""
        key = self.make_key(session)
        pipeline = self.get_client(write=True).pipeline(transaction=False)
        pipeline.get(key).get(tombstone_key(key)).hget(flags_key(key), session)
        pipeline.zrange(used_keys_key(key), 0, -1, withscores=True)
        value, tombstone, flag, keys = self._call(lambda _: _inspected(pipeline))
        return None if value is None else self.decode(value), tombstone, None if flag is None else flag_text(flag), keys

    def append(
        self, session: str, turn: Turn | None, missing: Iterable[Turn], limits: Limits, *, flag: bool
    ) -> tuple[bool, int, str, bool, str]:
        """Add turns and the flag in one step; return whether `turn` was new, how many messages were there before,
        the tombstone if it covers the turn, whether there is a tombstone that is no id, and the time of the turn's
        key if that is kept and its turn is not there."""
        key = self.make_key(session)
        keys, flags = _flagged([key, tombstone_key(key), used_keys_key(key)], session, flag)
        arguments: list[Any] = [
            limits.ttl,
            limits.max_turns,
            limits.max_bytes,
            *flags,
            *keeping(),
            int(turn is not None),
        ]
        for one in (*missing, turn) if turn else missing:
            arguments += (one.id, one.question.key or "", asked_at(one), one.lines())
        added, before, tombstone, corrupt, expired = self._run("append", keys, arguments)
        return bool(turn and added), int(before), tombstone.decode(), bool(corrupt), expired.decode()

    def keep_keys(self, session: str, keys: Keys) -> None:
        """Keep these Idempotency-Keys."""
        self._run("keep_keys", [used_keys_key(self.make_key(session))], kept_arguments(keys))

    def quarantine(self, session: str, ttl: int) -> bool:
        """Rename whatever is there to a free `corrupt:{conv:<session>}:<number>`, for `ttl` seconds; return whether
        there was anything."""
        key = self.make_key(session)
        return bool(self._run("quarantine", [key, quarantine_key(key)], [ttl]))

    def forget(self, session: str, upto: str, ttl: int, *, flag: bool) -> int:
        """Delete turns up to an id and its quarantined copies, leaving a tombstone and the flag; return how many
        things went."""
        key = self.make_key(session)
        keys, flags = _flagged([key, tombstone_key(key), quarantine_key(key)], session, flag)
        return int(self._run("delete", keys, [upto, ttl, *flags]))

    def flags(self, limit: int) -> tuple[set[str], bool, int]:
        """Return flagged sessions, about `limit` of them at the most, whether those are all, and how many there are. A
        field that is no session's name is no flag: another program wrote it."""
        found: set[str] = set()
        cursor, number = 0, 0
        while True:
            (cursor, fields), number = self._call(partial(_hscan, cursor=cursor, count=limit))
            found |= {name for name in map(flag_text, fields) if SESSION.fullmatch(name)}
            if not cursor or len(found) >= limit:
                return found, not cursor, number if cursor else len(found)

    def clear_flag(self, session: str, flag: str) -> None:
        """Take the flag away if it is still this one."""
        self._run("clear_flag", [flags_key(self.make_key(session))], [session, flag_bytes(flag)])

    def note(self, name: str) -> str | None:
        """Return what is written under this name."""
        return _text(self._call(lambda client: client.get(note_key(name))))

    def write_note(self, name: str, text: str) -> None:
        """Write down what all processes should know."""
        self._call(lambda client: client.set(note_key(name), text))

    def lease(self, name: str, holder: str, seconds: float) -> bool:
        """Take or renew a lease; return whether the holder has it."""
        return bool(self._run("lease", [f"onesource:lease:{name}"], [holder, int(seconds * 1000)]))

    def report(self, notes: Collection[str]) -> Report:
        """Return the dataset, the server's run_id and clock, the heartbeats and notes, in one round trip. Without the
        right to INFO the run_id is "": then a restart is noticed only where data were lost."""
        pipeline = self.get_client(write=True).pipeline(transaction=False)
        pipeline.hgetall(DATASET).info("server").time().hgetall(HEARTBEATS)
        for name in notes:
            pipeline.get(note_key(name))
        dataset, server, time, heartbeats, *texts = self._call(lambda _: _reported(pipeline))
        return report_of(dataset, server.get("run_id", ""), time, heartbeats, dict(zip(notes, texts, strict=True)))

    def beat(self, process: str, dataset: Dataset) -> int | None:
        """Count the epoch up; return it, None where the dataset has another id."""
        answer = self._run("beat", [DATASET, HEARTBEATS], [dataset.id, process, int(SILENT)])
        return None if answer is None else int(answer)

    def identify(self, dataset: Dataset, before: Dataset | None) -> bool:
        """Give the store this identity unless it has changed."""
        arguments = [before.id if before else "", dataset.id, dataset.epoch, dataset.instance]
        return bool(self._run("identify", [DATASET], arguments))

    def farewell(self, process: str) -> None:
        """Remove the heartbeat of a process."""
        self._call(lambda client: client.hdel(HEARTBEATS, process))

    def expires_in(self, session: str) -> int:
        """Return the answer of TTL, in one round trip: seconds, -1 for never, -2 when there is none."""
        key = self.make_key(session)
        return int(self._call(lambda client: client.ttl(key)))

    def scan(self, cursor: int, pattern: str, count: int) -> tuple[int, list[bytes]]:
        """Return the next cursor, 0 at the end, and the keys of one step of SCAN."""
        match = self.make_pattern(pattern)
        after, keys = self._call(lambda client: client.scan(cursor, match=match, count=count))
        return int(after), keys

    def last_ids(self, sessions: Iterable[str]) -> dict[str, str]:
        """Return the last message's id of each of the sessions that there are, in one round trip."""
        names = list(sessions)
        pipeline = self.get_client(write=True).pipeline(transaction=False)
        for session in names:
            pipeline.getrange(self.make_key(session), -TAIL, -1)
        ends = self._call(lambda _: _values(pipeline))
        found = zip(names, ends, strict=True)
        return {session: stamps(end)[0] for session, end in found if isinstance(end, bytes) and end}

    def ends(self, sessions: Iterable[str]) -> dict[str, tuple[int, str, str]]:
        """Return how many messages each of the sessions that there are has, with the last one's id and time, in one
        round trip; zero messages where a value is no conversation."""
        names = list(sessions)
        keys = [self.make_key(session) for session in names]
        answers = self._call(lambda client: run_each(client, self._scripts["summary"], keys))
        found = zip(names, answers, strict=True)
        return {session: (count, *stamps(tail)) for session, (count, tail) in found if count is not None}

    def ping(self) -> None:
        """Return when Redis answers."""
        self._call(lambda client: client.ping())

    def _run(self, name: str, keys: list[str], arguments: list[Any]) -> Any:
        script = self._scripts[name]
        return self._call(lambda client: script(keys, arguments, client=client))

    def _call(self, command: Callable[[Any], Any]) -> Any:
        client = self.get_client(write=True)
        try:
            return command(client)
        except RedisError as error:
            raise ConnectionInterrupted(connection=client) from error

    @cached_property
    def _scripts(self) -> dict[str, Script]:
        return registered(self.get_client(write=True))


def _flagged(keys: list[str], session: str, flag: bool) -> tuple[list[str], list[str]]:
    """Return the keys of a script with that of the flags where it is to set one, and the flag as arguments."""
    return ([*keys, flags_key(keys[0])], [session, uuid4().hex]) if flag else (keys, ["", ""])


def _hscan(client: Any, cursor: int, count: int) -> Any:
    pipeline = client.pipeline(transaction=False)
    return pipeline.hscan(FLAGS, cursor, count=count).hlen(FLAGS).execute()


def _reported(pipeline: Any) -> list[Any]:
    """Return the answers of a report's pipeline; raise the first error but one of INFO's rights."""
    answers = pipeline.execute(raise_on_error=False)
    if isinstance(answers[1], NoPermissionError):
        answers[1] = {}
    for error in answers:
        if isinstance(error, RedisError):
            raise error
    return list(answers)


def _inspected(pipeline: Any) -> list[Any]:
    """Return a value, its tombstone, its flag and its keys; raise the first error but of a tombstone or keys of another
    type, which do not make the conversation unreadable."""
    value, tombstone, flag, keys = pipeline.execute(raise_on_error=False)
    for answer in (value, tombstone, flag, keys):
        readable = (answer is tombstone or answer is keys) and "WRONGTYPE" in str(answer)
        if isinstance(answer, Exception) and not readable:
            raise answer
    return [value, tombstone, flag, keys]


def _values(pipeline: Any) -> list[Any]:
    """Return the answers of reading many keys, the error where one is of another type; raise any other error."""
    answers: list[Any] = pipeline.execute(raise_on_error=False)
    for answer in answers:
        if isinstance(answer, Exception) and "WRONGTYPE" not in str(answer):
            raise answer
    return answers


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="replace")


def histories() -> Any:
    """Return the cache of conversations."""

    return caches["conversations"]
