"""Addresses of one Redis, as REDIS_URL has them."""

from pathlib import Path

import pytest
from pytest_django import Settings

from conversations.errors import StoreUnavailable
from conversations.stores.redis.turns import CacheStore
from conversations.turns import Limits
from tests.builders import a_session, a_turn
from tests.servers import RedisServer, use_redis


def test_a_password_may_have_commas(tmp_path: Path, settings: Settings) -> None:
    class Closed(RedisServer):
        @property
        def url(self) -> str:
            return f"redis://:a,b@127.0.0.1:{self.port}/0"

    server = Closed(tmp_path, "--requirepass", "a,b")
    try:
        server.start()
        use_redis(settings, server.url)
        CacheStore("redis", Limits(60, 10, 100_000)).ping()
    finally:
        server.kill()


def test_what_a_replica_refuses_is_certainly_not_stored_and_its_connection_is_left(
    tmp_path: Path, settings: Settings
) -> None:
    """Its name may lead to another server by now. A first turn is two commands in one round trip."""
    server = RedisServer(tmp_path)
    try:
        server.start()
        use_redis(settings, server.url)
        store = CacheStore("redis", Limits(60, 10, 100_000))
        store.append(a_session(), a_turn())
        with server.client() as client:
            client.replicaof("127.0.0.1", 1)
            with pytest.raises(StoreUnavailable) as refused:
                store.append(a_session(), a_turn())
            assert not refused.value.unknown
            assert store._client._turns._idle == []
            client.replicaof("NO", "ONE")
        assert store.append(a_session(), a_turn()).created
    finally:
        server.kill()
