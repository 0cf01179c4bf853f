"""Connections to Redis that fail fast: to one server, or to the one that sentinels name."""

import math
import select
import time
from contextlib import suppress
from typing import Any

from django.conf import settings
from django_redis.pool import ConnectionFactory
from redis import ConnectionPool, Redis
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection, Connection, DefaultParser, SSLConnection, parse_url
from redis.exceptions import ConnectionError, NoPermissionError, RedisError, TimeoutError
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel, SentinelConnectionPool, SentinelManagedConnection
from redis.utils import SENTINEL

from conversations import deadline
from conversations.stores.redis.address import is_of_sentinels, sentinels_in

made = 0
"""How many connections this process has made: a restart of the server breaks all of them."""


def connected(connection: AbstractConnection) -> None:
    """Set a new connection up, and count it."""
    global made
    connection.on_connect()  # type: ignore[no-untyped-call]
    if isinstance(connection, SSLConnection):
        # Over TLS the server sends session tickets first. Unread, they look like an answer that nobody has read.
        connection.send_command("PING", check_health=False)  # type: ignore[no-untyped-call]
        connection.read_response()
    if isinstance(connection, SentinelManagedConnection):
        _require_primary(connection)
    made += 1


def _require_primary(connection: AbstractConnection) -> None:
    """Raise ConnectionError where the server is a replica: sentinels name the old one until they have all agreed on
    another, and a replica may lack the newest turns."""
    connection.send_command("ROLE", check_health=False)  # type: ignore[no-untyped-call]
    try:
        role = connection.read_response()[0]
    except NoPermissionError:  # then a write shows it
        return
    if role != b"master":
        raise ConnectionError("connecting to a server that takes no writes any more")


class DeadlineParser(DefaultParser):  # type: ignore[misc, valid-type]  # hiredis brings the one that is used
    """Reads a reply within the socket timeout from its first byte to its last, and before the request's deadline.

    The socket's own timeout is for each receive: a server that drips bytes would never run into it.
    """

    _deadline: float | None = None
    _arrivals: Any = None
    """Shows whether anything came, or the server has closed; None where TLS keeps that to itself."""

    def on_connect(self, connection: AbstractConnection) -> None:
        super().on_connect(connection)
        self._arrivals = None
        if not hasattr(self._sock, "pending"):
            self._arrivals = select.poll()
            self._arrivals.register(self._sock, select.POLLIN)

    def can_read(self, timeout: float = 0) -> bool:
        """Return whether there is anything to read. Before a command there is not, as the library finds too, with an
        object of the kernel's that it makes for each command."""
        alone = self._arrivals and self._reader and not self._reader.has_data()
        if alone and not self._arrivals.poll(timeout * 1000):
            return False
        if alone and timeout:
            return True
        return bool(super().can_read(timeout))

    def read_response(self, *arguments: Any, **options: Any) -> Any:
        self._deadline = None
        return super().read_response(*arguments, **options)

    def read_from_socket(self, timeout: Any = SENTINEL, raise_on_timeout: bool = True) -> bool:
        if timeout is SENTINEL:
            timeout = self._left()
        return bool(super().read_from_socket(timeout, raise_on_timeout))

    def _left(self) -> Any:
        """Return the seconds for this receive, SENTINEL where the socket has them already; raise TimeoutError."""
        own, left = self._socket_timeout or math.inf, deadline.left()
        if self._deadline is None:
            self._deadline = time.monotonic() + min(own, left)
            if own <= left:
                return SENTINEL
        seconds = self._deadline - time.monotonic()
        if seconds <= 0:
            raise TimeoutError("Timeout reading from socket")
        return seconds


class Sentinels(Sentinel):
    """The sentinels of one service, asked one after another, the one that answered last first."""

    def __init__(self, hosts: tuple[tuple[str, int], ...], **connection: Any) -> None:
        # The library's own cannot be told which parser its connections use.
        super().__init__([])  # type: ignore[no-untyped-call]
        pools = [ConnectionPool(host=host, port=port, **connection) for host, port in hosts]
        self.sentinels = [Redis(connection_pool=pool) for pool in pools]

    def discover_master(self, service_name: str) -> tuple[str, int]:
        """Return host and port of the server that takes writes; raise MasterNotFoundError where no sentinel knows. The
        library looks into their lists of servers, which have the old one until a failover has ended."""
        for sentinel in self.sentinels:
            with suppress(RedisError):
                found: Any = sentinel.sentinel_get_master_addr_by_name(service_name, return_responses=True)
                if found:
                    self.sentinels = [sentinel, *(one for one in self.sentinels if one is not sentinel)]
                    return found[0].decode(), found[1]
        raise MasterNotFoundError("connecting to the primary: no sentinel names one")


class PrimaryConnection(SentinelManagedConnection):
    """A connection to the server that sentinels name as the primary. Where that takes no writes any more, the library's
    own would hide that the write was refused, and lose the other answers of a round trip."""

    def read_response(self, *arguments: Any, **options: Any) -> Any:
        return Connection.read_response(self, *arguments, **options)


class PrimarySSLConnection(PrimaryConnection, SSLConnection):
    """The same over TLS."""


class PrimaryPool(SentinelConnectionPool):
    """Connections to the server that sentinels name as the primary."""

    def get_connection(self, *arguments: Any, **options: Any) -> Any:
        """Return a connection to that server. An idle one to another, which was the primary when it was made, is made
        anew: a server that stood still takes writes for some seconds when it is woken, and loses them."""
        connection: Any = super().get_connection(*arguments, **options)
        if (connection.host, connection.port) != self.master_address:
            try:
                connection.disconnect()
                connection.connect()
            except BaseException:
                self.release(connection)
                raise
        return connection

    def follow(self, pool: SentinelConnectionPool) -> None:
        """Have the same primary as that pool from now on: it is the one that asks the sentinels once a second."""
        self.proxy = self.connection_kwargs["connection_pool"] = pool.proxy


class HistoryConnectionFactory(ConnectionFactory[Any, Any, Any]):
    """Connections that fail fast: no retries, and one round trip to set up instead of five."""

    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__(options)
        # A retry would apply a command twice when only its reply was lost.
        fast = {"retry": Retry(NoBackoff(), 0), "protocol": 2, "driver_info": None, "redis_connect_func": connected}
        self.pool_cls_kwargs: dict[str, Any] = {**fast, **options.get("CONNECTION_POOL_KWARGS", {})}

    def get_connection_pool(self, params: dict[str, Any]) -> Any:
        """Return a pool of connections to the server of the URL, or to the one that its sentinels name."""
        if not is_of_sentinels(params["url"]):
            return super().get_connection_pool(params)
        where = sentinels_in(params["url"])
        common = {name: value for name, value in {**params, **self.pool_cls_kwargs}.items() if name != "url"}
        scheme = "rediss" if where.tls else "redis"
        common |= parse_url(f"{scheme}://?{where.options}")  # type: ignore[no-untyped-call]
        login = {"username": where.username or None, "password": where.password or None, "db": where.number}
        own = {"redis_connect_func": None, "password": settings.REDIS_SENTINEL_PASSWORD or None}
        return PrimaryPool(  # type: ignore[no-untyped-call]
            where.service,
            Sentinels(where.hosts, **common | own),
            **common | login | {"connection_class": PrimarySSLConnection if where.tls else PrimaryConnection},
        )
