"""The room that each store gives in a server of our own."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connections

from conversations.stores import ALIASES, MONGO, REDIS, bulk, scratch
from conversations.stores.bulk import Put, Share
from conversations.turns import History
from tests import environment
from tests.builders import a_session, some_turns
from tests.servers import RedisServer

URLS = {MONGO: environment.MONGO.url}


@pytest.fixture(scope="module", autouse=True)
def _one_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """As where a backup is verified, whatever the Redis of the service is."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    try:
        URLS[REDIS] = server.start().url
        yield
    finally:
        server.kill()


@pytest.mark.parametrize("alias", ALIASES)
def test_each_room_is_a_store_of_its_own(alias: str) -> None:
    turns = some_turns(40)  # more than a conversation may have elsewhere
    share = Share(a_session(), turns, 5000)
    with scratch(alias, URLS[alias], 1) as one, scratch(alias, URLS[alias], 2) as other:
        assert one.bulk.put([share]) == Put(created=1)
        (entry,) = [entry for page in one.bulk.entries(10) for entry in page]
        assert (entry.session, entry.history) == (share.session, History.of(turns))
        assert one.bulk.histories([share.session]) == {share.session: History.of(turns)}
        assert not [entry for page in other.bulk.entries(10) for entry in page]
        assert bulk(alias).present([share.session]) == set()
        one.clear()
        assert not [entry for page in one.bulk.entries(10) for entry in page]


@pytest.mark.parametrize("alias", ALIASES)
def test_a_room_is_cleared_without_touching_the_store_of_the_service(alias: str) -> None:
    session = a_session()
    bulk(alias).put([Share(session, some_turns(1), 5000)])
    with scratch(alias, URLS[alias], 1) as room:
        room.clear()
    assert bulk(alias).present([session]) == {session}


@pytest.mark.parametrize("alias", ALIASES)
def test_several_threads_use_a_room(alias: str) -> None:
    shares = [Share(a_session(), some_turns(2), 5000) for _ in range(20)]
    with scratch(alias, URLS[alias], 1) as room:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda share: room.bulk.put([share]), shares))
        assert room.bulk.present([share.session for share in shares]) == {share.session for share in shares}
        room.clear()


def test_django_knows_the_database_only_meanwhile() -> None:
    with scratch(MONGO, URLS[MONGO], 1):
        assert "scratch1" in connections.settings
    assert "scratch1" not in connections.settings
