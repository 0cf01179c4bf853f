"""Redis as operators' work needs it: the same server and user as for turns, but more time for each answer."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from django.conf import settings
from redis import ConnectionPool, Redis
from redis.exceptions import ResponseError
from redis.sentinel import SentinelConnectionPool

from conversations.errors import StoreUnavailable
from conversations.stores.batches import PATIENCE
from conversations.stores.redis.address import is_of_cluster
from conversations.stores.redis.client import histories
from conversations.stores.redis.cluster import Cluster, servers
from conversations.stores.redis.connection import PrimaryPool
from conversations.stores.redis.faults import as_unavailable

Cache = Callable[[], Any]
"""What returns the cache of conversations."""

BATCH = 50  # commands at a time: together well below a millisecond of Redis' only thread
PAUSE = 0.002  # seconds in which other clients have their turn
SCAN = 200  # keys that one step of SCAN looks at

errors = partial(as_unavailable, "redis")

_TIMEOUTS = ("SOCKET_TIMEOUT", "SOCKET_CONNECT_TIMEOUT")

_clients: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()  # by the pool of the turns' client, or the client


def turns_client(cache: Cache = histories) -> Any:
    """Return the client that turns use, with their timeouts; raise StoreUnavailable where no node of a cluster
    answers."""
    with errors():
        return cache().client.get_client(write=True)


def patient_client(cache: Cache = histories) -> Any:
    """Return a client of the configured Redis whose socket timeout is PATIENCE, not a turn's."""
    client = turns_client(cache)
    if isinstance(client, Cluster):
        if client not in _clients:
            with errors():
                _clients[client] = client.with_options(socket_timeout=PATIENCE)
        return _clients[client]
    pool = client.connection_pool
    if pool not in _clients:
        options = {**pool.connection_kwargs, "socket_timeout": PATIENCE}
        _clients[pool] = Redis(connection_pool=_pool_like(pool, options))
    return _clients[pool]


def _pool_like(pool: Any, options: dict[str, Any]) -> ConnectionPool:
    """Return a pool of connections with these options to the same server, or to the one that its sentinels name."""
    if not isinstance(pool, SentinelConnectionPool):
        return ConnectionPool(pool.connection_class, **options)
    options = {name: value for name, value in options.items() if name != "connection_pool"}
    options["connection_class"] = pool.connection_class
    like = PrimaryPool(pool.service_name, pool.sentinel_manager, **options)  # type: ignore[no-untyped-call]
    like.follow(pool)
    return like


def give_time(seconds: float) -> None:
    """Give every call of this process so many seconds, instead of a turn's; to be called before the first one. A server
    that does not answer in that time is out: then each call has a turn's, since all would wait as long."""
    options = settings.CACHES["conversations"]["OPTIONS"]
    short = {name: options[name] for name in _TIMEOUTS}
    settings.REDIS_SOCKET_TIMEOUT_MS = max(settings.REDIS_SOCKET_TIMEOUT_MS, seconds * 1000)
    options |= {name: max(options[name], seconds) for name in _TIMEOUTS}
    try:
        with errors():
            turns_client().ping()
    except StoreUnavailable:
        options |= short
        settings.REDIS_SOCKET_TIMEOUT_MS = short["SOCKET_TIMEOUT"] * 1000
        _forget_times(short)


def _forget_times(short: dict[str, float]) -> None:
    """Have the client of turns use the short timeouts again."""
    options = {name.lower(): value for name, value in short.items()}
    if is_of_cluster(settings.CACHES["conversations"]["LOCATION"][0]):
        with suppress(StoreUnavailable):  # there is no client where no node has answered
            turns_client().set_options(**options)
    else:
        pool = turns_client().connection_pool
        pool.connection_kwargs |= options
        pool.reset()  # the connection that was made has the time of before


def answers(pipeline: Any, *, raising: bool = True) -> list[Any]:
    """Return the answers of a pipeline; without `raising` a command's error is its answer."""
    with errors():
        found: list[Any] = pipeline.execute(raise_on_error=raising)
        return found


def scan(pattern: str, count: int, cache: Cache = histories) -> Iterator[list[bytes]]:
    """Yield every key that matches, a step of SCAN at a time, some perhaps twice, those of one master of a cluster
    after another. Raise StoreUnavailable, also where slots have moved meanwhile: keys may have been missed."""
    client = patient_client(cache)
    with errors():
        before = client.unmoved() if isinstance(client, Cluster) else None
        every = servers(client)
    for server in every:
        yield from _scan(server, pattern, count)
    if isinstance(client, Cluster):
        with errors():
            client.unmoved(before)


def _scan(client: Any, pattern: str, count: int) -> Iterator[list[bytes]]:
    cursor = 0
    while True:
        with errors():
            cursor, keys = client.scan(int(cursor), match=pattern, count=count)
        yield keys
        if not int(cursor):
            return


def no_error(answer: Any) -> Any:
    """Return an answer of a pipeline, None where something of another type is there; raise StoreUnavailable."""
    if isinstance(answer, Exception) and not is_wrong_type(answer):
        raise StoreUnavailable("redis", type(answer).__name__) from answer
    return None if isinstance(answer, Exception) else answer


def is_wrong_type(answer: Any) -> bool:
    """Return whether an answer is the error of a key of another type."""
    return isinstance(answer, ResponseError) and str(answer).startswith("WRONGTYPE")
