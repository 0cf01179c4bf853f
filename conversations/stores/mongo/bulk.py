"""MongoDB in bulk: one cursor over the collection, one bulk write a batch, and pauses between batches."""

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from functools import partial
from itertools import chain
from typing import Any

from pymongo import DeleteMany, UpdateOne

from conversations import expiry
from conversations.clock import now
from conversations.models import ALIAS, Conversation, CorruptConversation
from conversations.stores.base import Contents, HistoryStore
from conversations.stores.batches import PATIENCE, batches
from conversations.stores.bulk import Attempt, BulkStore, Removal, Share
from conversations.stores.bulk_reader import Entry, Found
from conversations.stores.mongo import flags
from conversations.stores.mongo.document import (
    contents_of,
    digest_in,
    entry_of,
    histories_of,
    history_of,
    last_ids_of,
    tombstones_of,
)
from conversations.stores.mongo.filters import expired, expiry_in, living, unexpired
from conversations.stores.mongo.keys import keys_pushed, retried_without_wrong
from conversations.stores.mongo.patient import Document, Documents, documents, errors, pages, patient
from conversations.stores.mongo.put import Putting
from conversations.stores.sessions import is_key, make_key, session_of
from conversations.turns import History
from conversations.used_keys import Keys

PAUSE = 0.002  # seconds in which other clients have their turn
_PAGE = 200
_COMPARED = 50  # names in one query: SecantusDB compares each document of its answer with all of them
_LAST = {"messages": {"$slice": -1}}
_TABLES = (Conversation._meta.db_table, CorruptConversation._meta.db_table)


class MongoBulk(BulkStore):
    """Many conversations of MongoDB; each changes in one update of its document."""

    expired_name = "expired_documents"

    def __init__(self, store: HistoryStore, database: str = ALIAS) -> None:
        super().__init__(store)
        self._database = database

    # --- Reading ---------------------------------------------------------------------------------------

    def sessions(self, size: int) -> Iterator[tuple[str, ...]]:
        self.store.ping()  # which fails fast
        for page in self._pages(living(), size, {"_id": 1}):
            yield tuple(session_of(one["_id"]) for one in page if is_key(one["_id"]))

    def present(self, sessions: Collection[str]) -> set[str]:
        with errors():
            found = self._documents().find(_named(sessions) | {"bytes": {"$gt": 0}}, {"_id": 1})
            return {session_of(document["_id"]) for document in found}

    def contents(self, sessions: Collection[str]) -> dict[str, Found]:
        found: dict[str, Found] = {session: Contents(None, None, None) for session in sessions}
        if not found:
            return {}
        with self._patient():
            held = list(self._documents().find(_named(found)))
        return found | {session_of(document["_id"]): contents_of(document) for document in held}

    def digests(self, sessions: Collection[str]) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for names in batches(sessions, _COMPARED):
            for document in self._find(names, {"messages.id": 1, "tombstone": 1}):
                if digest := digest_in(document):
                    found[session_of(document["_id"])] = digest
        return found

    def last_ids(self, sessions: Collection[str]) -> dict[str, str]:
        return last_ids_of(self._find(sessions, _LAST))

    def histories(self, sessions: Collection[str]) -> dict[str, History]:
        return histories_of(self._find(sessions, {"messages": 1}))

    def all_last_ids(self, size: int) -> Iterator[dict[str, str]]:
        return map(last_ids_of, self._pages(unexpired(), size, _LAST))

    def all_histories(self, size: int) -> Iterator[dict[str, History]]:
        return map(histories_of, self._pages(unexpired(), size, {"messages": 1}))

    def ttls(self, sessions: Collection[str]) -> dict[str, int]:
        held = self._find(sessions, {"expires_at": 1}, {"bytes": {"$gt": 0}})
        return {session_of(one["_id"]): round((expiry_in(one) - now()).total_seconds()) for one in held}

    def tombstones(self, size: int) -> Iterator[dict[str, str]]:
        # Those without a tombstone are left out here: there is no index, and the server would look for the first page
        # of tombstones through all documents.
        return map(tombstones_of, self._pages(unexpired(), size, {"tombstone": 1}))

    def entries(self, size: int) -> Iterator[list[Entry]]:
        for page in self._pages({}, size):
            yield list(filter(None, map(entry_of, page)))

    def estimate(self, seconds: float = PATIENCE) -> int:
        self.store.ping()  # which fails fast
        with patient(seconds, self._database):
            return int(self._documents().estimated_document_count())

    # --- Changing --------------------------------------------------------------------------------------

    def _put(self, shares: Sequence[Share], replace: bool) -> Attempt:
        putting = Putting(self.store, self._database, replace)
        putting.put(shares)
        return putting.attempt

    def keep_keys(self, keys: Mapping[str, Keys]) -> None:
        updates = [
            UpdateOne({"_id": make_key(session)} | unexpired(), {"$push": keys_pushed(each)})
            for session, each in keys.items()
        ]
        if updates:
            with self._patient():
                write = partial(self._documents().bulk_write, updates, ordered=False)
                retried_without_wrong(write, self._documents(), map(make_key, keys))

    def remove(self, last_ids: Mapping[str, str], *, tombstones: bool) -> Removal:
        there = self.last_ids(last_ids)
        removed = frozenset(session for session, last in there.items() if last <= last_ids[session])
        kept = frozenset(there) - removed
        self._write(self._removals({name: last for name, last in last_ids.items() if name not in kept}, tombstones))
        return Removal(removed, kept)

    def trim(self, ends: Mapping[str, str], *, tombstones: bool) -> None:
        tombstone_ttl = self.store.tombstone_ttl if tombstones else 0
        longer = tombstone_ttl > self.limits.ttl + expiry.MARGIN
        until = now() + timedelta(seconds=tombstone_ttl) if longer else None
        self._write(_cut(session, end, tombstones, until) for session, end in ends.items())
        # Counted anew, since MongoDB does not say how long the messages were that went.
        self._write(filter(None, map(_size, self._find(ends, {"messages": 1, "bytes": 1}))))

    def expire(self, *, apply: bool) -> int:
        return sum(self._expired(table) if apply else self._count_expired(table) for table in _TABLES)

    def flagged(self, size: int) -> Iterator[list[str]]:
        return batches(chain.from_iterable(self._flagged()), size)

    def _flagged(self) -> Iterator[list[str]]:
        walk = flags.walk(self._documents())
        while True:
            with self._patient():
                part = next(walk, None)
            if part is None:
                return
            yield part

    def clear_flags(self, values: Mapping[str, str]) -> None:
        if values:
            with self._patient():
                flags.clear(self._documents(), values)

    def _removals(self, last_ids: Mapping[str, str], tombstones: bool) -> list[Any]:
        """Return the updates that empty these documents; one that has a tombstone stays for it."""
        until = now() + timedelta(seconds=self.store.tombstone_ttl)
        updates: list[Any] = [
            UpdateOne(_not_gone_on(session, last), _emptied(last, until) if tombstones else _EMPTY)
            for session, last in last_ids.items()
        ]
        empty: Document = {"_id": {"$in": list(map(make_key, last_ids))}, "messages": [], "tombstone": None}
        return updates if tombstones or not updates else [*updates, DeleteMany(empty)]

    def _find(self, sessions: Collection[str], fields: Document, where: Document | None = None) -> list[Document]:
        """Return these fields of the documents of the sessions."""
        if not sessions:
            return []
        with self._patient():
            return list(self._documents().find(_named(sessions) | (where or {}), fields))

    def _write(self, updates: Iterable[Any]) -> None:
        if batch := list(updates):
            with self._patient():
                self._documents().bulk_write(batch)
            time.sleep(PAUSE)

    def _count_expired(self, table: str) -> int:
        with self._patient():
            return self._documents(table).count_documents(_expired_in(table))

    def _expired(self, table: str) -> int:
        """Delete the expired documents of a collection, a page at a time; return how many there were."""
        gone, where = 0, _expired_in(table)
        while page := self._page_of(table, where):
            with self._patient():
                # Asked again: a turn may have renewed one meanwhile.
                gone += self._documents(table).delete_many({"$and": [{"_id": {"$in": page}}, where]}).deleted_count
            time.sleep(PAUSE)
        return gone

    def _page_of(self, table: str, where: Document) -> list[Any]:
        with self._patient():
            return [one["_id"] for one in self._documents(table).find(where, {"_id": 1}).limit(_PAGE)]

    def _documents(self, table: str = Conversation._meta.db_table) -> Documents:
        return documents(table, self._database)

    def _patient(self) -> AbstractContextManager[None]:
        return patient(database=self._database)

    def _pages(self, where: Document, size: int, fields: Document | None = None) -> Iterator[list[Document]]:
        return pages(where, size, fields, self._database)


_EMPTY: Document = {"$set": {"messages": [], "bytes": 0}}


def _named(sessions: Iterable[str]) -> Document:
    return {"_id": {"$in": [make_key(session) for session in sessions]}} | unexpired()


def _expired_in(table: str) -> Document:
    """Return the filter of what has expired in a collection; a document without an expiry may be another program's."""
    return {"_id" if table == _TABLES[0] else "key": {"$gte": "conv:", "$lt": "conv;"}} | expired()


def _not_gone_on(session: str, last: str) -> Document:
    """Return the condition that there are messages, or were, and none is later."""
    return {"_id": make_key(session), "messages": {"$type": "array"}, "messages.id": {"$not": {"$gt": last}}}


def _emptied(last: str, until: datetime) -> Document:
    """Return the update that leaves only a tombstone, which lives until then or longer."""
    fields = {"messages": [], "bytes": 0, "updated_at": now()}
    return {"$set": fields, "$max": {"tombstone": last, "expires_at": until}}


def _cut(session: str, end: str, tombstones: bool, until: datetime | None) -> UpdateOne:
    """Return the update that removes the turns up to an id; what is left is to live until then, if that is given."""
    update: Document = {"$pull": {"messages": {"id": {"$lte": end}}}, "$set": {"updated_at": now()}}
    if tombstones:
        update["$max"] = {"tombstone": end} | ({"expires_at": until} if until else {})
    return UpdateOne({"_id": make_key(session), "messages.id": {"$lte": end}}, update)


def _size(document: Document) -> UpdateOne | None:
    """Return the update that makes `bytes` right where nothing else was added meanwhile; until then, and else, it is
    an upper bound."""
    history = history_of(document.get("messages"))
    if history is None:
        return None
    size = len(history.lines())
    same = {"_id": document["_id"], "bytes": document.get("bytes")}  # it grows with every turn that is added
    return UpdateOne(same, {"$set": {"bytes": size}})
