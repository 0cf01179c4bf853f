"""Connections to Redis that fail fast."""

import math
import select
import time
from typing import Any

from django_redis.pool import ConnectionFactory
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection, DefaultParser, SSLConnection
from redis.exceptions import TimeoutError
from redis.retry import Retry
from redis.utils import SENTINEL

from conversations import deadline

made = 0
"""How many connections this process has made: a restart of the server breaks all of them."""


def _connected(connection: AbstractConnection) -> None:
    global made
    connection.on_connect()  # type: ignore[no-untyped-call]
    if isinstance(connection, SSLConnection):
        # Over TLS the server sends session tickets first. Unread, they look like an answer that nobody has read.
        connection.send_command("PING", check_health=False)  # type: ignore[no-untyped-call]
        connection.read_response()
    made += 1


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
        alone = timeout == 0 and self._arrivals and self._reader and not self._reader.has_data()
        if alone and not self._arrivals.poll(0):
            return False
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


class HistoryConnectionFactory(ConnectionFactory[Any, Any, Any]):
    """Connections that fail fast: no retries, and one round trip to set up instead of five."""

    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__(options)
        # A retry would apply a command twice when only its reply was lost.
        fast = {"retry": Retry(NoBackoff(), 0), "protocol": 2, "driver_info": None, "redis_connect_func": _connected}
        self.pool_cls_kwargs: dict[str, Any] = {**fast, **options.get("CONNECTION_POOL_KWARGS", {})}
