"""The keys in Redis beside a conversation's own, which Django's cache makes by its KEY_FUNCTION."""

FLAGS = "onesource:unsynced"
"""The hash of session to unsynced flag."""
DATASET = "onesource:{control}:dataset"
"""A hash: id, epoch, instance."""
HEARTBEATS = "onesource:{control}:heartbeats"
"""A hash of process to time, in milliseconds."""


def flags_key(key: str) -> str:
    """Return the key of the hash with a conversation's flag, which its script sets: one hash for all conversations
    of a single server. On a cluster it has to be one in the conversation's slot."""
    return FLAGS


def tombstone_key(key: str) -> str:
    """Return the key of a conversation's tombstone; the braces keep it in the conversation's cluster slot."""
    return f"tomb:{{{key}}}"


def used_keys_key(key: str) -> str:
    """Return the key of the sorted set of a conversation's Idempotency-Keys."""
    return f"keys:{{{key}}}"


def quarantine_key(key: str) -> str:
    """Return what the keys of a conversation's quarantined copies begin with: a number follows."""
    return f"corrupt:{{{key}}}"


def note_key(name: str) -> str:
    """Return the key of a note."""
    return f"onesource:{name}"


def lease_key(name: str) -> str:
    """Return the key of a lease."""
    return f"onesource:lease:{name}"
