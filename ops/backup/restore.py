"""Bringing conversations back from a backup: merged, or replaced, and never what was deleted."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Self

from bson import encode
from bson.raw_bson import RawBSONDocument
from django.db import connections
from pymongo import UpdateOne
from pymongo.errors import BulkWriteError
from redis.exceptions import ResponseError

from conversations.errors import StoreUnavailable
from conversations.merge import unite
from conversations.stores import MONGO, REDIS, limits, store
from conversations.stores.base import HistoryStore
from conversations.stores.redis.client import tombstone_key
from conversations.stores.redis.scripts import source
from conversations.stores.sessions import make_key
from conversations.turns import History, Limits, Turn, now
from ops import direct
from ops.backup.archive import Archive, Record, counted, in_batches

BATCH = 500
_ROUND = 100  # scripts to Redis at a time, so that others have their turn in between
_NEARLY = timedelta(minutes=1)  # two stores' TTLs of one turn are never quite the same
_ATTEMPTS = 5
# Appending as a turn does, but with the time that was left; a conversation that has longer keeps it.
_MERGE = "ARGV[1] = math.max(tonumber(ARGV[1]), redis.call('TTL', KEYS[1]))\n"
_REPLACE = "redis.call('UNLINK', KEYS[1])\n"

Advance = Callable[[int, int], None]
Step = Callable[["Tally"], None]
"""What sends a batch to a store, and counts what became of it; raises StoreUnavailable when the store goes out."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What a store is to have of one conversation: nothing that its tombstone covers."""

    session: str
    turns: tuple[Turn, ...]
    ttl: int
    tombstone: str = ""

    def united(self, later: "Piece") -> "Piece":
        turns = unite(History.of(self.turns), History.of(later.turns)).turns()
        return replace(self, turns=turns, ttl=max(self.ttl, later.ttl))


@dataclass
class Tally:
    """What became of the conversations of a backup in one store."""

    created: int = 0
    merged: int = 0
    replaced: int = 0
    expired: int = 0
    deleted: int = 0
    """Those of which nothing came back, since they had been deleted."""
    corrupt: int = 0
    """Those in whose place something else was; it was quarantined."""

    def facts(self) -> dict[str, int]:
        return dict(vars(self))


@dataclass
class Plan:
    """What must not come back, gathered before anything changes."""

    tombstones: dict[str, str] = field(default_factory=dict)
    own: dict[str, set[str]] = field(default_factory=dict)
    """For --replace: the sessions that the backup has of each store itself."""

    def bury(self, session: str, tombstone: str) -> None:
        self.tombstones[session] = max(self.tombstones.get(session, ""), tombstone)


class Target(ABC):
    """A store that takes pieces by the batch; each conversation is one atomic change, which can be repeated.

    What can be done without the store is done at once, the rest by the step that is returned.
    """

    alias: str

    @abstractmethod
    def merge(self, pieces: list[Piece]) -> Step:
        """Return what adds what is missing, within the limits."""

    @abstractmethod
    def replace(self, pieces: list[Piece]) -> Step:
        """Return what makes each conversation what the piece has."""


class RedisTarget(Target):
    """Takes a batch in one round trip, each conversation in one script."""

    alias = REDIS

    def __init__(self, client: Any, most: Limits) -> None:
        append = source("append")
        self._client, self._most = client, most
        self._merge = client.register_script(_MERGE + append)
        self._replace = client.register_script(_REPLACE + append)
        self._delete = client.register_script(source("delete"))

    def merge(self, pieces: list[Piece]) -> Step:
        def step(tally: Tally) -> None:
            for before in self._run(self._merge, pieces, tally):
                tally.merged += before > 0
                tally.created += before == 0

        return step

    def replace(self, pieces: list[Piece]) -> Step:
        def step(tally: Tally) -> None:
            tally.replaced += len(self._run(self._replace, pieces, tally))

        return step

    def _run(self, script: Any, pieces: list[Piece], tally: Tally) -> list[int]:
        """Return for each piece with turns how many messages were there before."""
        befores = list[int]()
        for begin in range(0, len(pieces), _ROUND):
            befores += self._round(script, pieces[begin : begin + _ROUND], tally)
        return befores

    def _round(self, script: Any, pieces: list[Piece], tally: Tally) -> list[int]:
        pipeline = self._client.pipeline(transaction=False)
        ran: list[Piece | None] = []
        for piece in pieces:
            key = make_key(piece.session)
            tombstone = tombstone_key(key)
            if piece.tombstone:
                keys = [key, tombstone, f"corrupt:{{{key}}}"]
                self._delete(keys, [piece.tombstone, self._most.ttl], client=pipeline)
                ran.append(None)
            if piece.turns:
                arguments: list[Any] = [piece.ttl, self._most.max_turns, self._most.max_bytes]
                for turn in piece.turns:
                    arguments += (turn.id, "", turn.lines())
                script([key, tombstone], arguments, client=pipeline)
                ran.append(piece)
        with direct.patient(REDIS):
            answers = pipeline.execute(raise_on_error=False) if ran else []
        befores, corrupt = list[int](), list[Piece]()
        for one, answer in zip(ran, answers, strict=True):
            if isinstance(answer, ResponseError) and str(answer).startswith(("CORRUPT", "WRONGTYPE")) and one:
                corrupt.append(one)
            elif isinstance(answer, Exception):
                raise StoreUnavailable(REDIS, type(answer).__name__) from answer
            elif one:
                befores.append(int(answer[1]))
        for piece in corrupt:
            tally.corrupt += 1
            store(REDIS).quarantine(piece.session)
        return befores + (self._run(script, corrupt, tally) if corrupt else [])


class MongoTarget(Target):
    """Inserts a batch at once; what is there already is left to the store's own append."""

    alias = MONGO

    def __init__(self, documents: direct.Documents, most: Limits, merging: HistoryStore | None) -> None:
        self._documents, self._most, self._merging = documents, most, merging

    def merge(self, pieces: list[Piece]) -> Step:
        # Encoded here, where it holds up nothing: the server waits for whatever is done by the step.
        documents = [
            RawBSONDocument(encode(self._document(piece))) for piece in pieces if piece.turns or piece.tombstone
        ]
        return partial(self._merge, pieces, documents)

    def replace(self, pieces: list[Piece]) -> Step:
        return partial(self._replace, pieces)

    def _merge(self, pieces: list[Piece], documents: list[RawBSONDocument], tally: Tally) -> None:
        there = self._insert(documents)
        found = [piece for piece in pieces if make_key(piece.session) in there]
        tally.created += sum(bool(piece.turns) for piece in pieces) - sum(bool(piece.turns) for piece in found)
        if found:
            with direct.patient(MONGO):
                held = {one["_id"]: one for one in self._documents.find({"_id": {"$in": list(there)}})}
            for piece in found:
                self._unite(piece, held.get(make_key(piece.session), {}), tally)

    def _replace(self, pieces: list[Piece], tally: Tally) -> None:
        keys = {make_key(piece.session): piece for piece in pieces}
        for _ in range(_ATTEMPTS):
            with direct.patient(MONGO):
                fields = {"tombstone": 1}
                found = {one["_id"]: one for one in self._documents.find({"_id": {"$in": list(keys)}}, fields)}
                updates = [self._put(piece, found.get(key, {}).get("tombstone")) for key, piece in keys.items()]
                left: list[str] = []
                try:
                    self._documents.bulk_write(updates, ordered=False)
                except BulkWriteError as error:
                    left = [list(keys)[index] for index in _duplicates(error)]
            keys = {key: keys[key] for key in left}  # deleted in that very moment
            if not keys:
                break
        else:
            raise StoreUnavailable(MONGO, "contended")
        tally.replaced += sum(bool(piece.turns) for piece in pieces)

    def _put(self, piece: Piece, tombstone: str | None) -> UpdateOne:
        latest = max(piece.tombstone, tombstone or "")
        turns = tuple(turn for turn in piece.turns if turn.id > latest)
        document = self._document(replace(piece, turns=turns, tombstone=latest))
        return UpdateOne({"_id": document.pop("_id"), "tombstone": tombstone}, {"$set": document}, upsert=True)

    def _insert(self, documents: list[RawBSONDocument]) -> set[str]:
        """Insert those that are not there; return the keys of those that are."""
        with direct.patient(MONGO):
            try:
                if documents:
                    self._documents.insert_many(documents, ordered=False)
            except BulkWriteError as error:
                return {documents[index]["_id"] for index in _duplicates(error)}
        return set()

    def _document(self, piece: Piece) -> dict[str, Any]:
        turns, size = self._most.fit(piece.turns)
        # What is empty is there for its tombstone, which lives for one TTL.
        ttl = min(self._most.ttl, piece.ttl) if turns and not piece.tombstone else self._most.ttl
        document = {
            "_id": make_key(piece.session),
            "messages": [message.as_dict() for turn in turns for message in turn.messages()],
            "bytes": size,
            "updated_at": now(),
            "expires_at": now() + timedelta(seconds=ttl),
        }
        return document | ({"tombstone": piece.tombstone} if piece.tombstone else {})

    def _unite(self, piece: Piece, document: dict[str, Any], tally: Tally) -> None:
        """Give a conversation that is there what it lacks, if anything."""
        if self._merging is None:
            raise StoreUnavailable(MONGO, "not empty")
        tally.merged += bool(piece.turns)
        tombstone = document.get("tombstone") or ""
        if piece.tombstone > tombstone:
            self._merging.delete(piece.session, piece.tombstone)
            tombstone = piece.tombstone
        records = document.get("messages")
        try:
            history = History.parse(records) if records else History()
        except (TypeError, ValueError):
            tally.corrupt += 1
            self._merging.quarantine(piece.session)
            history = History()
        if document and _aware(document["expires_at"]) <= now():
            history = History()
        there = {turn.id for turn in history.turns()}
        kept = self._most.trim(unite(history, History.of(piece.turns)).turns())
        missing = [turn for turn in kept if turn.id not in there and turn.id > tombstone]
        if missing:
            self._merging.append(piece.session, None, missing)
        elif piece.turns:
            expiry = now() + timedelta(seconds=min(self._most.ttl, piece.ttl))
            if _aware(document["expires_at"]) + _NEARLY < expiry:
                with direct.patient(MONGO):
                    self._documents.update_one({"_id": make_key(piece.session)}, {"$max": {"expires_at": expiry}})


def restore(archive: Archive, aliases: Iterable[str], *, replaces: bool, advance: Advance) -> dict[str, Tally]:
    """Give the stores what the backup has; return what became of it in each.

    Raise BadBackup before anything has changed where the file is not whole, StoreUnavailable when a store goes out;
    what was restored by then stays, and the rest is restored by doing it again.
    """
    plan = check(archive, advance)
    for alias in direct.reachable():
        for session, tombstone in _deleted(alias):
            plan.bury(session, tombstone)
    age = archive.age(now())
    tallies = {}
    for alias in aliases:
        tallies[alias] = tally = Tally()
        target = _target(alias)
        records = counted(archive.records(once=not replaces), advance, archive.lines)
        if replaces:
            records = _preferred(records, alias, plan)
        put = target.replace if replaces else target.merge
        with _Behind() as behind:
            for pieces in _batches(records, plan.tombstones, age, limits(), tally):
                behind.do(put(pieces), tally)
    return tallies


def check(archive: Archive, advance: Advance) -> Plan:
    """Read every byte of the backup; return its tombstones and what it has of which store. Raise BadBackup."""
    plan = Plan(own={REDIS: set(), MONGO: set()})
    archive.check_dump()
    for record in counted(archive.heads(), advance, archive.lines):
        plan.own[record.store].add(record.session)
        if record.tombstone:
            plan.bury(record.session, record.tombstone)
    return plan


def load(records: Iterable[Record], target: Target, most: Limits) -> None:
    """Put the records of a store into one of its kind, whatever their age: for a store that is compared with them."""
    tally = Tally()
    with _Behind() as behind:
        for batch in in_batches(records, BATCH):
            pieces = [
                Piece(one.session, one.history.turns(), max(one.ttl or most.ttl, 3600), one.tombstone or "")
                for one in batch
            ]
            behind.do(target.merge(pieces), tally)


def merge_into_mongo(histories: dict[str, tuple[History, int]]) -> None:
    """Give MongoDB what it lacks of these conversations, each with the seconds it has left."""
    pieces = [Piece(session, history.turns(), ttl) for session, (history, ttl) in histories.items()]
    _target(MONGO).merge(pieces)(Tally())


def _target(alias: str) -> Target:
    if alias == REDIS:
        return RedisTarget(direct.redis(), limits())
    return MongoTarget(direct.documents(), limits(), store(MONGO))


class _Behind:
    """Writes a batch while the next ones are read: one at a time, in order, and at most two waiting."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._waiting: deque[Future[None]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *exception: object) -> None:
        self._pool.shutdown(cancel_futures=kind is not None)
        while self._waiting and kind is None:
            self._waiting.popleft().result()

    def do(self, step: Step, tally: Tally) -> None:
        """Do it soon; raise what an earlier one raised."""
        self._waiting.append(self._pool.submit(_in_thread, step, tally))
        if len(self._waiting) > 2:
            self._waiting.popleft().result()


def _in_thread(step: Step, tally: Tally) -> None:
    try:
        step(tally)
    finally:
        connections.close_all()  # Django's are a thread's own


def _preferred(records: Iterable[Record], alias: str, plan: Plan) -> Iterator[Record]:
    """Return of each session the store's own record; the other store's where the backup has no own one."""
    for record in records:
        if record.store == alias or record.session not in plan.own[alias]:
            yield record


def _batches(
    records: Iterable[Record], tombstones: dict[str, str], age: int, most: Limits, tally: Tally
) -> Iterator[list[Piece]]:
    for batch in in_batches(records, BATCH):
        pieces: dict[str, Piece] = {}
        for record in batch:
            piece = _piece(record, tombstones.get(record.session, ""), age, most, tally)
            if piece is not None:
                before = pieces.get(piece.session)
                pieces[piece.session] = before.united(piece) if before else piece
        if pieces:
            yield list(pieces.values())


def _piece(record: Record, tombstone: str, age: int, most: Limits, tally: Tally) -> Piece | None:
    ttl = most.ttl if record.ttl is None else min(record.ttl - age, most.ttl)
    turns = record.history.after(tombstone).turns()
    if record.history and not turns:
        tally.deleted += 1
    elif record.history and ttl <= 0:
        tally.expired += 1
        turns = ()
    return Piece(record.session, turns, max(ttl, 1), tombstone) if turns or tombstone else None


def _deleted(alias: str) -> Iterator[tuple[str, str]]:
    """Return every tombstone of a store."""
    if alias == MONGO:
        with direct.patient(MONGO):
            found = direct.documents().find({"tombstone": {"$gt": ""}, "expires_at": {"$gt": now()}}, {"tombstone": 1})
            yield from [(one["_id"].partition(":")[2], one["tombstone"]) for one in found]
        return
    client, cursor = direct.redis(), 0
    while True:
        cursor, keys = direct.step(client, "tomb:{conv:*}", cursor, 500)
        pipeline = client.pipeline(transaction=False)
        for key in keys:
            pipeline.get(key)
        for key, value in zip(keys, direct.ask(pipeline), strict=True):
            if value:
                yield key.decode(errors="replace")[len("tomb:{conv:") : -1], value.decode(errors="replace")
        if not cursor:
            return


def _duplicates(error: BulkWriteError) -> list[int]:
    """Return which of a batch were there already; raise the error if anything else was wrong."""
    details: Any = error.details
    if details.get("writeConcernErrors") or any(one["code"] != 11000 for one in details["writeErrors"]):
        raise error
    return [int(one["index"]) for one in details["writeErrors"]]


def _aware(time: datetime) -> datetime:
    return time if time.tzinfo else time.replace(tzinfo=UTC)
