"""The indexes by which MongoDB deletes what has expired, lists what is new, and finds the conversations of a user,
unsynced flags and quarantined documents."""

from conversations.models import CorruptConversation
from conversations.stores.mongo.patient import documents


def create() -> None:
    """Create those that are not there, and with them the collections. The caller sets the time."""
    kept, corrupt = documents(), documents(CorruptConversation._meta.db_table)
    for each in (kept, corrupt):
        each.create_index("expires_at", expireAfterSeconds=0)
    kept.create_index("mark", sparse=True)
    kept.create_index("messages.user", sparse=True)  # a conversation without a user has no entry
    for place in ("place", "updated_at"):
        kept.create_index([(place, -1), ("_id", -1)])
    corrupt.create_index("key")
