"""Counts what is sent to the stores, so that a test can say how often a request waits for one."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import bson
import pytest
from pymongo import monitoring
from redis.connection import AbstractConnection

from tests.servers import RedisServer


class _Commands(monitoring.CommandListener):
    """Every command of every client that was made since this was registered."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.replies: list[Any] | None = None  # kept only while a test asks for them

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        self.names.append(event.command_name)

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        if self.replies is not None:
            self.replies.append(event.reply)

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        pass


_COMMANDS = _Commands()
monitoring.register(_COMMANDS)


@contextmanager
def to_mongo() -> Iterator[list[str]]:
    """Collect the names of the commands that are sent to MongoDB; each is one round trip."""
    before = len(_COMMANDS.names)
    sent: list[str] = []
    yield sent
    sent += _COMMANDS.names[before:]


@contextmanager
def from_mongo() -> Iterator[list[int]]:
    """Collect the sizes of MongoDB's replies, in bytes."""
    sizes: list[int] = []
    _COMMANDS.replies = replies = []
    try:
        yield sizes
    finally:
        _COMMANDS.replies = None
    sizes += [len(bson.encode(dict(reply))) for reply in replies]


@contextmanager
def from_redis(server: RedisServer) -> Iterator[list[int]]:
    """Collect how many bytes the server has sent, with those of the INFO that tells so."""
    sizes: list[int] = []
    with server.client() as client:
        before = client.info("stats")["total_net_output_bytes"]
        yield sizes
        sizes.append(client.info("stats")["total_net_output_bytes"] - before)


@contextmanager
def to_redis() -> Iterator[list[str]]:
    """Collect the names of the commands sent to Redis, of a pipeline the first: each is one round trip."""
    sent: list[str] = []
    send = AbstractConnection.send_packed_command

    def noted(self: Any, command: Any, *rest: Any, **options: Any) -> None:
        packed = command if isinstance(command, bytes) else b"".join(command)
        sent.append(packed.split(b"\r\n")[2].decode())
        send(self, command, *rest, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AbstractConnection, "send_packed_command", noted)
        yield sent


@contextmanager
def between_commands(call: Callable[[], object]) -> Iterator[None]:
    """Send the commands of a pipeline to Redis one by one, with the call in between, as the network may."""
    send, threads = AbstractConnection.send_packed_command, threading.local()

    def split(self: Any, command: Any, *rest: Any, **options: Any) -> None:
        packed = command if isinstance(command, bytes) else b"".join(command)
        commands = [packed] if getattr(threads, "calling", False) else _commands_in(packed)
        for number, one in enumerate(commands):
            if number:
                threads.calling = True
                call()
                threads.calling = False
            send(self, [one], *rest, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AbstractConnection, "send_packed_command", split)
        yield


def _commands_in(packed: bytes) -> list[bytes]:
    """Return the commands, each packed: a line with the number of its parts, and each part after its length."""
    found, position = [], 0
    while position < len(packed):
        begun, end = position, packed.index(b"\r\n", position)
        parts, position = int(packed[begun + 1 : end]), end + 2
        for _ in range(parts):
            end = packed.index(b"\r\n", position)
            position = end + 2 + int(packed[position + 1 : end]) + 2
        found.append(packed[begun:position])
    return found
