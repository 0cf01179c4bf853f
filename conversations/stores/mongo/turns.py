"""Histories in MongoDB: read and listed through the ORM; adding a turn and deleting are one atomic update beneath it.

The update says all it needs of the document in its filter, so that the common case is one round trip. A
document that does not match makes the upsert a duplicate key; only then is it asked why.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pymongo
from django.conf import settings
from django.db import DatabaseError, connections
from pymongo.collection import Collection as MongoCollection
from pymongo.errors import DuplicateKeyError, PyMongoError, WriteError

from conversations import merge
from conversations.errors import CorruptHistory, StoreUnavailable
from conversations.models import ALIAS, Conversation, CorruptConversation
from conversations.stores.base import Contents, HistoryStore, Page, Receipt, Summary, tombstone_in
from conversations.stores.control import ControlStore, Flags
from conversations.stores.mongo.filters import unexpired
from conversations.stores.mongo.patient import fail_fast
from conversations.stores.sessions import is_of, make_key, part_of_name, session_of
from conversations.turns import MESSAGE_ID, History, Turn, now

_WRITE_PATIENCE = 2  # times MONGO_TIMEOUT_MS
_WALK_SECONDS = 10.0  # a page of a list may take longer than a turn
_ID = rf"^{MESSAGE_ID.pattern}$(?!\n)"  # of a tombstone; one that another program wrote covers nothing
_ATTEMPTS = 8  # a lost race is tried again; every loser's rival has written, so someone always advances

_LAST = {"input": {"$slice": ["$messages", -1]}, "as": "one", "in": {"id": "$$one.id", "at": "$$one.at"}}
_ENDS = {  # how many messages there are, -1 where they are no list, and the last one's id and time
    "count": {"$cond": [{"$isArray": "$messages"}, {"$size": "$messages"}, -1]},
    "last": {"$cond": [{"$isArray": "$messages"}, {"$map": _LAST}, []]},
}

_IDS = {"$map": {"input": "$messages", "as": "one", "in": "$$one.id"}}


class DocumentStore(HistoryStore, ControlStore):
    """One document a conversation, its primary key the key it has in Redis."""

    @property
    def call_seconds(self) -> float:
        return float(settings.MONGO_TIMEOUT_MS) / 1000

    def load(self, session: str) -> History | None:
        with self._errors():
            records = self._read(make_key(session))
            return None if records is None else self._history(records)

    def inspect(self, session: str) -> Contents:
        with self._errors():
            document = self._collection(Conversation).find_one({"_id": make_key(session)} | unexpired())
        if document is None:
            return Contents(None, None, None)
        records = document.get("messages")
        history = None if records == [] else self._history(records)
        return Contents(history, tombstone_in(self.alias, session, document.get("tombstone")), document.get("mark"))

    def _append(self, session: str, turn: Turn | None, missing: Sequence[Turn], flag: bool) -> Receipt:
        pending = _Pending(make_key(session), turn, list(missing), flag)
        # Writers of one document queue at it: what was asked of it is worth waiting for longer than an answer.
        with self._errors(), pymongo.timeout(_WRITE_PATIENCE * settings.MONGO_TIMEOUT_MS / 1000):
            for _ in range(_ATTEMPTS):
                try:
                    created = self._push(pending)
                except DuplicateKeyError:
                    self._make_room(pending)
                except WriteError:
                    self._make_room(pending)  # says so if what is there is no history
                    raise
                else:
                    created = created or (pending.empty and not pending.tombstone)
                    return Receipt(pending.new, created, pending.tombstone)
        raise StoreUnavailable(self.alias, "contended")

    def delete(self, session: str, upto: str, *, flag: bool = False) -> bool:
        key = make_key(session)
        collection = self._collection(Conversation)
        # Two round trips in all but rare cases. The tombstone goes last: repair deletes again where it is missing.
        with self._errors(), pymongo.timeout(_WRITE_PATIENCE * settings.MONGO_TIMEOUT_MS / 1000):
            quarantined = self._collection(CorruptConversation).delete_many({"key": key}).deleted_count
            for _ in range(_ATTEMPTS):
                try:
                    return self._forget(key, upto, flag) or quarantined > 0
                except DuplicateKeyError:  # what is there has expired, has no valid tombstone, or is newly made
                    collection.delete_one({"_id": key, "expires_at": {"$not": {"$gt": now()}}})
                    wrong = {"_id": key, "tombstone": {"$exists": True, "$not": {"$regex": _ID}}}
                    collection.update_one(wrong, {"$unset": {"tombstone": ""}})
        raise StoreUnavailable(self.alias, "contended")

    def flags(self, limit: int) -> Flags:
        with self._errors():
            found = self._collection(Conversation).find({"mark": {"$gt": ""}}, {"_id": 1}).limit(limit + 1)
            sessions = [session_of(document["_id"]) for document in found]
        return Flags(frozenset(sessions[:limit]), len(sessions) <= limit)

    def clear_flag(self, session: str, flag: str) -> None:
        with self._errors():
            self._collection(Conversation).update_one(
                {"_id": make_key(session), "mark": flag}, {"$unset": {"mark": ""}}
            )

    def ttl(self, session: str) -> int | None:
        with self._errors():
            row = Conversation.objects.filter(pk=make_key(session)).values_list("bytes", "expires_at").first()
        if row is None or not row[0] or row[1] <= now():
            return None
        return round((row[1] - now()).total_seconds())

    def _scan(self, cursor: str, limit: int, tenant: str | None, contains: str) -> Page:
        first = f"{make_key(tenant)}:" if tenant else "conv:"
        part_of_name(contains)
        with self._errors(), pymongo.timeout(_WALK_SECONDS):
            keys = Conversation.objects.living().filter(pk__gt=cursor or first, pk__lt=first + "\uffff")
            if tenant == "":
                keys = keys.filter(pk__regex=r"^conv:[^:]+$")  # or the cursor would name other tenants' sessions
            if contains:
                keys = keys.filter(pk__contains=contains)
            page = list(keys.order_by("pk").values_list("pk", flat=True)[: limit + 1])
        sessions = [session_of(key) for key in page[:limit]]
        found = tuple(session for session in sessions if is_of(session, tenant))
        return Page(found, page[limit - 1] if len(page) > limit else "")

    def last_ids(self, sessions: Collection[str]) -> dict[str, str]:
        where = {"_id": {"$in": [make_key(session) for session in sessions]}} | unexpired()
        with self._errors(), pymongo.timeout(_WALK_SECONDS):
            found = list(self._collection(Conversation).find(where, {"messages": {"$slice": -1}}))
        lasts = ((session_of(document["_id"]), _last_id(document.get("messages"))) for document in found)
        return {session: last for session, last in lasts if last}

    def summaries(self, sessions: Collection[str]) -> dict[str, Summary]:
        if not sessions:
            return {}
        where = {"_id": {"$in": [make_key(session) for session in sessions]}} | unexpired()
        with self._errors():
            found = list(self._collection(Conversation).find(where, _ENDS))
        # What is empty is there for its tombstone.
        return {session_of(document["_id"]): _summary(document) for document in found if document["count"] != 0}

    def quarantine(self, session: str) -> bool:
        key = make_key(session)
        with self._errors():
            document = self._collection(Conversation).find_one({"_id": key})
            if document is None:
                return False
            kept = {"key": key, "document": document, "expires_at": self._expiry()}
            # Kept before it is taken away; a second copy after a crash in between harms nobody.
            self._collection(CorruptConversation).insert_one(kept)
            self._collection(Conversation).delete_one(document)
        return True

    def note(self, name: str) -> str | None:
        with self._errors():
            found = self._notes.find_one({"_id": name})
        return None if found is None else str(found["text"])

    def write_note(self, name: str, text: str) -> None:
        with self._errors():
            self._notes.update_one({"_id": name}, {"$set": {"text": text}}, upsert=True)

    def lease(self, name: str, holder: str, seconds: float) -> bool:
        mine = {"_id": f"lease:{name}", "$or": [{"holder": holder}, {"until": {"$lte": now()}}]}
        update = {"$set": {"holder": holder, "until": now() + timedelta(seconds=seconds)}}
        with self._errors():
            try:
                self._notes.update_one(mine, update, upsert=True)
            except DuplicateKeyError:
                return False
        return True

    def identity(self) -> str:
        with self._errors():
            return str(self._connection.database.command("hello").get("setVersion", ""))

    def ping(self) -> None:
        with self._errors():
            self._connection.database.command("ping")

    @property
    def _connection(self) -> Any:
        return connections[ALIAS]

    def _collection(self, model: type[Conversation | CorruptConversation]) -> MongoCollection[dict[str, Any]]:
        collection: MongoCollection[dict[str, Any]] = self._connection.get_collection(model._meta.db_table)
        return collection

    @property
    def _notes(self) -> MongoCollection[dict[str, Any]]:
        notes: MongoCollection[dict[str, Any]] = self._connection.get_collection("onesource_notes")
        return notes

    def _expiry(self) -> datetime:
        return now() + timedelta(seconds=self.limits.ttl)

    def _read(self, key: str) -> Any:
        # By the key alone: one more condition, and the ORM sends `$and`, which not every server answers from
        # its index.
        row = Conversation.objects.filter(pk=key).values_list("messages", "expires_at").first()
        return row[0] if row and row[1] > now() and row[0] != [] else None

    def _history(self, records: Any) -> History:
        try:
            return History.parse(records)
        except (TypeError, ValueError) as error:
            raise CorruptHistory(self.alias, error) from None

    def _push(self, pending: "_Pending") -> bool:
        """Add what is pending; return whether the document was new. Raise DuplicateKeyError, changing
        nothing, when any of it is there or tombstoned, when it would be too much, or when the document has expired."""
        turns = pending.turns()
        if not turns and not pending.flag:
            return False
        size = _size(turns)
        fields: dict[str, Any] = {"updated_at": now(), "expires_at": self._expiry()}
        where: dict[str, Any] = {"_id": pending.key} | unexpired()
        if pending.flag:
            fields["mark"] = uuid4().hex
        if turns:
            ids = [turn.id for turn in turns]
            where["messages.id"] = {"$ne": ids[0]} if len(ids) == 1 else {"$nin": ids}
            where["tombstone"] = {"$not": {"$gte": min(ids), "$regex": _ID}}
            where["bytes"] = {"$lte": max(self.limits.max_bytes - size, 0)}
            if pending.turn and pending.turn.question.key:
                where["messages.key"] = {"$ne": pending.turn.question.key}
        messages = [message.as_dict() for turn in turns for message in turn.messages()]
        result = self._collection(Conversation).update_one(
            where,
            {
                "$push": {
                    "messages": {
                        "$each": messages,
                        "$sort": {"id": 1},
                        "$slice": -2 * self.limits.max_turns,
                    }
                },
                "$inc": {"bytes": size},
                "$set": fields,
            },
            upsert=True,
        )
        return result.upserted_id is not None

    def _forget(self, key: str, upto: str, flag: bool) -> bool:
        """Take away the messages up to an id and leave a tombstone, in one step; return whether there were any.
        Raise DuplicateKeyError, changing nothing, when the document has expired or its tombstone is no id."""
        later = {"$filter": {"input": "$messages", "as": "one", "cond": {"$gt": ["$$one.id", upto]}}}
        fields: dict[str, Any] = {
            "messages": {"$cond": [{"$isArray": "$messages"}, later, []]},
            "tombstone": {"$max": ["$tombstone", upto]},
            "updated_at": now(),
            "expires_at": self._expiry(),
        }
        if flag:
            fields["mark"] = uuid4().hex
        # A stage of its own, since it looks at the messages that are left.
        size = {"bytes": {"$cond": [{"$eq": ["$messages", []]}, 0, "$bytes"]}}
        where = {"_id": key, "tombstone": {"$in": [None, re.compile(_ID)]}} | unexpired()
        before = self._collection(Conversation).find_one_and_update(
            where, [{"$set": fields}, {"$set": size}], upsert=True
        )
        return before is not None and _holds_up_to(before.get("messages"), upto)

    def _make_room(self, pending: "_Pending") -> None:
        """Find out why what is pending could not be added and mend it; leave pending what still can be."""
        collection = self._collection(Conversation)
        collection.delete_one({"_id": pending.key, "expires_at": {"$lte": now()}})
        document = collection.find_one({"_id": pending.key})
        if document is None:
            return
        records = document.get("messages")
        history = History() if records == [] else self._history(records)
        pending.compare(history, tombstone_in(self.alias, session_of(pending.key), document.get("tombstone")) or "")
        kept = merge.stored([*history.turns(), *pending.turns()], self.limits).turns()
        pending.fit(kept)
        stay = [turn for turn in kept if turn not in pending.turns()]
        ids = [message.id for message in history]
        collection.update_one(
            # Only while it has the messages that were read. Equal `bytes` do not show it: another append may have
            # added a turn and dropped one of the same size.
            {"_id": pending.key, "$expr": {"$eq": [_IDS, ids]}},
            {
                "$pull": {"messages": {"id": {"$lt": stay[0].id if stay else "~"}}},
                # An upper bound in between, since $slice does not say how long the messages were that it dropped.
                "$set": {"bytes": _size(stay)},
            },
        )

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn every way the driver reports a fault into one of ours."""
        fail_fast()
        try:
            yield
        except (DatabaseError, PyMongoError) as error:
            cause = error.__cause__ if isinstance(error, DatabaseError) and error.__cause__ else error
            raise StoreUnavailable(self.alias, type(cause).__name__) from error


class _Pending:
    """What an append has still to add, and what became known of it on the way."""

    def __init__(self, key: str, turn: Turn | None, missing: list[Turn], flag: bool) -> None:
        self.key = key
        self.turn = turn
        self.missing = missing
        self.flag = flag
        self.new = turn is not None
        self.empty = False
        self.tombstone: str | None = None

    def turns(self) -> list[Turn]:
        return [*self.missing, self.turn] if self.turn else self.missing

    def compare(self, history: History, tombstone: str) -> None:
        """Leave out what is there and what is tombstoned."""
        self.empty = not history.messages
        there = {turn.id for turn in history.turns()}
        self.missing = [turn for turn in self.missing if turn.id not in there and turn.id > tombstone]
        if self.turn and self.turn.id <= tombstone:
            self.turn, self.new, self.tombstone = None, False, tombstone
        elif self.turn and history.knows(self.turn):
            self.turn, self.new = None, False

    def fit(self, kept: Sequence[Turn]) -> None:
        """Leave out what would be trimmed as soon as it was there."""
        self.missing = [turn for turn in self.missing if turn in kept]
        if self.turn not in kept:
            self.turn = None


def _holds_up_to(records: Any, upto: str) -> bool:
    """Return whether a deletion up to the id takes anything away: what has no id goes too."""
    if not isinstance(records, list):
        return True
    ids = (record.get("id") if isinstance(record, dict) else None for record in records)
    return any(not (isinstance(id_, str) and id_ > upto) for id_ in ids)


def _last_id(records: Any) -> str | None:
    """Return the last message's id, None where there is none that could be one."""
    found = _fields(records).get("id")
    return found if isinstance(found, str) else None


def _fields(records: Any) -> dict[str, Any]:
    """Return the last message's fields, none where there is no message."""
    last = records[-1] if isinstance(records, list) and records else None
    return last if isinstance(last, dict) else {}


def _summary(document: dict[str, Any]) -> Summary:
    """Return the summary of a document that was read as _ENDS."""
    last = _fields(document["last"])
    return Summary.of_end(document["count"], last.get("id"), last.get("at"))


def _size(turns: list[Turn]) -> int:
    return sum(len(turn.lines()) for turn in turns)
