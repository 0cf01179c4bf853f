"""Giving MongoDB many conversations: those that are new in one insertion, and to each other one what it is missing."""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pymongo import UpdateOne, WriteConcern
from pymongo.errors import BulkWriteError

from conversations import merge
from conversations.clock import now
from conversations.errors import CorruptHistory
from conversations.models import Conversation, CorruptConversation
from conversations.stores.base import NO_TIME, Contents, HistoryStore
from conversations.stores.bulk import Attempt, Share
from conversations.stores.mongo.append import Append
from conversations.stores.mongo.document import found_in
from conversations.stores.mongo.filters import expired, expiry_in, unexpired
from conversations.stores.mongo.patient import NOTES, Document, Documents, documents, patient
from conversations.stores.mongo.places import place_of
from conversations.stores.sessions import make_key
from conversations.turns import History, Limits, Turn

_CONVERSATIONS, _COPIES = Conversation._meta.db_table, CorruptConversation._meta.db_table
_NEARLY = timedelta(minutes=1)  # two stores' TTLs of one turn are never quite the same
_NOTHING = Contents(None, None, None)


@dataclass(frozen=True, eq=False)
class Present:
    """A conversation that is there, and the share that it is to be given."""

    share: Share
    document: Document
    held: Contents

    @property
    def given(self) -> list[Turn]:
        """The turns of the share that no tombstone covers."""
        tombstone = max(self.share.tombstone, self.held.tombstone or "")
        return [turn for turn in self.share.turns if turn.id > tombstone]

    def missing(self, limits: Limits) -> list[Turn]:
        """Return the turns to append; none where the conversation would stay as it is."""
        own = (self.held.history or History()).turns()
        there = {turn.id for turn in own}
        new = [turn for turn in self.given if turn.id not in there]
        tombstone = max(self.share.tombstone, self.held.tombstone or "")
        before = [turn for turn in own if turn.id > tombstone]
        return new if merge.stored([*before, *new], limits) != History.of(before) else []


class Putting:
    """One attempt to put shares."""

    def __init__(self, store: HistoryStore, database: str, replace: bool) -> None:
        self._store, self._database, self._replace = store, database, replace
        self.attempt = Attempt()

    def put(self, shares: Sequence[Share]) -> None:
        """Attempt it; raise StoreUnavailable."""
        found = self._find(shares)
        self._insert([share for share in shares if make_key(share.session) not in found])
        present, replaced = list[Present](), list[Present]()
        for share in shares:
            if document := found.get(make_key(share.session)):
                held = found_in(document)
                if isinstance(held, CorruptHistory):
                    self.attempt.corrupt.append(share)
                else:
                    one = Present(share, document, held)
                    (replaced if self._replace and one.given else present).append(one)
        self._merge(present)
        self._replace_all(replaced)

    def _find(self, shares: Sequence[Share]) -> dict[str, Document]:
        """Return the documents of the sessions by key; delete those that have expired, which are in the way."""
        keys = [make_key(share.session) for share in shares]
        with self._patient():
            found = {one["_id"]: one for one in self._documents().find({"_id": {"$in": keys}})}
            past = [key for key, one in found.items() if expiry_in(one) <= now()]
            if past:
                self._documents().delete_many({"_id": {"$in": past}} | expired())
        return {key: one for key, one in found.items() if key not in past}

    def _insert(self, shares: Sequence[Share]) -> None:
        """Insert those that are not there."""
        if not shares:
            return
        there: set[int] = set()
        with self._patient():
            try:
                new = [self._document(share, share.tombstone) for share in shares]
                self._documents().insert_many(new, ordered=False)
            except BulkWriteError as error:
                there = _duplicates(error)
        self._delete_copies(share for number, share in enumerate(shares) if share.tombstone and number not in there)
        for number, share in enumerate(shares):
            if number in there:
                self.attempt.contended.append(share)
            else:
                self._count(Present(share, {}, _NOTHING))

    def _merge(self, present: Sequence[Present]) -> None:
        """Give each conversation what it is missing, if anything."""
        limits = self._store.limits
        for one in present:
            if one.share.tombstone > (one.held.tombstone or ""):
                self._store.delete(one.share.session, one.share.tombstone)
        missing = {one: turns for one in present if (turns := one.missing(limits))}
        updates = [Append(one.share.session, None, turns, False, limits).as_update() for one, turns in missing.items()]
        failed = {list(missing)[number] for number in self._write(updates)}
        for one in present:
            if one in failed and not self._append(one.share, missing[one]):
                continue
            if one.given and one not in missing:
                self._renew(one)
            self._count(one)

    def _append(self, share: Share, missing: Sequence[Turn]) -> bool:
        """Add the turns to a conversation where something was in the way; return whether it is a history."""
        try:
            self._store.append(share.session, None, missing)
        except CorruptHistory:
            self.attempt.corrupt.append(share)
            return False
        return True

    def _write(self, updates: Sequence[UpdateOne]) -> set[int]:
        """Write them, and return when all are on the disk. Return the numbers of those that failed."""
        if not updates:
            return set()
        failed: set[int] = set()
        with self._patient():
            written = quick(self._documents())
            try:
                written.bulk_write(updates, ordered=False)
            except BulkWriteError as error:
                failed = _failed(error)
            self._documents(NOTES).update_one({"_id": "written"}, {"$set": {"at": now()}}, upsert=True)
        return failed

    def _renew(self, one: Present) -> None:
        """Have a conversation, if it still is there, live as long as its share."""
        expiry = now() + timedelta(seconds=min(self._store.limits.ttl, one.share.ttl))
        if expiry_in(one.document) + _NEARLY < expiry:
            with self._patient():
                where = {"_id": one.document["_id"]} | unexpired()
                self._documents().update_one(where, {"$max": {"expires_at": expiry}})

    def _replace_all(self, replaced: Sequence[Present]) -> None:
        """Replace these conversations where their tombstones are those that were found."""
        self._delete_copies(one.share for one in replaced if one.share.tombstone > (one.held.tombstone or ""))
        failed = self._write([self._update(one) for one in replaced])
        for number, one in enumerate(replaced):
            if number in failed:
                self.attempt.contended.append(one.share)
            else:
                self._count(one)

    def _update(self, one: Present) -> UpdateOne:
        fields = self._document(one.share, max(one.share.tombstone, one.held.tombstone or ""))
        where = {"_id": fields.pop("_id"), "tombstone": one.document.get("tombstone")}
        expiry = {"expires_at": fields.pop("expires_at")}
        return UpdateOne(where, {"$set": fields, "$max": expiry}, upsert=True)

    def _document(self, share: Share, tombstone: str) -> Document:
        """Return the document of a conversation that has only what its share has."""
        history, size = merge.stored_with_size(share.turns, self._store.limits, tombstone)
        # One that has a tombstone lives as long as that.
        ttl = min(self._store.limits.ttl, share.ttl) if history and not tombstone else self._store.tombstone_ttl
        time = now()
        document: Document = {
            "_id": make_key(share.session),
            "messages": [message.as_dict() for message in history],
            "bytes": size,
            **place_of(share.session, history[-1].at if history else NO_TIME),
            "expires_at": time + timedelta(seconds=ttl),
        }
        return document | ({"tombstone": tombstone} if tombstone else {})

    def _delete_copies(self, shares: Iterable[Share]) -> None:
        """Delete the quarantined copies of conversations, as a deletion does."""
        if keys := [make_key(share.session) for share in shares]:
            with self._patient():
                self._documents(_COPIES).delete_many({"key": {"$in": keys}})

    def _documents(self, table: str = _CONVERSATIONS) -> Documents:
        return documents(table, self._database)

    def _patient(self) -> AbstractContextManager[None]:
        return patient(database=self._database)

    def _count(self, one: Present) -> None:
        self.attempt.count(len(one.given), len(one.held.history or ()), self._replace)


def quick(found: Documents) -> Documents:
    """Return the collection for writes that another one, which waits for the disk, follows. A server alone waits with
    that for all before it too, and SecantusDB would wait once for each. Of several servers another may take the last
    write, after a failover or as another shard: there each waits itself."""
    described = found.database.client.topology_description.server_descriptions().values()
    alone = [one.server_type_name for one in described] in (["Standalone"], ["RSPrimary"])
    return found.with_options(write_concern=WriteConcern(w=1, j=False)) if alone else found


def _duplicates(error: BulkWriteError) -> set[int]:
    """Return which of a batch were there already; raise the error if anything else was wrong."""
    details: Any = error.details
    if any(one["code"] != 11000 for one in details["writeErrors"]):
        raise error
    return _failed(error)


def _failed(error: BulkWriteError) -> set[int]:
    """Return which of a batch failed; raise the error where it may be that none is on the disk."""
    details: Any = error.details
    if details.get("writeConcernErrors"):
        raise error
    return {int(one["index"]) for one in details["writeErrors"]}
