"""One conversation in both stores: reading, writing, deleting, listing and repairing it."""

from conversations.history.writing import Reading, Written, append, delete, keep, read, restamp, routing

__all__ = ["Reading", "Written", "append", "delete", "keep", "read", "restamp", "routing"]
