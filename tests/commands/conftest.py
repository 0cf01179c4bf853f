"""Commands on stores that hold nothing else, with no switch recorded and no server on PORT."""

import threading
from collections.abc import Iterator
from pathlib import Path
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
from django.core.wsgi import get_wsgi_application
from pytest_django import Settings

from conversations.background import watcher
from conversations.runtime import state
from ops.failover import move
from tests.servers import MongoServer, RedisServer, free_port

PORT = free_port()


@pytest.fixture
def both_empty(
    settings: Settings, tmp_path: Path, redis_server: RedisServer, mongo_server: MongoServer,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[None]:  # fmt: skip
    """Both stores up and empty; a failover waits for no other process."""
    settings.VAR_DIR = tmp_path
    settings.PORT = PORT
    monkeypatch.setattr(move, "FOLLOW_SECONDS", 0.0)
    state.forget()
    _empty(redis_server, mongo_server)
    yield
    _empty(redis_server, mongo_server)
    state.forget()


def _empty(redis_server: RedisServer, mongo_server: MongoServer) -> None:
    with redis_server.client() as redis, mongo_server.client() as mongo:
        redis.flushdb()
        for name in ("conversations_conversation", "conversations_corruptconversation", "onesource_notes"):
            mongo.get_default_database()[name].delete_many({})


@pytest.fixture
def redis_out(both_empty: None, redis_server: RedisServer) -> Iterator[None]:
    redis_server.kill()
    yield
    redis_server.kill()
    redis_server.start()


@pytest.fixture
def mongo_out(both_empty: None, mongo_server: MongoServer) -> Iterator[None]:
    mongo_server.kill()
    yield
    mongo_server.kill()
    mongo_server.start()


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def server(both_empty: None, settings: Settings) -> Iterator[str]:
    """This process as a server on PORT."""
    watcher.look()
    with make_server("127.0.0.1", settings.PORT, get_wsgi_application(), handler_class=_Silent) as serving:
        thread = threading.Thread(target=serving.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{settings.PORT}"
        serving.shutdown()
        thread.join()
