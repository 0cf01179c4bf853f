"""The keys in Redis beside a conversation's own, which Django's cache makes by its KEY_FUNCTION."""

from hashlib import blake2b

from conversations.stores.control import Rate
from conversations.stores.sessions import KEY_BEGINS

FLAGS = "onesource:unsynced"
"""The hash of session to unsynced flag."""
DATASET = "onesource:{control}:dataset"
"""A hash: id, epoch, instance."""
HEARTBEATS = "onesource:{control}:heartbeats"
"""A hash of process to time, in milliseconds."""


TENANTS = "onesource:newest"
"""The sorted set of tenants, by the time of their last messages, in milliseconds."""


def newest_key(tenant: str) -> str:
    """Return the key of the sorted set of a tenant's conversations, by the time of their last messages."""
    return f"{TENANTS}:{tenant}"


def user_key(tenant: str, user: str) -> str:
    """Return the key of the sorted set of a user's conversations, as that of a tenant's. A tenant has no colon in its
    name, so two users of two tenants never have one key."""
    return f"onesource:user:{tenant}:{user}"


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


CONVERSATIONS = f"{KEY_BEGINS}*"
"""The pattern of all keys of conversations; those of others that are like it too."""
TOMBSTONES = tombstone_key(CONVERSATIONS)
QUARANTINED = f"{quarantine_key(CONVERSATIONS)}*"


def matches(key: bytes, pattern: str) -> bool:
    """Return whether the key begins and ends as the pattern."""
    begin, end = _around(pattern)
    return key.startswith(begin) and key.endswith(end)


def name_in(key: bytes, pattern: str) -> bytes:
    """Return what a key that matches the pattern has in the place of its `*`: a session, or what another program has
    written there."""
    begin, end = _around(pattern)
    return key[len(begin) : len(key) - len(end)]


def key_named(name: bytes, pattern: str) -> bytes:
    """Return the key of which `name_in` returns that name."""
    begin, end = _around(pattern)
    return begin + name + end


def _around(pattern: str) -> tuple[bytes, bytes]:
    begin, _, end = pattern.encode().partition(b"*")
    return begin, end


def note_key(name: str) -> str:
    """Return the key of a note."""
    return f"onesource:{name}"


def lease_key(name: str) -> str:
    """Return the key of a lease."""
    return f"onesource:lease:{name}"


def rate_key(name: str, rate: Rate) -> str:
    """Return the key of what is counted of a client's asks. Its name may be long, and of any characters."""
    return f"onesource:rate:{rate.seconds}:{blake2b(name.encode(errors='replace'), digest_size=16).hexdigest()}"
