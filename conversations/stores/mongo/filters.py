"""The filters of living documents for pymongo; ConversationQuerySet has the same for the ORM.

MongoDB deletes expired documents once a minute, so every query must leave them out by itself.
"""

from typing import Any

from conversations.clock import now


def unexpired() -> dict[str, Any]:
    """Return the filter of documents that have not expired; some hold only a tombstone."""
    return {"expires_at": {"$gt": now()}}


def living() -> dict[str, Any]:
    """Return the filter of conversations with messages."""
    return unexpired() | {"bytes": {"$gt": 0}}
