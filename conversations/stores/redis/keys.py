"""The keys in Redis beside a conversation's own, which Django's cache makes by its KEY_FUNCTION."""

from binascii import crc_hqx
from functools import cache
from hashlib import blake2b
from itertools import product
from string import ascii_lowercase, digits

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from conversations.stores.control import Rate
from conversations.stores.sessions import KEY_BEGINS

FLAGS = "onesource:unsynced"
"""The hash of session to unsynced flag; on a cluster each slot has one, see flags.py."""
FLAGGED_SLOTS = "onesource:{control}:flagged"
"""The sorted set of a cluster's slots that have flags, by the time when the last one was set."""
DATASET = "onesource:{control}:dataset"
"""A hash: id, epoch, instance."""
HEARTBEATS = "onesource:{control}:heartbeats"
"""A hash of process to time, in milliseconds."""


TENANTS = "onesource:newest"
"""The sorted set of tenants, by the time of their last messages, in milliseconds."""


def newest_key(tenant: str) -> str:
    """Return the key of the sorted set of a tenant's conversations, by the time of their last messages."""
    return f"{TENANTS}:{tenant}"


_PARTS = 64


def slot_of(key: str) -> int:
    """Return the cluster slot of a key."""
    return key_slot(key.encode())


def slot_flags_key(slot: int) -> str:
    """Return the key of the hash with the flags of the conversations of a slot, which is in that slot."""
    return f"{FLAGS}:{{{tags()[slot]}}}"


def epoch_keys() -> list[str]:
    """Return the keys that have the dataset's epoch on a cluster too, spread over the slots so that no master is
    without one: see parts.py."""
    step = REDIS_CLUSTER_HASH_SLOTS // _PARTS
    return [f"onesource:{{{tag}}}:epoch" for tag in tags()[::step]]


@cache
def tags() -> list[str]:
    """Return for each slot a text that lies in it."""
    found: dict[int, str] = {}
    letters = (ascii_lowercase + digits).encode()
    for begin in product(letters, repeat=3):
        before = crc_hqx(bytes(begin), 0)
        for last in letters:  # not by key_slot, which would take ten times as long
            slot = crc_hqx(bytes((last,)), before) % REDIS_CLUSTER_HASH_SLOTS
            if slot not in found:
                found[slot] = bytes((*begin, last)).decode()
        if len(found) == REDIS_CLUSTER_HASH_SLOTS:
            break
    return [found[slot] for slot in range(REDIS_CLUSTER_HASH_SLOTS)]


def user_key(tenant: str, user: str) -> str:
    """Return the key of the sorted set of a user's conversations, as that of a tenant's. A tenant has no colon in its
    name, so two users of two tenants never have one key."""
    return f"onesource:user:{tenant}:{user}"


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
