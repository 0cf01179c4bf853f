"""Giving MongoDB many conversations: those that are new in one insertion, and to each other one what it is missing."""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import Any

from pymongo import UpdateOne
from pymongo.errors import BulkWriteError

from conversations import merge
from conversations.clock import now
from conversations.errors import CorruptHistory
from conversations.models import Conversation, CorruptConversation
from conversations.stores.base import Contents, HistoryStore
from conversations.stores.bulk import Attempt, Share
from conversations.stores.mongo.document import contents_of
from conversations.stores.mongo.patient import Document, Documents, documents, patient
from conversations.stores.sessions import make_key
from conversations.turns import History, Turn

_CONVERSATIONS, _COPIES = Conversation._meta.db_table, CorruptConversation._meta.db_table
_NEARLY = timedelta(minutes=1)  # two stores' TTLs of one turn are never quite the same
_NOTHING = Contents(None, None, None)


class Putting:
    """One attempt to put shares."""

    def __init__(self, store: HistoryStore, database: str, replace: bool) -> None:
        self._store, self._database, self._replace = store, database, replace
        self.attempt = Attempt()

    def put(self, shares: Sequence[Share]) -> None:
        """Attempt it; raise StoreUnavailable."""
        present = self._insert(shares)
        found = self._find(present)
        replaced = list[tuple[Share, Document, Contents]]()
        for share in present:
            document = found.get(make_key(share.session))
            held = _held(document)
            if document is None:
                self.attempt.contended.append(share)
            elif isinstance(held, CorruptHistory):
                self.attempt.corrupt.append(share)
            elif self._replace and _given(share, held):
                replaced.append((share, document, held))
            else:
                self._merge(share, document, held)
        self._replace_all(replaced)

    def _insert(self, shares: Sequence[Share]) -> list[Share]:
        """Insert those that are not there; return the others."""
        there: set[int] = set()
        with self._patient():
            try:
                new = [self._document(share, share.tombstone) for share in shares]
                self._documents().insert_many(new, ordered=False)
            except BulkWriteError as error:
                there = set(_duplicates(error))
        inserted = [share for number, share in enumerate(shares) if number not in there]
        self._delete_copies(share for share in inserted if share.tombstone)
        for share in inserted:
            self._count(share, _NOTHING)
        return [shares[number] for number in sorted(there)]

    def _find(self, shares: Sequence[Share]) -> dict[str, Document]:
        """Return the documents of the sessions by key, those that have expired too."""
        if not shares:
            return {}
        with self._patient():
            keys = [make_key(share.session) for share in shares]
            return {one["_id"]: one for one in self._documents().find({"_id": {"$in": keys}})}

    def _merge(self, share: Share, document: Document, held: Contents) -> None:
        """Give a conversation what it is missing, if anything."""
        if share.tombstone > (held.tombstone or ""):
            self._store.delete(share.session, share.tombstone)
        given, own = _given(share, held), (held.history or History()).turns()
        there = {turn.id for turn in own}
        kept = merge.stored([*own, *(turn for turn in given if turn.id not in there)], self._store.limits).turns()
        missing = [turn for turn in kept if turn.id not in there]
        try:
            if missing:
                self._store.append(share.session, None, missing)
        except CorruptHistory:
            self.attempt.corrupt.append(share)
            return
        if given and not missing:
            self._renew(share, document)
        self._count(share, held)

    def _renew(self, share: Share, document: Document) -> None:
        """Have a conversation, if it still is there, live as long as its share."""
        expiry = now() + timedelta(seconds=min(self._store.limits.ttl, share.ttl))
        if _expiry(document) + _NEARLY < expiry:
            with self._patient():
                where = {"_id": document["_id"], "expires_at": {"$gt": now()}}
                self._documents().update_one(where, {"$max": {"expires_at": expiry}})

    def _replace_all(self, replaced: Sequence[tuple[Share, Document, Contents]]) -> None:
        """Replace these conversations where their tombstones are those that were found."""
        if not replaced:
            return
        self._delete_copies(share for share, _, held in replaced if share.tombstone > (held.tombstone or ""))
        updates = [self._update(share, document, held) for share, document, held in replaced]
        lost: set[int] = set()
        with self._patient():
            try:
                self._documents().bulk_write(updates, ordered=False)
            except BulkWriteError as error:
                lost = set(_duplicates(error))
        for number, (share, _, held) in enumerate(replaced):
            if number in lost:
                self.attempt.contended.append(share)
            else:
                self._count(share, held)

    def _update(self, share: Share, document: Document, held: Contents) -> UpdateOne:
        fields = self._document(share, max(share.tombstone, held.tombstone or ""))
        where = {"_id": fields.pop("_id"), "tombstone": document.get("tombstone")}
        expiry = {"expires_at": fields.pop("expires_at")}
        return UpdateOne(where, {"$set": fields, "$max": expiry}, upsert=True)

    def _document(self, share: Share, tombstone: str) -> Document:
        """Return the document of a conversation that has only what its share has."""
        history, size = merge.stored_with_size(share.turns, self._store.limits, tombstone)
        # One that has a tombstone lives as long as that: for one TTL.
        ttl = min(self._store.limits.ttl, share.ttl) if history and not tombstone else self._store.limits.ttl
        time = now()
        document: Document = {
            "_id": make_key(share.session),
            "messages": [message.as_dict() for message in history],
            "bytes": size,
            "updated_at": time,
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

    def _count(self, share: Share, held: Contents) -> None:
        self.attempt.count(len(_given(share, held)), len(held.history or ()), self._replace)


def _held(document: Document | None) -> Contents | CorruptHistory:
    """Return what a document holds, nothing where it has expired."""
    if document is None or _expiry(document) <= now():
        return _NOTHING
    return contents_of(document)


def _given(share: Share, held: Contents) -> list[Turn]:
    """Return the turns of a share that no tombstone covers."""
    tombstone = max(share.tombstone, held.tombstone or "")
    return [turn for turn in share.turns if turn.id > tombstone]


def _expiry(document: Document) -> datetime:
    expiry: datetime = document["expires_at"]
    return expiry if expiry.tzinfo else expiry.replace(tzinfo=UTC)


def _duplicates(error: BulkWriteError) -> list[int]:
    """Return which of a batch were there already; raise the error if anything else was wrong."""
    details: Any = error.details
    if details.get("writeConcernErrors") or any(one["code"] != 11000 for one in details["writeErrors"]):
        raise error
    return [int(one["index"]) for one in details["writeErrors"]]
