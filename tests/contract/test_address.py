"""Addresses of one Redis, as REDIS_URL has them."""

from pathlib import Path

from pytest_django import Settings

from conversations.stores.redis.turns import CacheStore
from conversations.turns import Limits
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
