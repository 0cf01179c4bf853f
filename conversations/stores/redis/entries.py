"""Everything that Redis has of conversations, read once and by pages: what a backup is made of."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

from conversations.clock import now
from conversations.errors import CorruptHistory
from conversations.stores.base import tombstone_in
from conversations.stores.bulk_reader import Entry
from conversations.stores.redis.keys import CONVERSATIONS, TOMBSTONES, key_named, name_in
from conversations.stores.redis.lines import decoded, window
from conversations.stores.redis.patient import answers, is_wrong_type, no_error
from conversations.stores.seen import Seen
from conversations.turns import SESSION, History


def entries(client: Any, scan: Callable[[str], Iterator[list[bytes]]], most_turns: int) -> Iterator[list[Entry]]:
    """Yield each conversation and each tombstone once, of a conversation as many turns as readers see; raise
    StoreUnavailable."""
    seen = Seen()
    for pattern in (CONVERSATIONS, TOMBSTONES):
        for keys in scan(pattern):
            yield _page(client, seen.new(name_in(key, pattern) for key in keys), most_turns)


def _page(client: Any, names: list[bytes], most_turns: int) -> list[Entry]:
    pipeline = client.pipeline(transaction=False)
    for name in names:
        key = key_named(name, CONVERSATIONS)
        pipeline.get(key).ttl(key).get(key_named(name, TOMBSTONES))
    found = answers(pipeline, raising=False)
    each = zip(names, found[::3], found[1::3], found[2::3], strict=True)
    return [entry for one in each if (entry := _entry(most_turns, *one))]


def _entry(most_turns: int, name: bytes, value: Any, ttl: Any, deleted: Any) -> Entry | None:
    """Return what the answers say; None where there is nothing any more."""
    session = name.decode(errors="replace")
    if not SESSION.fullmatch(session):
        return Entry(session, History(), b"", None, None, corrupt=True)
    corrupt = is_wrong_type(value) or is_wrong_type(deleted)
    value, ttl, deleted = map(no_error, (value, ttl, deleted))
    tombstone = tombstone_in("redis", session, deleted)
    corrupt |= deleted is not None and tombstone is None
    history = History()
    if value is not None:
        value = window(value, most_turns)
        try:
            history = decoded(value)
        except CorruptHistory:
            corrupt = True
    if not (history or tombstone or corrupt):
        return None
    expiry = now() + timedelta(seconds=ttl) if history and ttl >= 0 else None
    return Entry(session, history, value if history else b"", expiry, tombstone, corrupt)
