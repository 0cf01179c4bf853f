"""The client behind `caches["conversations"]`: Django's cache of histories, and what a history needs beside it.

`.get(session)` gives a History, `.set(session, history)` takes one; keys are `conv:<session>`.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cache, cached_property
from typing import Any
from uuid import uuid4

from django.conf import settings
from django.core.cache import caches
from django_redis.client import DefaultClient
from django_redis.util import CacheKey
from redis.commands.core import Script
from redis.exceptions import NoPermissionError, NoScriptError, RedisError, ResponseError
from redis.sentinel import SentinelConnectionPool

from conversations.stores import limits
from conversations.stores.base import Summary
from conversations.stores.redis import newest
from conversations.stores.redis.address import is_of_cluster
from conversations.stores.redis.cluster import Cluster
from conversations.stores.redis.flags import HashOfEachSlot, OneHash
from conversations.stores.redis.format import flag_text, keeping, kept_arguments, question_bytes, question_in, stamps
from conversations.stores.redis.kept import Command, KeptConnections
from conversations.stores.redis.keys import quarantine_key, tombstone_key, used_keys_key
from conversations.stores.redis.lines import Lines, shown, whole
from conversations.stores.redis.newest import Change, NewestFirst
from conversations.stores.redis.room import step
from conversations.stores.redis.routes import Routes
from conversations.stores.redis.scripts import registered, run_each
from conversations.turns import History, Limits, Turn
from conversations.used_keys import Keys, asked_at


class HistoryClient(DefaultClient[Any, Any, Any, Any, Any]):
    """django-redis' client, with the operations a history needs beside Django's own. They raise the driver's errors."""

    def encode(self, value: Any, *, allow_int: bool = True) -> bytes:
        return bytes(self._serializer.dumps(value))

    def decode(self, value: Any) -> History:
        return whole(value, limits().max_turns)

    def make_pattern(self, pattern: str, version: int | None = None, prefix: str | None = None) -> CacheKey:
        return CacheKey(f"{self._backend.key_prefix if prefix is None else prefix}:{pattern}")

    def load(self, session: str, most_turns: int) -> History | None:
        """Return the history, not decoded yet."""
        value = self._turns.call("GET", self.make_key(session))
        return None if value is None else shown(value, most_turns)

    def inspect(self, session: str, most_turns: int) -> tuple[History | None, Any, str | None, Any]:
        """Return the history, its tombstone as it is stored, its flag, and its Idempotency-Keys as they are stored, in
        one round trip."""
        key = self.make_key(session)
        answers = self._turns.call_each(
            [
                ("GET", key),
                ("GET", tombstone_key(key)),
                ("HGET", self.flags.key(key), session),
                ("ZRANGE", used_keys_key(key), 0, -1, "WITHSCORES"),
            ]
        )
        value, tombstone, flag, keys = _inspected(answers)
        history = None if value is None else shown(value, most_turns)
        return history, tombstone, None if flag is None else flag_text(flag), keys

    def append(
        self, session: str, turn: Turn | None, missing: Sequence[Turn], limits: Limits, *, flag: bool
    ) -> tuple[bool, int, str, bool, str]:
        """Add turns and the flag in one step, and before it, in the same round trip, the conversation to the list;
        return whether `turn` was new, how many messages were there before, the tombstone if it covers the turn, whether
        there is a tombstone that is no id, and the time of the turn's key if that is kept and its turn is not there."""
        key = self.make_key(session)
        keys, flags = self._flagged([key, tombstone_key(key), used_keys_key(key)], session, flag)
        arguments: list[Any] = [
            limits.ttl,
            limits.max_turns,
            limits.max_bytes,
            *flags,
            *keeping(),
            int(turn is not None),
        ]
        turns = (*missing, turn) if turn else missing
        for one in turns:
            arguments += (one.id, one.question.key or "", asked_at(one), one.lines())
        listing = newest.adding([(session, Change.of(turns))]) if turns else []
        added, before, tombstone, corrupt, expired = self.run("append", keys, arguments, listing)
        return bool(turn and added), int(before), tombstone.decode(), bool(corrupt), expired.decode()

    def append_after(self, session: str, seen: Lines, turn: Turn, limits: Limits, *, flag: bool) -> bool:
        """Add a turn, and the flag, where it comes after `seen` and no other turn does, in one step that does not look
        at the other turns; return whether it was added. A conversation that has a user only now is added to the list of
        that one in the same round trip."""
        lines, turns, used = turn.lines(), seen.stored_messages // 2, turn.question.key
        how = step(len(seen.stored), turns, len(lines), limits)
        if how is None or turn.id <= seen.last_id or (used and seen.turn_of(used)):
            return False
        cut, first = (-1, "") if how.in_place else seen.without(how.dropped)
        key = self.make_key(session)
        keys, flags = self._flagged([key, tombstone_key(key), used_keys_key(key)], session, flag)
        arguments: list[Any] = [limits.ttl, seen.last_id, cut, first, turn.id, lines, how.half]
        if used or flag:
            arguments += (used or "", asked_at(turn), *keeping(), *flags)
        user = turn.question.user
        listing = newest.adding([(session, Change.of([turn]))]) if user and user != seen.user else ()
        try:
            return bool(self.run("append_after", keys, arguments, listing))
        except ResponseError as error:
            # By rights of an older deployment, which lack APPEND. Redis 7.0 says so in its own words.
            if not isinstance(error, NoPermissionError) and "can't run this command" not in str(error):
                raise
            return False  # no turn was added

    def keep_keys(self, session: str, keys: Keys) -> None:
        """Keep these Idempotency-Keys."""
        self.run("keep_keys", [used_keys_key(self.make_key(session))], kept_arguments(keys))

    def quarantine(self, session: str, ttl: int) -> bool:
        """Rename whatever is there to a free `corrupt:{conv:<session>}:<number>`, for `ttl` seconds; return whether
        there was anything."""
        key = self.make_key(session)
        return bool(self.run("quarantine", [key, quarantine_key(key)], [ttl]))

    def forget(self, session: str, upto: str, ttl: int, *, flag: bool) -> int:
        """Delete turns up to an id and its quarantined copies, leaving a tombstone and the flag; return how many
        things went. In the same round trip it leaves the list, and in another one those of its users; a later turn puts
        it there again."""
        key = self.make_key(session)
        keys, flags = self._flagged([key, tombstone_key(key), quarantine_key(key)], session, flag)
        self.newest.noted.pop(session, None)
        gone, *users = self.run("delete", keys, [upto, ttl, *flags], newest.removing(session))
        if users:
            # What is refused, or lost, here is never shown, and goes with the list.
            with suppress(RedisError):
                self._turns.call_each(newest.removing_of(session, [user.decode(errors="replace") for user in users]))
        return int(gone)

    def expires_in(self, session: str) -> int:
        """Return the answer of TTL, in one round trip: seconds, -1 for never, -2 when there is none."""
        return int(self._turns.call("TTL", self.make_key(session)))

    def scan(self, cursor: int, pattern: str, count: int) -> tuple[int, list[bytes]]:
        """Return the next cursor, 0 at the end, and the keys of one step of SCAN."""
        if isinstance(self.redis, Cluster):
            return self.redis.scan_step(cursor, str(self.make_pattern(pattern)), count)
        after, keys = self.redis.scan(cursor, match=self.make_pattern(pattern), count=count)
        return int(after), keys

    def summaries(self, sessions: Iterable[str], most_turns: int, preview: int) -> dict[str, Summary]:
        """Return a summary of each of the sessions that there are, in one round trip. One that is in the list and is
        not there is noted."""
        names = list(sessions)
        keys = [self.make_key(session) for session in names]
        wanted = (most_turns, question_bytes(preview))
        answers, scores = run_each(self.redis, self._scripts["summary"], keys, wanted, newest.asking(names))
        found = list(zip(names, answers, scores, strict=True))
        self.newest.gone |= {name: score for name, answer, score in found if answer is None and score is not None}
        return {
            session: _summary(answer, newest.time_of_score(score), preview)
            for session, answer, score in found
            if answer is not None
        }

    @property
    def redis(self) -> Any:
        """The driver's client, of the server that takes writes, or of a cluster."""
        return self.get_client(write=True)

    def ping(self) -> None:
        """Return when the server answers, or every master of a cluster whose slots all have one."""
        if isinstance(self.redis, Cluster):
            self.redis.ping_all()
        else:
            self.redis.ping()

    def get_many(self, keys: Iterable[Any], version: int | None = None, client: Any = None) -> dict[Any, Any]:
        """Return Django's `get_many`; a cluster has no MGET of several slots."""
        if not isinstance(self.redis, Cluster):
            return dict(super().get_many(keys, version, client))
        names = list(keys)
        pipeline = self.redis.pipeline()
        for key in names:
            pipeline.get(self.make_key(key, version=version))
        found = zip(names, pipeline.execute(), strict=True)
        return {key: self.decode(value) for key, value in found if value is not None}

    def follow_sentinels(self) -> None:
        """Ask the sentinels, where there are any, which server takes writes, and leave connections to another one:
        it loses what it takes until it has been told. Nothing is changed where no sentinel answers."""
        pool = getattr(self.redis, "connection_pool", None)
        if isinstance(pool, SentinelConnectionPool):
            with suppress(RedisError):
                pool.get_master_address()  # type: ignore[no-untyped-call]

    def call(self, *command: Any) -> Any:
        """Return the answer of a command, as the server gives it, in one round trip."""
        return self._turns.call(*command)

    def run(self, name: str, keys: list[str], arguments: list[Any], before: Sequence[Command] = ()) -> Any:
        """Run a script in one round trip, after these commands, whose errors are ignored; return its answer."""
        script = self._scripts[name]
        command = ("EVALSHA", script.sha, len(keys), *keys, *arguments)
        try:
            return self._run(command, before) if before else self._turns.call(*command)
        except NoScriptError:
            self._turns.call("SCRIPT", "LOAD", script.script)
            return self._turns.call(*command)

    def run_for_each(self, name: str, calls: Sequence[tuple[str, Sequence[Any]]]) -> list[Any]:
        """Run a script for one key after another, each with its arguments, in one round trip; return the answers.
        Raise the first error."""
        script = self._scripts[name]
        commands = [("EVALSHA", script.sha, 1, key, *arguments) for key, arguments in calls]
        answers = self._turns.call_each(commands)
        unknown = [place for place, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if unknown:
            self._turns.call("SCRIPT", "LOAD", script.script)
            again = self._turns.call_each([commands[place] for place in unknown])
            for place, answer in zip(unknown, again, strict=True):
                answers[place] = answer
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers

    def _flagged(self, keys: list[str], session: str, flag: bool) -> tuple[list[str], list[str]]:
        """Return the keys of a script with that of the flags where it is to set one, and the flag as arguments."""
        return ([*keys, self.flags.key_to_set(keys[0])], [session, uuid4().hex]) if flag else (keys, ["", ""])

    def _run(self, command: Command, before: Sequence[Command]) -> Any:
        *_, answer = self._turns.call_each([*before, command])
        if isinstance(answer, Exception):
            raise answer
        return answer

    @cached_property
    def newest(self) -> NewestFirst:
        return NewestFirst(self._turns.call_each, lambda key, pairs: self.run("unlist", [key], pairs))

    @cached_property
    def flags(self) -> OneHash | HashOfEachSlot:
        """Where unsynced flags are."""
        return HashOfEachSlot(lambda: self.redis) if is_of_cluster(self._server[0]) else OneHash()

    @cached_property
    def _turns(self) -> KeptConnections | Routes:
        return self.redis.routes if isinstance(self.redis, Cluster) else KeptConnections(self.redis.connection_pool)

    @cached_property
    def _scripts(self) -> dict[str, Script]:
        return registered(self.redis)


def _inspected(answers: list[Any]) -> list[Any]:
    """Return a value, its tombstone, its flag, and its keys with their times; raise the first error but of a tombstone
    or keys of another type, which do not make the conversation unreadable."""
    value, tombstone, flag, keys = answers
    for answer in answers:
        readable = (answer is tombstone or answer is keys) and "WRONGTYPE" in str(answer)
        if isinstance(answer, Exception) and not readable:
            raise answer
    pairs = list(zip(keys[::2], map(float, keys[1::2]), strict=True)) if isinstance(keys, list) else keys
    return [value, tombstone, flag, pairs]


def histories() -> Any:
    """Return the cache of conversations that the stores use, one for all threads. Django's own `caches` makes another
    for each request."""
    return _histories(settings.CACHES["conversations"]["LOCATION"])


@cache
def _histories(url: str) -> Any:
    return caches.create_connection("conversations")


def _summary(answer: Any, place: str | None, preview: int) -> Summary:
    """Return the summary that the script's answer means."""
    count, tail, size, words, user = answer
    question = question_in(words)[:preview] if preview else None
    return Summary.of_end(count, *stamps(tail), place, user.decode(errors="replace") or None, size, question)
