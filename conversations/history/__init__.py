"""One conversation in both stores: reading, writing, deleting, listing and repairing it."""

from conversations.history.deleting import delete
from conversations.history.reading import Reading, read, routing
from conversations.history.writing import Written, append, keep, restamp

__all__ = ["Reading", "Written", "append", "delete", "keep", "read", "restamp", "routing"]
