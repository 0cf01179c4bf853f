"""Histories in MongoDB: what each request reads and writes."""

from collections.abc import Collection, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

from django.conf import settings
from django.db import connections

from conversations.clock import now
from conversations.models import ALIAS, Conversation, CorruptConversation
from conversations.stores.base import NO_TIME, Contents, HistoryStore, Newest, Page, Place, Receipt, Summary
from conversations.stores.mongo import listing, places
from conversations.stores.mongo.append import Append
from conversations.stores.mongo.control import DocumentControl
from conversations.stores.mongo.delete import delete
from conversations.stores.mongo.document import contents_of
from conversations.stores.mongo.faults import failing_fast
from conversations.stores.mongo.filters import expiry_of, unexpired
from conversations.stores.mongo.format import parse
from conversations.stores.mongo.keys import keys_pushed, retried_without_wrong
from conversations.stores.mongo.patient import documents
from conversations.stores.sessions import make_key
from conversations.turns import History, Turn
from conversations.used_keys import Keys

_WRITE_PATIENCE = 2  # times MONGO_TIMEOUT_MS: writers of one document wait for each other


class DocumentStore(DocumentControl, HistoryStore):
    """One document a conversation, its primary key the key it has in Redis."""

    @property
    def call_seconds(self) -> float:
        return float(settings.MONGO_TIMEOUT_MS) / 1000

    def load(self, session: str) -> History | None:
        with failing_fast():
            # By the key alone: one more condition, and the ORM sends `$and`, which not every server answers from
            # its index.
            row = Conversation.objects.filter(pk=make_key(session)).as_stored("messages", "expires_at").first()
        return parse(row[0]) if row and expiry_of(row[1]) > now() else None

    def inspect(self, session: str) -> Contents:
        with failing_fast():
            document = documents().find_one({"_id": make_key(session)} | unexpired())
        return Contents(None, None, None) if document is None else contents_of(document)

    def _append(self, session: str, turn: Turn | None, missing: Sequence[Turn], flag: bool) -> Receipt:
        append = Append(session, turn, missing, flag, self.limits)
        with failing_fast(_WRITE_PATIENCE):
            return append.run()

    def keep_keys(self, session: str, keys: Keys) -> None:
        if pushes := keys_pushed(keys):
            with failing_fast(_WRITE_PATIENCE):
                where = {"_id": make_key(session)} | unexpired()
                write = partial(documents().update_one, where, {"$push": pushes})
                retried_without_wrong(write, documents(), [where["_id"]])

    def delete(self, session: str, upto: str, *, flag: bool = False) -> bool:
        key = make_key(session)
        with failing_fast(_WRITE_PATIENCE):
            return delete(key, upto, flag=flag, tombstone_ttl=self.tombstone_ttl)

    def ttl(self, session: str) -> int | None:
        with failing_fast():
            row = Conversation.objects.filter(pk=make_key(session)).as_stored("bytes", "expires_at").first()
        if row is None or not row[0] or (expiry := expiry_of(row[1])) <= now():
            return None
        return round((expiry - now()).total_seconds())

    def _scan(self, cursor: str, limit: int, tenant: str | None) -> Page:
        return listing.scan(cursor, limit, tenant)

    def _newest(
        self, tenant: str | None, before: Place | None, limit: int, since: str, contains: str, user: str
    ) -> Newest:
        return places.newest(tenant, before, limit, since, contains, user)

    def count(self, tenant: str | None, since: str = NO_TIME, until: str = "") -> int | None:
        return places.count(tenant, since, until)

    def summaries(self, sessions: Collection[str], preview: int = 0) -> dict[str, Summary]:
        return listing.summaries(sessions, preview)

    def quarantine(self, session: str) -> bool:
        key = make_key(session)
        with failing_fast(times=3):
            document = documents().find_one({"_id": key})
            if document is None:
                return False
            expiry = now() + timedelta(seconds=self.limits.ttl)
            # Copied before it is removed; a second copy after a crash in between does no harm.
            quarantined = documents(CorruptConversation._meta.db_table)
            quarantined.insert_one({"key": key, "document": document, "expires_at": expiry})
            documents().delete_one(document)
        return True

    def ping(self) -> None:
        connection: Any = connections[ALIAS]
        with failing_fast():
            connection.database.command("ping")
