"""Names under which ops.backup still reaches the stores; to go when it uses `bulk(alias)` alone."""

from contextlib import AbstractContextManager
from typing import Any

from conversations.stores import REDIS, reachable
from conversations.stores.bulk import PATIENCE
from conversations.stores.mongo import patient as mongo
from conversations.stores.mongo.patient import Documents, documents, pages
from conversations.stores.redis import patient as of_redis
from conversations.stores.redis.patient import answers as ask
from conversations.stores.redis.patient import patient_client as redis
from ops.long_work import collect_seldom
from ops.long_work import prefetched as ahead

__all__ = [
    "PATIENCE", "Documents", "ahead", "ask", "collect_seldom", "documents", "pages", "patient", "reachable",
    "redis", "step",
]  # fmt: skip


def patient(alias: str, seconds: float = PATIENCE) -> AbstractContextManager[None]:
    """Give one batch its time; raise StoreUnavailable for a driver's error."""
    return of_redis.errors() if alias == REDIS else mongo.patient(seconds)


def step(client: Any, pattern: str, cursor: int, count: int) -> tuple[int, list[bytes]]:
    """Return the next cursor of a SCAN, 0 at the end, and the keys of one step."""
    with of_redis.errors():
        after, keys = client.scan(cursor, match=pattern, count=count)
        return int(after), keys
