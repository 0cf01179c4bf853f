"""MongoDB in bulk: one cursor over the collection, one bulk write a batch, and pauses between batches."""

import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from pymongo import DeleteMany, UpdateOne

from conversations.errors import CorruptHistory
from conversations.models import Conversation, CorruptConversation
from conversations.stores.base import Contents, tombstone_in
from conversations.stores.bulk import PATIENCE, BulkStore, Found, Removal
from conversations.stores.mongo.filters import living, unexpired
from conversations.stores.mongo.patient import Document, documents, errors, pages, patient
from conversations.stores.sessions import is_key, make_key, session_of
from conversations.turns import MESSAGE_ID, History, now

PAUSE = 0.002  # seconds in which other clients have their turn
_PAGE = 200
_LAST = {"messages": {"$slice": -1}}
_TABLES = (Conversation._meta.db_table, CorruptConversation._meta.db_table)


class MongoBulk(BulkStore):
    """Many conversations of MongoDB; each changes in one update of its document."""

    expired_name = "expired_documents"

    # --- Reading ---------------------------------------------------------------------------------------

    def sessions(self, size: int) -> Iterator[tuple[str, ...]]:
        self.store.ping()  # which fails fast
        for page in pages(living(), size, {"_id": 1}):
            yield tuple(session_of(document["_id"]) for document in page)

    def present(self, sessions: Collection[str]) -> set[str]:
        with errors():
            found = documents().find(_named(sessions) | {"bytes": {"$gt": 0}}, {"_id": 1})
            return {session_of(document["_id"]) for document in found}

    def contents(self, sessions: Collection[str]) -> dict[str, Found]:
        found: dict[str, Found] = {session: Contents(None, None, None) for session in sessions}
        if not found:
            return {}
        with errors():
            held = list(documents().find(_named(found)))
        return found | {session_of(document["_id"]): _contents(document) for document in held}

    def last_ids(self, sessions: Collection[str]) -> dict[str, str]:
        return _last_ids(self._find(sessions, _LAST))

    def histories(self, sessions: Collection[str]) -> dict[str, History]:
        return _histories(self._find(sessions, {"messages": 1}))

    def all_last_ids(self, size: int) -> Iterator[dict[str, str]]:
        return map(_last_ids, pages(unexpired(), size, _LAST))

    def all_histories(self, size: int) -> Iterator[dict[str, History]]:
        return map(_histories, pages(unexpired(), size, {"messages": 1}))

    def ttls(self, sessions: Collection[str]) -> dict[str, int]:
        held = self._find(sessions, {"expires_at": 1}, {"bytes": {"$gt": 0}})
        return {session_of(one["_id"]): _seconds_until(one["expires_at"]) for one in held}

    def tombstones(self) -> Iterator[tuple[str, str]]:
        for page in pages(unexpired() | {"tombstone": {"$gt": ""}}, _PAGE, {"tombstone": 1}):
            for session, value in ((session_of(one["_id"]), one["tombstone"]) for one in page):
                if tombstone := tombstone_in(self.alias, session, value):
                    yield session, tombstone

    def estimate(self, seconds: float = PATIENCE) -> int:
        self.store.ping()  # which fails fast
        with patient(seconds):
            return int(documents().estimated_document_count())

    # --- Changing --------------------------------------------------------------------------------------

    def remove(self, last_ids: Mapping[str, str], *, tombstones: bool) -> Removal:
        there = self.last_ids(last_ids)
        removed = frozenset(session for session, last in there.items() if last <= last_ids[session])
        kept = frozenset(there) - removed
        self._write(self._removals({name: last for name, last in last_ids.items() if name not in kept}, tombstones))
        return Removal(removed, kept)

    def trim(self, ends: Mapping[str, str], *, tombstones: bool) -> None:
        self._write(_cut(session, end, tombstones) for session, end in ends.items())
        # Counted anew, since MongoDB does not say how long the messages were that went.
        self._write(filter(None, map(_size, self._find(ends, {"messages": 1, "bytes": 1}))))

    def expire(self, *, apply: bool) -> int:
        return sum(_expired(table) if apply else _count_expired(table) for table in _TABLES)

    def _removals(self, last_ids: Mapping[str, str], tombstones: bool) -> list[Any]:
        """Return the updates that empty these documents; one that has a tombstone stays for it."""
        expiry = now() + timedelta(seconds=self.limits.ttl)
        updates: list[Any] = [
            UpdateOne(_not_gone_on(session, last), _emptied(last, expiry) if tombstones else _EMPTY)
            for session, last in last_ids.items()
        ]
        empty: Document = {"_id": {"$in": list(map(make_key, last_ids))}, "messages": [], "tombstone": None}
        return updates if tombstones or not updates else [*updates, DeleteMany(empty)]

    def _find(self, sessions: Collection[str], fields: Document, where: Document | None = None) -> list[Document]:
        """Return these fields of the documents of the sessions."""
        if not sessions:
            return []
        with patient():
            return list(documents().find(_named(sessions) | (where or {}), fields))

    def _write(self, updates: Iterable[Any]) -> None:
        if batch := list(updates):
            with patient():
                documents().bulk_write(batch)
            time.sleep(PAUSE)


_EMPTY: Document = {"$set": {"messages": [], "bytes": 0}}


def _seconds_until(time: datetime) -> int:
    return round((time.replace(tzinfo=UTC) - now()).total_seconds())  # the driver gives UTC without saying so


def _named(sessions: Iterable[str]) -> Document:
    return {"_id": {"$in": [make_key(session) for session in sessions]}} | unexpired()


def _not_gone_on(session: str, last: str) -> Document:
    """Return the condition that there are messages, or were, and none is later."""
    return {"_id": make_key(session), "messages": {"$type": "array"}, "messages.id": {"$not": {"$gt": last}}}


def _emptied(last: str, expiry: datetime) -> Document:
    """Return the update that leaves only a tombstone."""
    kept = {"updated_at": now(), "expires_at": expiry}
    return {"$set": {"messages": [], "bytes": 0} | kept, "$max": {"tombstone": last}}


def _cut(session: str, end: str, tombstones: bool) -> UpdateOne:
    """Return the update that removes the turns up to an id."""
    update: Document = {"$pull": {"messages": {"id": {"$lte": end}}}, "$set": {"updated_at": now()}}
    if tombstones:
        update["$max"] = {"tombstone": end}
    return UpdateOne({"_id": make_key(session), "messages.id": {"$lte": end}}, update)


def _size(document: Document) -> UpdateOne | None:
    """Return the update that makes `bytes` right where nothing else was added meanwhile; until then, and else, it is
    an upper bound."""
    history = _parsed(document.get("messages"))
    if history is None:
        return None
    size = len(history.lines())
    same = {"_id": document["_id"], "bytes": document.get("bytes")}  # it grows with every turn that is added
    return UpdateOne(same, {"$set": {"bytes": size}})


def _contents(document: Document) -> Found:
    records = document.get("messages")
    try:
        history = None if records == [] else History.parse(records)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        return CorruptHistory("mongo", error)
    tombstone = tombstone_in("mongo", session_of(document["_id"]), document.get("tombstone"))
    return Contents(history, tombstone, document.get("mark"))


def _last_ids(page: list[Document]) -> dict[str, str]:
    found = {session_of(one["_id"]): _last_id(one.get("messages")) for one in page if _is_key(one["_id"])}
    return {session: last for session, last in found.items() if last}


def _last_id(records: Any) -> str:
    """Return the id of the last message; "" where there is none, or it has none."""
    last = records[-1] if isinstance(records, list) and records else None
    id_ = last.get("id") if isinstance(last, dict) else None
    return id_ if isinstance(id_, str) and MESSAGE_ID.fullmatch(id_) else ""


def _histories(page: list[Document]) -> dict[str, History]:
    found = {session_of(one["_id"]): _parsed(one.get("messages")) for one in page if _is_key(one["_id"])}
    return {session: history for session, history in found.items() if history}


def _parsed(records: Any) -> History | None:
    """Return the history of the records, empty for none; None where they are no history."""
    try:
        return History() if records == [] else History.parse(records)
    except (TypeError, ValueError):
        return None


def _is_key(key: Any) -> bool:
    return isinstance(key, str) and is_key(key)


def _count_expired(table: str) -> int:
    with patient():
        return documents(table).count_documents({"expires_at": {"$lte": now()}})


def _expired(table: str) -> int:
    """Delete the expired documents of a collection, a page at a time; return how many there were."""
    gone, where = 0, {"expires_at": {"$lte": now()}}
    while page := _page_of(table, where):
        with patient():
            # Asked again: a turn may have renewed one meanwhile.
            gone += documents(table).delete_many({"_id": {"$in": page}, **where}).deleted_count
        time.sleep(PAUSE)
    return gone


def _page_of(table: str, where: Document) -> list[Any]:
    with patient():
        return [one["_id"] for one in documents(table).find(where, {"_id": 1}).limit(_PAGE)]
