"""MongoDB read in bulk: one query a batch, or one cursor over the collection."""

from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager
from itertools import chain

from conversations.clock import now
from conversations.models import ALIAS, Conversation, CorruptConversation
from conversations.stores.base import Contents, HistoryStore
from conversations.stores.batches import PATIENCE, batches
from conversations.stores.bulk_reader import BulkReader, Entry, Found, UsersPage
from conversations.stores.mongo import flags
from conversations.stores.mongo.document import (
    digest_in,
    entry_of,
    found_in,
    histories_of,
    last_ids_of,
    tombstones_of,
)
from conversations.stores.mongo.filters import expiry_in, living, named, unexpired
from conversations.stores.mongo.patient import Document, Documents, documents, pages, patient
from conversations.stores.sessions import is_key, is_of, session_of
from conversations.turns import History

_COMPARED = 50  # names in one query: SecantusDB compares each document of its answer with all of them
_CONVERSATIONS, _COPIES = Conversation._meta.db_table, CorruptConversation._meta.db_table
_LAST = {"messages": {"$slice": -1}}


class MongoReader(BulkReader):
    """Many conversations of MongoDB."""

    def __init__(self, store: HistoryStore, database: str = ALIAS) -> None:
        super().__init__(store)
        self._database = database

    def sessions(self, size: int) -> Iterator[tuple[str, ...]]:
        self.store.ping()  # which fails fast
        for page in self._pages(living(), size, {"_id": 1}):
            yield tuple(session_of(one["_id"]) for one in page if is_key(one["_id"]))

    def present(self, sessions: Collection[str]) -> set[str]:
        return {session_of(document["_id"]) for document in self._find(sessions, {"_id": 1}, {"bytes": {"$gt": 0}})}

    def contents(self, sessions: Collection[str]) -> dict[str, Found]:
        found: dict[str, Found] = {session: Contents(None, None, None) for session in sessions}
        return found | {session_of(document["_id"]): found_in(document) for document in self._find(found)}

    def digests(self, sessions: Collection[str]) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for document in self._find(sessions, {"messages.id": 1, "tombstone": 1}):
            if digest := digest_in(document, self.limits.max_turns):
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

    def all_sizes(self, size: int) -> Iterator[dict[str, int]]:
        for page in self._pages(living(), size, {"bytes": 1}):
            sizes = ((one["_id"], one["bytes"]) for one in page if is_key(one["_id"]))
            yield {session_of(key): int(number) for key, number in sizes if isinstance(number, int | float)}

    def ttls(self, sessions: Collection[str]) -> dict[str, int]:
        held = self._find(sessions, {"expires_at": 1}, {"bytes": {"$gt": 0}})
        return {session_of(one["_id"]): round((expiry_in(one) - now()).total_seconds()) for one in held}

    def of_user(self, user: str, tenant: str, size: int) -> Iterator[UsersPage]:
        # By the content of each document. Whether MongoDB takes the index for it, which each document keeps itself, or
        # reads all of them: none is left out.
        self.store.ping()  # which fails fast
        for where, table, name in ((unexpired(), _CONVERSATIONS, "_id"), ({}, _COPIES, "key")):
            field = "messages.user" if table == _CONVERSATIONS else "document.messages.user"
            for page in pages(where | {field: user}, size, {name: 1}, self._database, table):
                names = {session_of(one[name]) for one in page if is_key(one.get(name))}
                sessions = frozenset(session for session in names if is_of(session, tenant))
                yield UsersPage(len(page), sessions, quarantined=table == _COPIES)

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

    def _find(
        self, sessions: Collection[str], fields: Document | None = None, where: Document | None = None
    ) -> list[Document]:
        """Return these fields, or all, of the documents of the sessions."""
        found: list[Document] = []
        for names in batches(sessions, _COMPARED):
            with self._patient():
                found += self._documents().find(named(names) | (where or {}), fields)
        return found

    def _documents(self, table: str = _CONVERSATIONS) -> Documents:
        return documents(table, self._database)

    def _patient(self) -> AbstractContextManager[None]:
        return patient(database=self._database)

    def _pages(self, where: Document, size: int, fields: Document | None = None) -> Iterator[list[Document]]:
        return pages(where, size, fields, self._database)
