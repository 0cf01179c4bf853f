"""The keys in Redis beside a conversation's own, which Django's cache makes by its KEY_FUNCTION."""

FLAGS = "onesource:unsynced"  # a hash of session to flag
DATASET = "onesource:{control}:dataset"  # a hash: id, epoch, instance
HEARTBEATS = "onesource:{control}:heartbeats"  # a hash of process to time, in milliseconds


def tombstone_key(key: str) -> str:
    """Return the key of a conversation's tombstone; the braces keep it in the conversation's cluster slot."""
    return f"tomb:{{{key}}}"


def quarantine_key(key: str) -> str:
    """Return what the keys of a conversation's quarantined copies begin with: a number follows."""
    return f"corrupt:{{{key}}}"


def note_key(name: str) -> str:
    """Return the key of a note."""
    return f"onesource:{name}"
