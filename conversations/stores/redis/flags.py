"""Where unsynced flags are kept: hashes of session to flag, which a conversation's script sets with the turn.

A single server has one hash. A script on a cluster may only use keys of one slot, so there each slot has a hash, and a
sorted set names the slots in which a flag was set: a slot is named before its flag is set, and no longer once it has
had no flag for a minute.
"""

from collections.abc import Callable, Iterator
from typing import Any

from conversations import clock
from conversations.stores.batches import batches
from conversations.stores.control import Flags
from conversations.stores.redis.format import flag_text
from conversations.stores.redis.keys import FLAGGED_SLOTS, FLAGS, slot_flags_key, slot_of, tags
from conversations.stores.redis.newest import checked
from conversations.turns import SESSION

_TOGETHER = 500  # hashes that are read in one round trip
_KEPT = 60.0  # seconds that a slot without a flag stays named: many more than a turn takes after it was named


class OneHash:
    """The flags of a single server."""

    def key(self, key: str) -> str:
        """Return the key of the hash with the flag of a conversation, by that one's key."""
        return FLAGS

    def key_to_set(self, key: str) -> str:
        """Return the same, for a script that is to set the flag."""
        return FLAGS

    def read(self, client: Any, limit: int) -> Flags:
        """Return what ControlStore.flags promises; raise the driver's errors."""
        found: set[str] = set()
        cursor, number = 0, 0
        while True:
            (cursor, fields), number = _hscan(client, cursor, limit)
            found |= _sessions(fields)
            if not cursor or len(found) >= limit:
                return Flags(frozenset(found), not cursor, number if cursor else len(found))

    def walk(self, client: Any, size: int) -> Iterator[list[str]]:
        """Yield what is in the hashes, a step at a time; raise the driver's errors."""
        cursor = 0
        while True:
            cursor, fields = client.hscan(FLAGS, int(cursor), count=size)
            yield [flag_text(field) for field in fields]
            if not int(cursor):
                return


class HashOfEachSlot:
    """The flags of a cluster."""

    def __init__(self, client: Callable[[], Any]) -> None:
        tags()  # takes a while, once in a process
        self._client = client

    def key(self, key: str) -> str:
        """Return the key of the hash with the flag of a conversation, by that one's key."""
        return slot_flags_key(slot_of(key))

    def key_to_set(self, key: str) -> str:
        """Return the same, for a script that is to set the flag: the slot is named first. Raise the driver's errors."""
        slot = slot_of(key)
        # GT: the clock of this machine may be behind that of another one, which has named the slot.
        self._client().routes.call("ZADD", FLAGGED_SLOTS, "GT", int(clock.timestamp()), slot)
        return slot_flags_key(slot)

    def read(self, client: Any, limit: int) -> Flags:
        """Return what ControlStore.flags promises; raise the driver's errors."""
        found: set[str] = set()
        empty: list[Any] = []
        read = 0
        slots = _slots(client)
        for batch in batches(slots, _TOGETHER):
            for (slot, named), fields in zip(batch, _fields(client, batch), strict=True):
                found |= _sessions(fields)
                if not fields and float(named) < clock.timestamp() - _KEPT:
                    empty += (slot, named)
            read += len(batch)
            if len(found) >= limit:
                break
        if empty:
            client.unlist(FLAGGED_SLOTS, empty)
        complete = read == len(slots)
        return Flags(frozenset(found), complete, len(found) if complete else len(found) * len(slots) // read)

    def walk(self, client: Any, size: int) -> Iterator[list[str]]:
        """Yield what is in the hashes, some of these at a time; raise the driver's errors."""
        for batch in batches(_slots(client), _TOGETHER):
            yield [flag_text(field) for fields in _fields(client, batch) for field in fields]


def _slots(client: Any) -> list[tuple[bytes, bytes]]:
    """Return the slots that are named, each with the time when it last was."""
    answer = client.routes.call("ZRANGE", FLAGGED_SLOTS, 0, -1, "WITHSCORES")
    pairs = zip(answer[::2], answer[1::2], strict=True)
    return [(slot, named) for slot, named in pairs if slot.isdigit() and int(slot) < 2**14]  # no other program's


def _fields(client: Any, slots: list[tuple[bytes, bytes]]) -> list[Any]:
    return checked(client.routes.call_each([("HKEYS", slot_flags_key(int(slot))) for slot, _ in slots]))


def _sessions(fields: Any) -> set[str]:
    """Return the names among the fields of a hash. What is no session's name is no flag: another program wrote it."""
    return {name for name in map(flag_text, fields) if SESSION.fullmatch(name)}


def _hscan(client: Any, cursor: int, count: int) -> Any:
    """Return the answer of one step of HSCAN, and how many flags there are."""
    pipeline = client.pipeline(transaction=False)
    return pipeline.hscan(FLAGS, cursor, count=count).hlen(FLAGS).execute()
