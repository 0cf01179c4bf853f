"""Every way in which MongoDB's drivers report a fault, as StoreUnavailable."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pymongo
from django.conf import settings
from django.db import DatabaseError, connections
from pymongo.errors import (
    NotPrimaryError,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WaitQueueTimeoutError,
    WriteConcernError,
)

from conversations import deadline
from conversations.errors import StoreUnavailable
from conversations.models import ALIAS

_NOT_SENT = (ServerSelectionTimeoutError, WaitQueueTimeoutError)
_INTERRUPTED = {24, 50, 262, 11601}  # LockTimeout, MaxTimeMSExpired, ExceededTimeLimit, Interrupted
ATTEMPTS = 8  # of an update that lost a race: the winner has written, so one writer always advances


@contextmanager
def as_unavailable(alias: str) -> Iterator[None]:
    """Raise StoreUnavailable for a driver's error."""
    try:
        yield
    except (DatabaseError, PyMongoError, OSError) as error:  # the last where a file for TLS cannot be read
        cause = (isinstance(error, DatabaseError) and error.__cause__) or error
        raise StoreUnavailable(alias, type(cause).__name__, unknown=not _is_certain(cause)) from error


@contextmanager
def failing_fast(times: int = 1) -> Iterator[None]:
    """Raise StoreUnavailable for a driver's error, and at once where no server is known that takes writes. All that is
    asked in the block may take so many times MONGO_TIMEOUT_MS, and no longer than the request has left."""
    fail_fast()
    with as_unavailable(ALIAS), pymongo.timeout(_bounded(times * settings.MONGO_TIMEOUT_MS / 1000)):
        yield


def _bounded(seconds: float) -> float:
    """Return the seconds, or what the request has left; to the driver zero would be no timeout at all."""
    return max(min(seconds, deadline.left()), 0.001)


def fail_fast(database: str = ALIAS) -> None:
    """Raise StoreUnavailable where the driver knows no server that takes writes, and why."""
    wrapper: Any = connections[database]
    client = wrapper.connection or wrapper._connection_pools.get(database)  # one client for all threads
    topology = client.topology_description if client is not None else None
    if topology is None or topology.has_writable_server():
        return
    if any(server.error for server in topology.server_descriptions().values()):
        raise StoreUnavailable(ALIAS, "no writable server")


def _is_certain(error: BaseException) -> bool:
    """Return whether the error shows that nothing was done: it is the server's refusal, or nothing was sent."""
    if not isinstance(error, PyMongoError) or isinstance(error, (NotPrimaryError, WriteConcernError)):
        return False
    if isinstance(error, OperationFailure):
        return error.code not in _INTERRUPTED
    unsent = isinstance(error, _NOT_SENT) or error.has_error_label("SystemOverloadedError")
    return unsent or "connection pool paused" in str(error)  # the label is for a connection that was not made
