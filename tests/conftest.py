"""The few fixtures that all tests share."""

from collections.abc import Iterator

import pytest
from django.core.management import call_command

from conversations import clock, deadline, expiry
from conversations.runtime import state
from conversations.stores import ALIASES, reachable
from tests import environment
from tests.clusters import ClusterOfServers
from tests.coverage import with_coverage
from tests.servers import MongoServer, RedisServer, eventually

LONG = ("tests/simulation/", "tests/runbook/")
"""Where tests take up to a minute each: one that began last would run alone on two cores."""


SHARING = "tests/browser/"
"""Where modules share what takes long to start, and are kept together for that, or it would idle between them."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the long ones, in their random order; the others follow in theirs. What is about one server is
    skipped where Redis is several."""
    for item in items:
        alone = item.get_closest_marker("one_server")
        if alone and environment.KIND != "server":
            item.add_marker(pytest.mark.skip(alone.args[0]))
    sharing = next((place for place, item in enumerate(items) if item.nodeid.startswith(SHARING)), 0)
    places = [sharing if item.nodeid.startswith(SHARING) else place for place, item in enumerate(items)]
    order = sorted(range(len(items)), key=lambda place: (not items[place].nodeid.startswith(LONG), places[place]))
    items[:] = [items[place] for place in order]


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


@pytest.fixture(scope="session")
def django_db_setup() -> None:
    """Make no second database for tests: `default` is this process' own already, and what tests start uses it too."""


@pytest.fixture
def redis_server() -> RedisServer:
    return environment.REDIS


@pytest.fixture
def mongo_server() -> MongoServer:
    return environment.MONGO


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterOfServers]:
    """A cluster, for tests that leave it whole."""
    if isinstance(environment.REDIS, ClusterOfServers):
        yield environment.REDIS
        return
    cluster = ClusterOfServers(tmp_path_factory.mktemp("cluster"))
    try:
        yield cluster.start()
    finally:
        cluster.kill()


@pytest.fixture(autouse=True)
def _with_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give requests more time than a busy machine takes, as the stores' timeouts do."""
    monkeypatch.setattr(deadline, "SECONDS", 20.0)


@pytest.fixture(autouse=True)
def _knowing_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin each test as a process does that has just started: every breaker closed, no flags seen, and both stores
    up. A driver takes up to half a second to notice that a server is back which another test had stopped."""
    make = state._make
    monkeypatch.setattr(state, "_make", lambda: with_coverage(make()))
    monkeypatch.setattr(clock, "_ahead", None)
    monkeypatch.setattr(clock, "_differences", {})
    monkeypatch.setattr(clock, "_wall", 0.0)
    state.forget()
    eventually(lambda: reachable() == ALIASES, "not every store answers")
    for alias in ALIASES:  # a file has it, of the tests before
        state.state().shared_flags.set_had_flags(alias, False)
    state.forget()
    monkeypatch.setattr(expiry, "_latest", 0.0)  # the stores have it noted, of the tests before
