"""Giving Redis many conversations: one script each, by rounds of which none keeps other clients waiting for long."""

from collections.abc import Sequence
from typing import Any

from redis.exceptions import ResponseError

from conversations.stores.base import HistoryStore
from conversations.stores.batches import batches
from conversations.stores.bulk import Attempt, Share
from conversations.stores.redis.keys import quarantine_key, tombstone_key
from conversations.stores.redis.patient import answers, no_error
from conversations.stores.redis.scripts import source
from conversations.stores.sessions import make_key

_ROUND = 100  # scripts in one pipeline


def put(client: Any, store: HistoryStore, shares: Sequence[Share], replace: bool) -> Attempt:
    """Attempt to put the shares, within the limits of the store; raise StoreUnavailable."""
    attempt = Attempt()
    script = client.register_script(source("put"))
    for round_ in batches(shares, _ROUND):
        pipeline = client.pipeline(transaction=False)
        for share in round_:
            key = make_key(share.session)
            keys = [key, tombstone_key(key), quarantine_key(key)]
            script(keys, _arguments(store, share, replace), client=pipeline)
        for share, answer in zip(round_, answers(pipeline, raising=False), strict=True):
            if isinstance(answer, ResponseError) and str(answer).startswith("CORRUPT"):
                attempt.corrupt.append(share)
            else:
                given, before = map(int, no_error(answer))
                attempt.count(given, before, replace)
    return attempt


def _arguments(store: HistoryStore, share: Share, replace: bool) -> list[Any]:
    limits = store.limits
    ttl = max(1, min(share.ttl, limits.ttl))
    arguments = [ttl, limits.max_turns, limits.max_bytes, share.tombstone, store.tombstone_ttl, int(replace)]
    for turn in share.turns:
        arguments += (turn.id, turn.lines())
    return arguments
