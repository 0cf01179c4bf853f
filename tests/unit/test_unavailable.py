"""Which faults of a store leave it unknown whether it has done what it was asked."""

import pytest
from django.db import DatabaseError
from django_redis.exceptions import ConnectionInterrupted
from pymongo import errors as mongo
from redis import exceptions as redis
from redis.connection import ConnectionPool, DefaultParser
from redis.sentinel import MasterNotFoundError

from conversations.errors import StoreUnavailable
from conversations.stores.mongo.faults import as_unavailable as mongo_as_unavailable
from conversations.stores.redis.faults import as_unavailable as redis_as_unavailable
from tests import environment
from tests.servers import free_port

ANSWERS = [
    "OOM command not allowed when used memory > 'maxmemory'.",
    "READONLY You can't write against a read only replica.",
    "LOADING Redis is loading the dataset in memory",
    "NOAUTH Authentication required.",
    "WRONGPASS invalid username-password pair or user is disabled.",
    "NOPERM this user has no permissions to run the 'set' command",
    "MISCONF Errors writing to the AOF file",
    "BUSY Redis is busy running a script.",
    "ERR max number of clients reached",
    "CLUSTERDOWN Hash slot not served",
    "MASTERDOWN Link with MASTER is down",
]


def redis_fault(error: Exception) -> StoreUnavailable:
    """Return the fault, as it comes through Django's cache."""
    with pytest.raises(StoreUnavailable) as caught, redis_as_unavailable("redis"):
        raise ConnectionInterrupted(connection=None) from error
    return caught.value


def mongo_fault(error: Exception) -> StoreUnavailable:
    """Return the fault, as it comes through Django's ORM."""
    with pytest.raises(StoreUnavailable) as caught, mongo_as_unavailable("mongo"):
        raise DatabaseError from error
    return caught.value


@pytest.mark.parametrize("answer", ANSWERS)
def test_what_redis_refuses_is_not_done(answer: str) -> None:
    error = DefaultParser.parse_error(answer)  # type: ignore[attr-defined]
    assert not redis_fault(error).unknown


@pytest.mark.parametrize(
    "error",
    [
        redis.ConnectionError("Error 111 connecting to 127.0.0.1:6379. Connection refused."),
        redis.TimeoutError("Timeout connecting to server"),
        redis.MaxConnectionsError("Too many connections"),
        redis.ConnectionError("No connection available."),
        MasterNotFoundError("No master found for 'onesource'"),
    ],
    ids=str,
)
def test_what_was_not_sent_to_redis_is_not_done(error: Exception) -> None:
    assert not redis_fault(error).unknown


@pytest.mark.parametrize(
    "error",
    [
        redis.TimeoutError("Timeout reading from 127.0.0.1:6379"),
        redis.ConnectionError("Connection closed by server."),
        redis.InvalidResponse("Protocol Error: b'garbage'"),
        redis.RedisClusterException("TTL exhausted."),
        redis.RedisError("something else"),
    ],
    ids=str,
)
def test_what_redis_did_not_answer_may_be_done(error: Exception) -> None:
    assert redis_fault(error).unknown


def test_a_refused_connection_to_redis_is_recognised() -> None:
    pool = ConnectionPool(host="127.0.0.1", port=free_port())
    with pytest.raises(redis.ConnectionError) as caught:
        pool.get_connection()
    assert not redis_fault(caught.value).unknown


@pytest.mark.parametrize(
    "error",
    [
        mongo.ServerSelectionTimeoutError("127.0.0.1:27017: [Errno 111] Connection refused"),
        mongo.WaitQueueTimeoutError("Timed out while checking out a connection"),
        mongo.AutoReconnect("127.0.0.1:27017: connection pool paused"),
        mongo.OperationFailure("not authorized", 13),
        mongo.WriteError("no space left", 14031),
    ],
    ids=str,
)
def test_what_mongo_refuses_or_was_not_sent_is_not_done(error: Exception) -> None:
    assert not mongo_fault(error).unknown


@pytest.mark.parametrize(
    "error",
    [
        mongo.NetworkTimeout("127.0.0.1:27017: timed out"),
        mongo.AutoReconnect("127.0.0.1:27017: connection closed"),
        mongo.NotPrimaryError("node is shutting down"),
        mongo.ExecutionTimeout("operation exceeded time limit", 50),
        mongo.OperationFailure("operation was interrupted", 11601),
        mongo.WTimeoutError("waiting for replication timed out", 64),
        ValueError("something else"),
    ],
    ids=str,
)
def test_what_mongo_did_not_answer_or_left_half_way_may_be_done(error: Exception) -> None:
    assert mongo_fault(error).unknown


def test_a_connection_that_could_not_be_made_to_mongo_is_recognised() -> None:
    with environment.MONGO.client() as client:
        client.admin.command("ping")
        pool = next(iter(client._topology._servers.values()))._pool
        pool.address = ("127.0.0.1", free_port())
        with pytest.raises(mongo.AutoReconnect) as caught:
            pool.connect()
    assert not mongo_fault(caught.value).unknown
