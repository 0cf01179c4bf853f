"""The two stores as bulk work needs them: in batches, and with more patience than a turn has."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pymongo
from django.db import DatabaseError, connections
from django_redis.exceptions import ConnectionInterrupted
from pymongo.collection import Collection
from pymongo.errors import PyMongoError
from redis import BlockingConnectionPool, ConnectionPool, Redis
from redis.exceptions import RedisClusterException, RedisError

from conversations.cache import histories
from conversations.errors import StoreUnavailable
from conversations.models import ALIAS, Conversation
from conversations.stores import ALIASES, REDIS, store

PATIENCE = 30.0  # seconds for one batch

Documents = Collection[dict[str, Any]]


def reachable() -> tuple[str, ...]:
    """Return the stores that answer now."""
    return tuple(alias for alias in ALIASES if _answers(alias))


def redis() -> Any:
    """Return a client of the configured Redis whose socket timeout is ours, not a turn's."""
    client = histories().client.get_client(write=True)
    pool = client.connection_pool
    if type(pool) not in (ConnectionPool, BlockingConnectionPool):
        return client  # Sentinel's, or a cluster's: it finds its server itself
    options = {**pool.connection_kwargs, "socket_timeout": PATIENCE}
    return Redis(connection_pool=ConnectionPool(pool.connection_class, **options))


def documents(table: str = Conversation._meta.db_table) -> Documents:
    """Return the collection beneath the model."""
    with patient(ALIAS):
        connection: Any = connections[ALIAS]
        found: Documents = connection.get_collection(table)
        return found


@contextmanager
def patient(alias: str) -> Iterator[None]:
    """Give one batch its time; raise StoreUnavailable for any fault of the driver."""
    try:
        with pymongo.timeout(PATIENCE):
            yield
    except (ConnectionInterrupted, RedisError, RedisClusterException, DatabaseError, PyMongoError) as error:
        cause = error.__cause__ if isinstance(error, (ConnectionInterrupted, DatabaseError)) else error
        raise StoreUnavailable(alias, type(cause or error).__name__) from error


def step(client: Any, pattern: str, cursor: int, count: int) -> tuple[int, list[bytes]]:
    """Return the next cursor of a SCAN, 0 at the end, and the keys of one step."""
    with patient(REDIS):
        after, keys = client.scan(cursor, match=pattern, count=count)
        return int(after), keys


def ask(pipeline: Any) -> list[Any]:
    """Return the answers of a pipeline to Redis."""
    with patient(REDIS):
        answers: list[Any] = pipeline.execute()
        return answers


def _answers(alias: str) -> bool:
    try:
        store(alias).ping()
    except StoreUnavailable:
        return False
    return True
