"""Which documents are living: the filters for pymongo, of which ConversationQuerySet has the same for the ORM.

MongoDB deletes expired documents once a minute, so every query must leave them out by itself.
"""

from datetime import UTC, datetime
from typing import Any

from conversations.clock import now

_PAST = datetime.min.replace(tzinfo=UTC)


def unexpired() -> dict[str, Any]:
    """Return the filter of documents that have not expired; some hold only a tombstone."""
    return {"expires_at": {"$gt": now()}}


def living() -> dict[str, Any]:
    """Return the filter of conversations with messages."""
    return unexpired() | {"bytes": {"$gt": 0}}


def expiry_in(document: dict[str, Any]) -> datetime:
    """Return when the document expires; what no program of ours wrote there is past."""
    found = document.get("expires_at")
    return found.replace(tzinfo=UTC) if isinstance(found, datetime) else _PAST  # the driver gives UTC, perhaps naive
