"""Filters of documents: which have expired, and which hold messages. ConversationQuerySet has the latter for the ORM.

MongoDB deletes expired documents once a minute, so every query must leave them out by itself.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from conversations.clock import now
from conversations.stores.sessions import KEY_BEGINS, make_key

_PAST = datetime.min.replace(tzinfo=UTC)


def unexpired() -> dict[str, Any]:
    """Return the filter of documents that have not expired; some hold only a tombstone. One without a valid expiry has
    expired: MongoDB compares values of one type only, except that it looks into arrays."""
    return {"expires_at": {"$gt": now(), "$not": {"$type": "array"}}}


def expired() -> dict[str, Any]:
    """Return the filter of all other documents."""
    # Not by $nor: for that SecantusDB reads every document, where the key is given too.
    return {field: {"$not": condition} for field, condition in unexpired().items()}


def living() -> dict[str, Any]:
    """Return the filter of conversations with messages."""
    return unexpired() | {"bytes": {"$gt": 0}}


def named(sessions: Iterable[str]) -> dict[str, Any]:
    """Return the filter of these sessions' documents that have not expired."""
    return {"_id": {"$in": [make_key(session) for session in sessions]}} | unexpired()


def of_conversations() -> dict[str, str]:
    """Return the condition on keys that only those of conversations meet, and of another program that are like them."""
    return {"$gte": KEY_BEGINS, "$lt": KEY_BEGINS + "\uffff"}


def expiry_in(document: dict[str, Any]) -> datetime:
    """Return when the document expires; without a valid expiry that is long past."""
    return expiry_of(document.get("expires_at"))


def expiry_of(value: object) -> datetime:
    """Return the expiry that is stored as this."""
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) else _PAST  # the driver gives UTC, perhaps naive
