"""The client of a Redis Cluster. The library keeps the map of slots and the connections to each node; see routes.py for
what is sent over these."""

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any
from zlib import crc32

from redis import ConnectionPool, RedisCluster
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode
from redis.exceptions import (
    ClusterError,
    ConnectionError,
    NoScriptError,
    RedisClusterException,
)
from redis.retry import Retry

from conversations import deadline
from conversations.stores.redis.address import ClusterNodes, cluster_in, is_of_cluster
from conversations.stores.redis.connection import DeadlineParser, HistoryConnectionFactory, connected
from conversations.stores.redis.routes import RoutedPipeline, Routes, node_at
from conversations.stores.redis.scripts import source

_MAKING = 0.2  # seconds that a thread waits for another one that makes the client
_MOST_MASTERS = 1024
_PRINTS = 2**32


class SlotsAreMoving(ClusterError):
    """Slots are being moved from one master to another: who walks through all keys meanwhile may miss some."""


class NoCluster(ConnectionError):
    """The server does not run in cluster mode."""


class _Pool(ConnectionPool):
    """The pool of one node. The library does not pass on which parser is wanted."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, parser_class=DeadlineParser)


class Cluster(RedisCluster):
    """The client of a cluster, made when it is first needed; any thread may use it."""

    def __init__(self, url: str, first: tuple[str, int] | None = None, **options: Any) -> None:
        """Ask the nodes that the address names for the map of slots, or this one alone."""
        where = cluster_in(url)
        asked = where.hosts if first is None else (first,)
        self._made_with = (url, options)
        self.named = where.hosts
        """The nodes that the address names."""
        super().__init__(
            url=_url_of(where, asked[0]),
            startup_nodes=list(map(node_at, asked[1:])),
            retry=Retry(NoBackoff(), 0),  # a retry would apply a command twice when only its reply was lost
            require_full_coverage=False,
            connection_pool_class=_Pool,
            protocol=2,
            driver_info=None,
            username=where.username or None,
            password=where.password or None,
            **options,
        )

    def on_connect(self, connection: Any) -> None:
        connected(connection)

    def with_options(self, **options: Any) -> "Cluster":
        """Return another client of the same cluster, with these options instead of its own; raise ConnectionError where
        none of its nodes answers."""
        url, before = self._made_with
        with _as_connection_error():
            return Cluster(url, **before | options)

    def set_options(self, **options: Any) -> None:
        """Use these options for connections that are made from now on, and make all anew."""
        self.nodes_manager.connection_kwargs |= options
        for node in self.get_nodes():  # type: ignore[no-untyped-call]
            if node.redis_connection:
                node.redis_connection.connection_pool.connection_kwargs |= options
                node.redis_connection.connection_pool.reset()
        self.__dict__.pop("routes", None)

    def pipeline(self, transaction: Any = None, shard_hint: Any = None) -> "RoutedPipeline":
        return RoutedPipeline(self.routes, self.get_redis_connection(self.masters()[0]).response_callbacks)

    @cached_property
    def routes(self) -> "Routes":
        return Routes(self)

    def masters(self) -> list[ClusterNode]:
        """Return the nodes that have slots, in the same order each time; raise ConnectionError where none has any."""
        found = sorted(self.get_primaries(), key=lambda node: str(node.name))  # type: ignore[no-untyped-call]
        if not found:
            self.routes.refresh_later()
            raise ConnectionError("connecting to a cluster: no node has slots")
        return found

    def servers(self) -> list[Any]:
        """Return a client of each master."""
        return [self.get_redis_connection(node) for node in self.masters()]

    def ping_all(self) -> None:
        """Return when every master answers, and all slots have one; raise the driver's errors. A part of a cluster is
        no store: whoever may need the other part has to be answered by the other store."""
        for [info] in self.routes.of_masters(("CLUSTER", "INFO")):
            # A cluster without cluster-require-full-coverage is "ok" with any slots.
            if b"cluster_state:ok" not in info or b"cluster_slots_ok:16384" not in info:
                self.routes.refresh_later()
                raise ConnectionError("connecting to a cluster: some slots have no master")

    def script_load(self, script: Any) -> Any:
        return self.routes.call("SCRIPT", "LOAD", script)

    def unlist(self, key: str, pairs: list[Any]) -> None:
        """Remove members of a sorted set, each only where its score is this one still."""
        script = self.register_script(source("unlist"))
        command = ("EVALSHA", script.sha, 1, key, *pairs)
        try:
            self.routes.call(*command)
        except NoScriptError:
            self.script_load(script.script)
            self.routes.call(*command)

    def scan_step(self, cursor: int, pattern: str, count: int) -> tuple[int, list[bytes]]:
        """Return the next cursor, 0 at the end, and the keys of one step of SCAN, of one master after another. Raise
        SlotsAreMoving at the beginning while that is so, and at the end if slots have moved since."""
        rest, before = divmod(cursor, _PRINTS)
        position, number = divmod(rest, _MOST_MASTERS)
        before = before if cursor else self.unmoved()
        servers = self.servers()
        if number >= len(servers):
            raise SlotsAreMoving
        position, keys = servers[number].scan(position, match=pattern, count=count)
        if not position:
            number += 1
        if number == len(servers):
            self.unmoved(before)
            return 0, keys
        return (int(position) * _MOST_MASTERS + number) * _PRINTS + before, keys

    def unmoved(self, before: int | None = None) -> int:
        """Return a number that tells which master has which slots; raise SlotsAreMoving where slots are being moved, or
        the number before was another one."""
        self.routes.refresh()
        slots = []
        for [nodes] in self.routes.of_masters(("CLUSTER", "NODES")):
            [myself] = [line.split() for line in nodes.splitlines() if b"myself" in line]
            if any(part.startswith(b"[") for part in myself[8:]):
                raise SlotsAreMoving
            slots.append(b" ".join((myself[0], *myself[8:])))
        now = crc32(b"\n".join(sorted(slots)))
        if before not in (None, now):
            raise SlotsAreMoving
        return now


class ClusterConnectionFactory(HistoryConnectionFactory):
    """The client of a cluster where the URL is that of one; else connections as they are to a single server."""

    def get_connection(self, params: dict[str, Any]) -> Any:
        if not is_of_cluster(params["url"]):
            return super().get_connection(params)
        times = ("socket_timeout", "socket_connect_timeout")
        return client_of(params["url"], **{name: params[name] for name in times if name in params})

    def disconnect(self, connection: Any) -> None:
        if isinstance(connection, Cluster):
            connection.disconnect_connection_pools()  # type: ignore[no-untyped-call]
        else:
            super().disconnect(connection)


_making = threading.Lock()
_clients: dict[str, Cluster] = {}
_silent: dict[tuple[str, int], float] = {}
"""When nodes gave no map of slots."""


def client_of(url: str, **options: Any) -> Cluster:
    """Return the client of the cluster, one for all threads; raise ConnectionError where none of its nodes answers."""
    if url in _clients:
        return _clients[url]
    if not _making.acquire(timeout=max(0.0, min(_MAKING, deadline.left()))):
        raise ConnectionError("connecting to a cluster takes another thread long")
    try:
        with _as_connection_error():
            return _clients.get(url) or _clients.setdefault(url, _made(url, **options))
    finally:
        _making.release()


@contextmanager
def _as_connection_error() -> Iterator[None]:
    """Raise ConnectionError for what the library raises where it cannot make a client."""
    try:
        yield
    except RedisClusterException as error:
        if "Cluster mode is not enabled" in str(error):
            raise NoCluster("connecting to a cluster: the server does not run in cluster mode") from error
        raise ConnectionError("connecting to a cluster: none of its nodes answers") from error
    except LookupError as error:  # it takes the first of no masters
        raise ConnectionError("connecting to a cluster: no node has slots") from error


def _made(url: str, **options: Any) -> Cluster:
    """Return a new client, asking one node after another for the map of slots, those that did not answer last, for
    about as long as a thread waits for it; raise the library's errors."""
    until = time.monotonic() + min(_MAKING, deadline.left())
    for host in sorted(cluster_in(url).hosts, key=lambda one: _silent.get(one, 0.0)):
        try:
            return Cluster(url, host, **options)
        except (RedisClusterException, LookupError) as error:
            _silent[host] = time.monotonic()
            failed = error
        if time.monotonic() >= until:
            break
    raise failed


def pool_of_first(url: str) -> ConnectionPool:
    """Return a pool of the first node that the URL names; it has connected to nothing yet."""
    where = cluster_in(url)
    login = {"username": where.username or None, "password": where.password or None}
    return ConnectionPool.from_url(_url_of(where, where.hosts[0]), protocol=2, **login)


def _url_of(where: ClusterNodes, place: tuple[str, int]) -> str:
    host, port = place
    name = f"[{host}]" if ":" in host else host
    return f"{'rediss' if where.tls else 'redis'}://{name}:{port}?{where.options}"


def servers(client: Any) -> Iterable[Any]:
    """Return the client, or a client of each master of a cluster."""
    return client.servers() if isinstance(client, Cluster) else [client]
