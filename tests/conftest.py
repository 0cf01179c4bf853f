"""The few fixtures that all tests share."""

from collections.abc import Iterator

import pytest
from django.core.management import call_command

from conversations.runtime import state
from tests import environment
from tests.servers import MongoServer, RedisServer


@pytest.fixture(scope="session", autouse=True)
def _servers(django_db_blocker: pytest.FixtureRequest) -> Iterator[None]:
    """Start this process' stores and migrate them; tests keep apart by naming their own sessions."""
    try:
        environment.REDIS.start()
        environment.MONGO.start()
        with django_db_blocker.unblock():
            call_command("migrate", verbosity=0, interactive=False)
            call_command("migrate", database="mongo", verbosity=0, interactive=False)
            yield
    finally:
        environment.stop()


@pytest.fixture
def redis_server() -> RedisServer:
    return environment.REDIS


@pytest.fixture
def mongo_server() -> MongoServer:
    return environment.MONGO


@pytest.fixture(autouse=True)
def _knowing_nothing() -> None:
    """Begin each test as a process does that has just started: every breaker closed, no marks seen."""
    state.forget()
