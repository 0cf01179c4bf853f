"""Deleting a conversation up to an id, in one atomic update of its document."""

import re
from datetime import timedelta
from typing import Any
from uuid import uuid4

from pymongo.errors import DuplicateKeyError

from conversations.clock import now
from conversations.errors import StoreUnavailable
from conversations.models import ALIAS, CorruptConversation
from conversations.stores.mongo.faults import ATTEMPTS
from conversations.stores.mongo.filters import expired, unexpired
from conversations.stores.mongo.format import TOMBSTONE
from conversations.stores.mongo.patient import Document, documents
from conversations.stores.mongo.places import place_of
from conversations.stores.sessions import session_of


def delete(key: str, upto: str, *, flag: bool, tombstone_ttl: int) -> bool:
    """Delete the turns up to an id and the quarantined copies, and leave a tombstone; return whether there was
    anything. Raise StoreUnavailable or a driver's error."""
    # Two round trips in all but rare cases. The tombstone goes last: repair deletes again where it is missing.
    quarantined = documents(CorruptConversation._meta.db_table).delete_many({"key": key}).deleted_count
    for _ in range(ATTEMPTS):
        try:
            return _forget(key, upto, flag, tombstone_ttl) or quarantined > 0
        except DuplicateKeyError:  # what is there has expired, has no valid tombstone, or is newly made
            documents().delete_one({"_id": key} | expired())
            wrong = {"_id": key, "tombstone": {"$exists": True, "$not": {"$regex": TOMBSTONE}}}
            documents().update_one(wrong, {"$unset": {"tombstone": ""}})
    raise StoreUnavailable(ALIAS, "contended")


def _forget(key: str, upto: str, flag: bool, tombstone_ttl: int) -> bool:
    """Remove the messages up to an id and leave a tombstone, in one step; return whether there were any.
    Raise DuplicateKeyError, changing nothing, when the document has expired or its tombstone is no id."""
    later = {"$filter": {"input": "$messages", "as": "one", "cond": {"$gt": ["$$one.id", upto]}}}
    fields: Document = {
        "messages": {"$cond": [{"$isArray": "$messages"}, later, []]},
        "tombstone": {"$max": ["$tombstone", upto]},
        **{name: {"$ifNull": [f"${name}", first]} for name, first in place_of(session_of(key)).items()},
        "expires_at": {"$max": ["$expires_at", now() + timedelta(seconds=tombstone_ttl)]},
    }
    if flag:
        fields["mark"] = uuid4().hex
    # A stage of its own, since it looks at the messages that are left.
    size = {"bytes": {"$cond": [{"$eq": ["$messages", []]}, 0, "$bytes"]}}
    where = {"_id": key, "tombstone": {"$in": [None, re.compile(TOMBSTONE)]}} | unexpired()
    before: Any = documents().find_one_and_update(where, [{"$set": fields}, {"$set": size}], upsert=True)
    return before is not None and _holds_up_to(before.get("messages"), upto)


def _holds_up_to(records: Any, upto: str) -> bool:
    """Return whether a deletion up to the id removes anything: messages without an id are removed too."""
    if not isinstance(records, list):
        return True
    ids = (record.get("id") if isinstance(record, dict) else None for record in records)
    return any(not (isinstance(id_, str) and id_ > upto) for id_ in ids)
