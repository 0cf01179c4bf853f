"""Connections that are kept for turns."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from redis import ConnectionPool
from redis.exceptions import ConnectionError, ResponseError

from conversations.stores.redis.kept import KeptConnections
from tests import environment


@pytest.fixture
def pool() -> Iterator[ConnectionPool]:
    pool = ConnectionPool.from_url(environment.REDIS.url)
    yield pool
    pool.disconnect()


def client_id(kept: KeptConnections) -> int:
    return int(kept.call("CLIENT", "ID"))


def test_one_connection_serves_one_command_after_another(pool: ConnectionPool) -> None:
    kept = KeptConnections(pool)
    assert len({client_id(kept) for _ in range(5)}) == 1


def test_each_thread_has_one_to_itself(pool: ConnectionPool) -> None:
    kept = KeptConnections(pool)
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda word: kept.call("ECHO", word), map(str, range(500))))
    assert answers == [str(number).encode() for number in range(500)]


def test_an_error_of_the_server_is_an_answer(pool: ConnectionPool) -> None:
    kept = KeptConnections(pool)
    before = client_id(kept)
    with pytest.raises(ResponseError):
        kept.call("NONE")
    [echo, error] = kept.call_each([("ECHO", "a"), ("NONE",)])
    assert echo == b"a"
    assert isinstance(error, ResponseError)
    assert client_id(kept) == before


def test_one_that_the_server_has_closed_is_made_anew_before_anything_is_sent(pool: ConnectionPool) -> None:
    kept = KeptConnections(pool)
    before = client_id(kept)
    with environment.REDIS.client() as client:
        client.client_kill_filter(_id=before)
    assert client_id(kept) != before


def test_one_that_fails_is_not_kept(pool: ConnectionPool) -> None:
    kept = KeptConnections(pool)
    with pytest.raises(ConnectionError):
        kept.call("QUIT"), kept.call_each([("QUIT",), ("ECHO", "a")])
    assert kept.call("ECHO", "b") == b"b"


def test_a_child_has_connections_of_its_own(pool: ConnectionPool) -> None:
    kept = KeptConnections(pool)
    before = client_id(kept)
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.write(writing, str(client_id(kept)).encode())
        os._exit(0)
    os.wait()
    assert int(os.read(reading, 20)) != before
    assert client_id(kept) == before
    os.close(reading), os.close(writing)
