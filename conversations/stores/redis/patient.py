"""Redis as operators' work needs it: the same server and user as for turns, but more time for each answer."""

from collections.abc import Iterator
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from redis import BlockingConnectionPool, ConnectionPool, Redis

from conversations.stores.bulk import PATIENCE
from conversations.stores.redis.client import histories
from conversations.stores.redis.faults import as_unavailable

errors = partial(as_unavailable, "redis")

_clients: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()  # by the pool of the turns' client


def turns_client() -> Any:
    """Return the client that turns use, with their timeouts."""
    return histories().client.get_client(write=True)


def patient_client() -> Any:
    """Return a client of the configured Redis whose socket timeout is PATIENCE, not a turn's."""
    client = turns_client()
    pool = client.connection_pool
    if type(pool) not in (ConnectionPool, BlockingConnectionPool):
        return client  # Sentinel's, or a cluster's: it finds its server itself
    if pool not in _clients:
        options = {**pool.connection_kwargs, "socket_timeout": PATIENCE}
        _clients[pool] = Redis(connection_pool=ConnectionPool(pool.connection_class, **options))
    return _clients[pool]


def answers(pipeline: Any, *, raising: bool = True) -> list[Any]:
    """Return the answers of a pipeline; without `raising` a command's error is its answer."""
    with errors():
        found: list[Any] = pipeline.execute(raise_on_error=raising)
        return found


def scan(pattern: str, count: int) -> Iterator[list[bytes]]:
    """Yield every key that matches, a step of SCAN at a time, some perhaps twice."""
    client, cursor = patient_client(), 0
    while True:
        with errors():
            cursor, keys = client.scan(int(cursor), match=pattern, count=count)
        yield keys
        if not int(cursor):
            return
