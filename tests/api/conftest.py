"""A process that has just started, and stores that are down for one test and up again before the next."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_django import Settings

from conversations import clock
from conversations.answerers import answerer
from conversations.runtime import state
from conversations.stores import control, reachable
from conversations.stores.control import LISTED
from tests.api.talking import Lines
from tests.servers import MongoServer, RedisServer


@pytest.fixture(autouse=True)
def _just_started(settings: Settings, tmp_path: Path) -> Iterator[None]:
    """Have a VAR_DIR of its own for each test, and leave no state behind."""
    settings.VAR_DIR = tmp_path
    state.forget()
    for alias in reachable():  # no watcher runs here that would make the list
        control(alias).write_note(LISTED, str(clock.timestamp()))
    yield
    state.forget()


@pytest.fixture
def redis_out(redis_server: RedisServer) -> Iterator[None]:
    redis_server.kill()
    yield
    redis_server.kill()  # unless the test has started it again
    redis_server.start()


@pytest.fixture
def mongo_out(mongo_server: MongoServer) -> Iterator[None]:
    mongo_server.kill()
    yield
    mongo_server.kill()
    mongo_server.start()


@pytest.fixture
def answered_by(settings: Settings, request: pytest.FixtureRequest) -> Iterator[None]:
    """Have a stand-in answer the questions."""
    settings.ANSWERER = f"{request.param.__module__}.{request.param.__name__}"
    answerer.cache_clear()
    yield
    answerer.cache_clear()


@pytest.fixture
def log() -> Iterator[Lines]:
    handler = Lines()
    logging.getLogger().addHandler(handler)
    yield handler
    logging.getLogger().removeHandler(handler)
