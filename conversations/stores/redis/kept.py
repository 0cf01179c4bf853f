"""Commands of a turn, over connections that are kept for them.

The driver's own way to a connection and back costs about as much as Redis' answer: locks, retries and telemetry for
each command. Here a command is sent and its answer read, nothing else.
"""

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from math import inf
from typing import Any
from weakref import WeakSet

from hiredis import pack_command
from redis.connection import ConnectionPool
from redis.exceptions import ReadOnlyError, RedisError, ResponseError, TimeoutError

Command = tuple[Any, ...]
Connection = Any  # the driver's has no types


class KeptConnections:
    """Takes connections from a pool and keeps them. Any thread may use it; each call has a connection to itself."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool
        self._sentinels: Any = getattr(pool, "proxy", None)
        self._idle: list[Connection] = []
        _all.add(self)

    def call(self, *command: Any) -> Any:
        """Return the answer, in one round trip; raise the driver's errors."""
        connection = self._take()
        try:
            connection.send_packed_command([pack_command(command)], check_health=False)
            answer = connection.read_response()
        except ReadOnlyError:  # the name or the sentinels may lead to another server by now
            self.drop(connection)
            raise
        except ResponseError:  # an answer too
            self._idle.append(connection)
            raise
        except BaseException:
            self.drop(connection)
            raise
        self._idle.append(connection)
        return answer

    def call_each(self, commands: Sequence[Command]) -> list[Any]:
        """Return the answers of all commands, in one round trip, an error of the server in the place of an answer;
        raise the driver's other errors."""
        return self.receive(self.send(commands), len(commands))

    def send(self, commands: Sequence[Command]) -> Connection:
        """Return the connection on which the answers of the commands come: `receive` them, or `drop` it."""
        connection = self._take()
        try:
            connection.send_packed_command([b"".join(map(pack_command, commands))], check_health=False)
        except BaseException:
            self.drop(connection)
            raise
        return connection

    def receive(self, connection: Connection, number: int, until: float = inf) -> list[Any]:
        """Return so many answers as `call_each` does, and keep the connection. Raise TimeoutError where the
        first has not begun to arrive by `until`, on the monotonic clock."""
        try:
            if until != inf and not connection.can_read(max(until - time.monotonic(), 0.0)):
                raise TimeoutError("Timeout reading from socket")
            answers = [_answer(connection) for _ in range(number)]
        except BaseException:
            self.drop(connection)
            raise
        if any(isinstance(answer, ReadOnlyError) for answer in answers):
            self.drop(connection)
        else:
            self._idle.append(connection)
        return answers

    def _take(self) -> Connection:
        """Return a connection on which nothing is left to read. One that the server has closed is made anew, before
        anything is sent: what is sent over it would be lost. So is one to a server in whose place the sentinels have
        named another: it takes writes for some seconds when it is woken, and loses them."""
        try:
            connection = self._idle.pop()
        except IndexError:
            return self._pool.get_connection()
        try:
            clean = not connection.can_read() and (
                self._sentinels is None or self._sentinels.master_address == (connection.host, connection.port)
            )
        except (RedisError, OSError):
            clean = False
        if clean:
            return connection
        self.drop(connection)
        return self._pool.get_connection()  # which asks the sentinels; a command of the connection's own does not

    def close(self) -> None:
        """Close the connections that no call uses now."""
        while self._idle:
            with suppress(IndexError):  # another thread has taken the last one
                self.drop(self._idle.pop())

    def forget(self) -> None:
        """Keep none of the connections, and leave them open: in a process that was forked they are the parent's."""
        self._idle.clear()

    def drop(self, connection: Connection) -> None:
        """Close the connection: nobody waits for what comes on it."""
        connection.disconnect()
        self._pool.release(connection)


_all: WeakSet[KeptConnections] = WeakSet()


def _forget_all() -> None:
    for kept in _all:
        kept.forget()


os.register_at_fork(after_in_child=_forget_all)


def _answer(connection: Connection) -> Any:
    try:
        return connection.read_response()
    except ResponseError as error:
        return error
