"""What operators' commands, and repair, change in MongoDB in bulk: one bulk write a batch, and a pause after it."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from pymongo import DeleteMany, UpdateOne

from conversations import expiry
from conversations.clock import now
from conversations.models import Conversation, CorruptConversation
from conversations.stores.batches import retried
from conversations.stores.bulk import Attempt, BulkStore, Removal, Share
from conversations.stores.mongo import flags
from conversations.stores.mongo.bulk_reader import MongoReader
from conversations.stores.mongo.document import history_of
from conversations.stores.mongo.filters import expired, of_conversations, unexpired
from conversations.stores.mongo.format import LAST
from conversations.stores.mongo.keys import keys_pushed, retried_without_wrong
from conversations.stores.mongo.patient import Document
from conversations.stores.mongo.places import end_of, place_of
from conversations.stores.mongo.put import Putting
from conversations.stores.sessions import is_key, make_key, session_of
from conversations.used_keys import Keys

PAUSE = 0.002  # seconds in which other clients have their turn
_PAGE = 200
_TABLES = (Conversation._meta.db_table, CorruptConversation._meta.db_table)


class MongoBulk(MongoReader, BulkStore):
    """Many conversations of MongoDB; each changes in one update of its document."""

    expired_name = "expired_documents"

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
        there = retried(partial(self.last_ids, last_ids))
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

    def list_all(self) -> Iterator[int]:
        # Without a condition on their keys: with one, the embedded server finds none by the index.
        for page in self._pages({"place": None, "bytes": {"$gt": 0}}, _PAGE, {"last": LAST}):
            ours = [one for one in page if is_key(one["_id"])]
            self._write(_placed(session_of(one["_id"]), end_of(one["last"])) for one in ours)
            yield len(ours)

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

    def _write(self, updates: Iterable[Any]) -> None:
        """Make the updates, each of which does nothing where it has been made."""
        if batch := list(updates):
            retried(partial(self._write_once, batch))
            time.sleep(PAUSE)

    def _write_once(self, batch: Sequence[Any]) -> None:
        with self._patient():
            self._documents().bulk_write(batch)

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


_EMPTY: Document = {"$set": {"messages": [], "bytes": 0}}


def _expired_in(table: str) -> Document:
    """Return the filter of what has expired in a collection; a document without an expiry may be another program's."""
    return {"_id" if table == _TABLES[0] else "key": of_conversations()} | expired()


def _not_gone_on(session: str, last: str) -> Document:
    """Return the condition that there are messages, or were, and none is later."""
    return {"_id": make_key(session), "messages": {"$type": "array"}, "messages.id": {"$not": {"$gt": last}}}


def _emptied(last: str, until: datetime) -> Document:
    """Return the update that leaves only a tombstone, which lives until then or longer."""
    return {**_EMPTY, "$max": {"tombstone": last, "expires_at": until}}


def _cut(session: str, end: str, tombstones: bool, until: datetime | None) -> UpdateOne:
    """Return the update that removes the turns up to an id; what is left is to live until then, if that is given."""
    update: Document = {"$pull": {"messages": {"id": {"$lte": end}}}}
    if tombstones:
        update["$max"] = {"tombstone": end} | ({"expires_at": until} if until else {})
    return UpdateOne({"_id": make_key(session), "messages.id": {"$lte": end}}, update)


def _placed(session: str, at: str) -> UpdateOne:
    """Return the update that gives a document its place, unless it has one by now."""
    return UpdateOne({"_id": make_key(session), "place": None}, {"$set": place_of(session, at)})


def _size(document: Document) -> UpdateOne | None:
    """Return the update that makes `bytes` right where nothing else was added meanwhile; until then, and else, it is
    an upper bound."""
    history = history_of(document.get("messages"))
    if history is None:
        return None
    size = len(history.lines())
    same = {"_id": document["_id"], "bytes": document.get("bytes")}  # it grows with every turn that is added
    return UpdateOne(same, {"$set": {"bytes": size}})
