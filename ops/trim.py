"""Making room: what is old, long or expired goes, and Redis can be brought below a size, in small steps.

Whatever goes from both stores leaves a tombstone in them, so that no healing, merge or restore brings it back.
What goes from one store alone leaves none: the other still has it and gives it back when it is asked for.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

from pymongo import DeleteMany, UpdateMany, UpdateOne

import conversations
from conversations.errors import ConversationError, CorruptHistory, InvalidSession
from conversations.merge import unite
from conversations.models import CorruptConversation
from conversations.stores import ALIASES, MONGO, REDIS, limits
from conversations.stores.redis.client import TAIL, HistorySerializer, tombstone_key
from conversations.stores.sessions import make_key, session_of
from conversations.turns import MESSAGE_ID, SESSION, History, now, time_of
from ops import direct
from ops.backup.restore import merge_into_mongo

BATCH = 50  # commands to Redis at a time: together well below a millisecond of its only thread
PAUSE = 0.002  # seconds in which others have their turn
_PAGE = 200
_SAMPLE = 200
_SCRIPTS = Path(conversations.__file__).parent / "stores" / "redis" / "lua"

Advance = Callable[[int, int], None]


class NoMemoryLimit(ConversationError):
    """A percentage is of Redis' maxmemory, which is not set; say how many bytes, as in --to-memory 2gb"""


class NotInMongo(ConversationError):
    """MongoDB cannot be reached, and Redis gives up only what MongoDB has; --discard deletes it for good"""


class Trimmer:
    """Trims the stores named, or with `apply` False only counts what it would trim."""

    def __init__(self, aliases: tuple[str, ...], *, apply: bool, advance: Advance) -> None:
        self.aliases, self.apply, self._advance = aliases, apply, advance
        self._both = aliases == ALIASES
        self._redis = direct.redis()
        self._bury = self._redis.register_script((_SCRIPTS / "remove.lua").read_text())
        self._cut = self._redis.register_script((_SCRIPTS / "trim.lua").read_text())
        self._seen = 0

    def older_than(self, age: timedelta) -> dict[str, int]:
        """Delete conversations whose last message, in whichever store it is, is older than that."""
        cutoff, gone = now() - age, Counter(dict.fromkeys(self.aliases, 0))
        for found in self._ends():
            old = {session: last for session, last in found.items() if time_of(last) < cutoff}
            if old and self._both:
                old = {session: last for session, last in self._latest(old).items() if time_of(last) < cutoff}
            gone.update(self._remove(old))
        return dict(gone)

    def max_turns(self, most: int) -> dict[str, int]:
        """Delete the turns of each conversation, over both stores, before its newest so many."""
        gone = Counter({"conversations": 0, "turns": 0})
        for histories in self._histories():
            ends = {}
            for session, history in histories.items():
                turns = history.turns()
                if len(turns) > most:
                    ends[session] = turns[-most - 1].answer.id
                    gone.update(conversations=1, turns=len(turns) - most)
            if self.apply:
                self._shorten(ends, most, histories)
        return dict(gone)

    def expired(self) -> dict[str, int]:
        """Delete what MongoDB should have let go of, and give what Redis would keep for ever a TTL."""
        gone = {}
        if MONGO in self.aliases:
            gone["expired_documents"] = sum(
                self._expired_documents(direct.documents(table))
                for table in (direct.documents().name, CorruptConversation._meta.db_table)
            )
        if REDIS in self.aliases:
            gone["keys_without_ttl"] = sum(map(self._without_ttl, ("conv:*", "tomb:{conv:*", "corrupt:{conv:*")))
        return gone

    def to_memory(self, wanted: str, *, discard: bool) -> dict[str, Any]:
        """Remove conversations from Redis, the one with the oldest last message first, until it uses no more than
        that. Each stays in MongoDB, which is given what it lacks of it first.

        Not by OBJECT IDLETIME: whatever reads a key, a backup or a listing too, makes it look used.
        """
        used, most = self._memory()
        goal = _bytes(wanted, most)
        facts = {"used_before": used, "goal": goal, "removed": 0, "moved_to_mongo": 0, "kept": 0}
        if used <= goal:
            return facts | {"used": used}
        if not discard and MONGO not in direct.reachable():
            raise NotInMongo
        oldest = sorted((last, session) for found in self._redis_ends() for session, last in found.items())
        if not self.apply:
            sizes = [size for size in self._sizes(oldest[:_SAMPLE]) if size]
            each = sum(sizes) // len(sizes) if sizes else 0
            enough = min(len(oldest), -(-(used - goal) // each)) if each else 0
            return facts | {"used": used, "removed": enough, "conversations": len(oldest)}
        done = 0
        while used > goal and done < len(oldest):
            batch = oldest[done : done + BATCH]
            # No more of them than are needed: a few long ones may be all that there is.
            before = accumulate(self._sizes(batch), initial=0)
            batch = batch[: sum(1 for size in before if size < used - goal)]
            done += len(batch)
            last_ids = {session: last for last, session in batch}
            safe = last_ids if discard else self._move(last_ids, facts)
            answers = self._script(self._bury, {session: [last, 0] for session, last in safe.items()})
            gone = sum(answer == 1 for answer in answers.values())
            facts["removed"] += gone
            facts["kept"] += len(batch) - gone
            self._advance(done, len(oldest))
            used, _ = self._memory()
        return facts | {"used": used, "conversations": len(oldest)}

    # --- Looking -------------------------------------------------------------------------------------

    def _ends(self) -> Iterator[dict[str, str]]:
        """Return the last id of every conversation, by the page; of one that is in both, Redis' unless it is alone."""
        if REDIS in self.aliases:
            yield from self._redis_ends()
        if MONGO in self.aliases:
            for page in self._documents({"messages": {"$slice": -1}}):
                found = {session: records[-1]["id"] for session, records in page.items() if records}
                known = self._redis_last(found) if self._both else {}
                yield {session: last for session, last in found.items() if session not in known}

    def _redis_ends(self) -> Iterator[dict[str, str]]:
        for sessions in self._keys("conv:*"):
            yield self._redis_last(session_of(key) for key in sessions)

    def _redis_last(self, sessions: Iterable[str]) -> dict[str, str]:
        found = {}
        for names in _split(sessions):
            pipeline = self._redis.pipeline(transaction=False)
            for name in names:
                pipeline.getrange(make_key(name), -TAIL, -1)
            with direct.patient(REDIS):
                answers = pipeline.execute(raise_on_error=False)
            time.sleep(PAUSE)
            for name, end in zip(names, answers, strict=True):
                last = end[6:42].decode("ascii", "replace") if isinstance(end, bytes) else ""
                if MESSAGE_ID.fullmatch(last):
                    found[name] = last
        return found

    def _latest(self, last_ids: dict[str, str]) -> dict[str, str]:
        """Return the later of these ids and MongoDB's."""
        with direct.patient(MONGO):
            where = {"_id": {"$in": list(map(make_key, last_ids))}}
            found = list(direct.documents().find(where, {"messages": {"$slice": -1}}))
        theirs = {session_of(one["_id"]): one["messages"][-1]["id"] for one in found if one.get("messages")}
        return {session: max(last, theirs.get(session, "")) for session, last in last_ids.items()}

    def _histories(self) -> Iterator[dict[str, History]]:
        """Return every conversation, by the page, united where both stores are trimmed; corrupt ones are left out."""
        if REDIS in self.aliases:
            for keys in self._keys("conv:*"):
                histories = self._redis_histories(session_of(key) for key in keys)
                theirs = self._mongo_histories(histories) if self._both else {}
                yield {session: unite(one, theirs.get(session)) for session, one in histories.items()}
        if MONGO in self.aliases:
            for page in self._documents({"messages": 1}):
                known = self._redis_last(page) if self._both else {}
                yield _parsed({session: records for session, records in page.items() if session not in known})

    def _redis_histories(self, sessions: Iterable[str]) -> dict[str, History]:
        found = {}
        parse = HistorySerializer({}).loads
        for names in _split(sessions):
            pipeline = self._redis.pipeline(transaction=False)
            for name in names:
                pipeline.get(make_key(name))
            with direct.patient(REDIS):
                answers = pipeline.execute(raise_on_error=False)
            time.sleep(PAUSE)
            for name, value in zip(names, answers, strict=True):
                try:
                    if isinstance(value, bytes):
                        found[name] = parse(value)
                except CorruptHistory:
                    continue
        return found

    def _mongo_histories(self, sessions: Iterable[str]) -> dict[str, History]:
        with direct.patient(MONGO):
            found = list(direct.documents().find({"_id": {"$in": list(map(make_key, sessions))}}))
        return _parsed({session_of(one["_id"]): one.get("messages") for one in found})

    def _keys(self, pattern: str) -> Iterator[list[str]]:
        """Return the keys of conversations, by the page, some perhaps twice; what is nobody's session is left alone."""
        cursor = 0
        while True:
            cursor, keys = direct.step(self._redis, pattern, cursor, _PAGE)
            time.sleep(PAUSE)
            names = (key.decode(errors="replace") for key in keys)
            yield [name for name in names if SESSION.fullmatch(session_of(name)) or not pattern.startswith("conv")]
            self._seen += len(keys)
            self._advance(self._seen, self._seen)  # how many there are is not known
            if not cursor:
                return

    def _documents(self, fields: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Return the messages of the living documents, by the page."""
        for page in direct.pages({"expires_at": {"$gt": now()}}, _PAGE, fields):
            yield {session_of(one["_id"]): one.get("messages") for one in page if _is_key(one["_id"])}

    # --- Removing ------------------------------------------------------------------------------------

    def _remove(self, last_ids: dict[str, str]) -> dict[str, int]:
        """Remove conversations that have not gone on; return how many went from each store."""
        gone = dict.fromkeys(self.aliases, 0)
        if REDIS in gone and last_ids:
            if self.apply:
                ttl = limits().ttl if self._both else 0
                answers = self._script(self._bury, {session: [last, ttl] for session, last in last_ids.items()})
                gone[REDIS] = sum(answer == 1 for answer in answers.values())
                last_ids = {session: last for session, last in last_ids.items() if answers[session] != -1}
            else:
                gone[REDIS] = len(self._redis_last(last_ids))
        if MONGO in gone and last_ids:
            keys = {make_key(session): last for session, last in last_ids.items()}
            with direct.patient(MONGO):
                there = {"_id": {"$in": list(keys)}, "messages": {"$ne": []}, "expires_at": {"$gt": now()}}
                gone[MONGO] = direct.documents().count_documents(there)
                if self.apply and gone[MONGO]:
                    direct.documents().bulk_write(_burials(keys, tombstones=self._both))
        return gone

    def _shorten(self, ends: dict[str, str], most: int, histories: dict[str, History]) -> None:
        """Remove turns up to these ids, and nothing that came since."""
        if not ends:
            return
        if REDIS in self.aliases:
            ttl = limits().ttl if self._both else 0
            self._script(self._cut, {session: [end, ttl] for session, end in ends.items()})
        if MONGO in self.aliases:
            updates: list[Any] = []
            for session, end in ends.items():
                kept = histories[session].turns()[-most:]
                update: dict[str, Any] = {"$pull": {"messages": {"id": {"$lte": end}}}, "$set": {"updated_at": now()}}
                if self._both:
                    update["$max"] = {"tombstone": end}
                updates.append(UpdateOne({"_id": make_key(session)}, update))
                # An upper bound, right as soon as nothing else was added meanwhile.
                size = sum(len(turn.lines()) for turn in kept)
                exact = {"_id": make_key(session), "messages": {"$size": 2 * len(kept)}}
                updates.append(UpdateOne({**exact, "messages.id": kept[-1].answer.id}, {"$set": {"bytes": size}}))
            with direct.patient(MONGO):
                direct.documents().bulk_write(updates)

    def _move(self, last_ids: dict[str, str], facts: dict[str, int]) -> dict[str, str]:
        """Return those that MongoDB has as well, after it was given what it lacked."""
        with direct.patient(MONGO):
            where = {"_id": {"$in": list(map(make_key, last_ids))}, "expires_at": {"$gt": now()}}
            found = list(direct.documents().find(where, {"messages": {"$slice": -1}}))
        theirs = {session_of(one["_id"]): one["messages"][-1]["id"] for one in found if one.get("messages")}
        lacking = [session for session, last in last_ids.items() if theirs.get(session, "") < last]
        if not lacking:
            return last_ids
        histories = self._redis_histories(lacking)
        pipeline = self._redis.pipeline(transaction=False)
        for session in histories:
            pipeline.ttl(make_key(session))
        seconds = dict(zip(histories, direct.ask(pipeline), strict=True))
        usual = limits().ttl
        merge_into_mongo({s: (one, seconds[s] if seconds[s] > 0 else usual) for s, one in histories.items()})
        facts["moved_to_mongo"] += len(histories)
        return {session: last for session, last in last_ids.items() if session not in lacking or session in histories}

    def _expired_documents(self, documents: direct.Documents) -> int:
        gone = 0
        where = {"expires_at": {"$lte": now()}}
        with direct.patient(MONGO):
            if not self.apply:
                return documents.count_documents(where)
        while True:
            with direct.patient(MONGO):
                page = [one["_id"] for one in documents.find(where, {"_id": 1}).limit(_PAGE)]
                if not page:
                    return gone
                # Asked again: a turn may have renewed one meanwhile.
                gone += documents.delete_many({"_id": {"$in": page}, **where}).deleted_count
            time.sleep(PAUSE)

    def _without_ttl(self, pattern: str) -> int:
        found = 0
        for keys in self._keys(pattern):
            for names in _split(keys):
                pipeline = self._redis.pipeline(transaction=False)
                for name in names:
                    pipeline.ttl(name)
                lasting = [name for name, ttl in zip(names, direct.ask(pipeline), strict=True) if ttl == -1]
                found += len(lasting)
                for name in lasting if self.apply else ():
                    pipeline.expire(name, limits().ttl)  # a turn in between has set the same
                direct.ask(pipeline)
                time.sleep(PAUSE)
        return found

    def _script(self, script: Any, arguments: dict[str, list[Any]]) -> dict[str, int]:
        """Run a script on each session, a batch at a time; return its answers."""
        answers: dict[str, int] = {}
        for names in _split(arguments):
            pipeline = self._redis.pipeline(transaction=False)
            for name in names:
                key = make_key(name)
                script([key, tombstone_key(key)], arguments[name], client=pipeline)
            answers |= zip(names, map(int, direct.ask(pipeline)), strict=True)
            time.sleep(PAUSE)
        return answers

    def _memory(self) -> tuple[int, int]:
        """Return what Redis uses, and its maxmemory, 0 for none."""
        with direct.patient(REDIS):
            memory = self._redis.info("memory")
        return int(memory["used_memory"]), int(memory.get("maxmemory", 0))

    def _sizes(self, oldest: list[tuple[str, str]]) -> list[int]:
        """Return how many bytes each of these takes, 0 for one that is gone."""
        sizes = list[int]()
        for names in _split(session for _, session in oldest):
            pipeline = self._redis.pipeline(transaction=False)
            for name in names:
                pipeline.memory_usage(make_key(name))
            sizes += [size or 0 for size in direct.ask(pipeline)]
        return sizes


def _burials(last_ids: dict[str, str], *, tombstones: bool) -> list[Any]:
    """Return the updates that empty these documents; one that has a tombstone stays for it."""
    keys = list(last_ids)
    if not tombstones:
        empty: dict[str, Any] = {"$set": {"messages": [], "bytes": 0}}
        # No message later than that: it has not gone on since it was looked at.
        same = [
            UpdateOne({"_id": key, "messages.id": {"$not": {"$gt": last}}}, empty) for key, last in last_ids.items()
        ]
        return [*same, DeleteMany({"_id": {"$in": keys}, "messages": [], "tombstone": None})]
    kept = {"updated_at": now(), "expires_at": now() + timedelta(seconds=limits().ttl)}
    cuts = [
        UpdateOne(
            {"_id": key},
            {"$pull": {"messages": {"id": {"$lte": last}}}, "$max": {"tombstone": last}, "$set": kept},
        )
        for key, last in last_ids.items()
    ]
    return [*cuts, UpdateMany({"_id": {"$in": keys}, "messages": []}, {"$set": {"bytes": 0}})]


def _parsed(pages: dict[str, Any]) -> dict[str, History]:
    found = {}
    for session, records in pages.items():
        try:
            if records:
                found[session] = History.parse(records)
        except (TypeError, ValueError):
            continue
    return found


def _bytes(wanted: str, most: int) -> int:
    """Return the bytes of `80%`, `2gb`, `500mb` or `1000`; raise NoMemoryLimit, or ValueError for what is none."""
    number, unit = wanted.rstrip("%bkmgBKMG").strip(), wanted.lower()[len(wanted.rstrip("%bkmgBKMG")) :]
    factor = {"": 1, "b": 1, "kb": 2**10, "mb": 2**20, "gb": 2**30}
    if unit == "%":
        if not most:
            raise NoMemoryLimit
        return int(most * float(number) / 100)
    return int(float(number) * factor[unit])


def _split(names: Iterable[str]) -> Iterator[list[str]]:
    names = iter(names)
    while batch := list(islice(names, BATCH)):
        yield batch


def _is_key(key: Any) -> bool:
    try:
        return isinstance(key, str) and make_key(session_of(key)) == key
    except InvalidSession:
        return False
