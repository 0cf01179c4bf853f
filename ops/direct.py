"""Names under which backup and status still reach the stores; to go when they use `bulk(alias)` alone."""

from contextlib import AbstractContextManager
from typing import Any

from conversations.stores import REDIS, reachable
from conversations.stores.bulk import PATIENCE
from conversations.stores.mongo import patient as mongo
from conversations.stores.mongo.patient import Documents, documents, pages
from conversations.stores.mongo.patient import connect as meet
from conversations.stores.redis import patient as of_redis
from conversations.stores.redis.patient import answers as ask
from conversations.stores.redis.patient import patient_client as redis
from conversations.stores.redis.patient import turns_client as turns_redis
from ops.long_work import collect_seldom
from ops.long_work import prefetched as ahead

__all__ = [
    "PATIENCE", "Documents", "ahead", "ask", "collect_seldom", "documents", "errors", "meet", "pages", "patient",
    "reachable", "redis", "step", "turns_redis",
]  # fmt: skip


def errors(alias: str) -> AbstractContextManager[None]:
    """Raise StoreUnavailable for every way in which a driver reports a fault."""
    return of_redis.errors() if alias == REDIS else mongo.errors()


def patient(alias: str, seconds: float = PATIENCE) -> AbstractContextManager[None]:
    """Give one batch its time; raise StoreUnavailable as `errors` does."""
    return of_redis.errors() if alias == REDIS else mongo.patient(seconds)


def step(client: Any, pattern: str, cursor: int, count: int) -> tuple[int, list[bytes]]:
    """Return the next cursor of a SCAN, 0 at the end, and the keys of one step."""
    with of_redis.errors():
        after, keys = client.scan(cursor, match=pattern, count=count)
        return int(after), keys
