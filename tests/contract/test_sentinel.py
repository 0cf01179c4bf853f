"""What is so behind Sentinel alone. What a store promises anywhere it promises there too: script/test-kinds."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_django import Settings

from conversations.datasets import Dataset
from conversations.errors import StoreUnavailable
from conversations.stores.redis.patient import patient_client
from conversations.stores.redis.turns import CacheStore
from conversations.turns import History, Limits, Turn
from tests.builders import a_session, a_turn, some_turns
from tests.sentinels import PASSWORD, Deployment
from tests.servers import RedisServer, eventually, use_redis

LIMITS = Limits(3600, 1000, 1_000_000)


@pytest.fixture
def deployment(tmp_path: Path, settings: Settings) -> Iterator[Deployment]:
    made = Deployment(tmp_path)
    try:
        made.start()
        settings.REDIS_SENTINEL_PASSWORD = PASSWORD
        settings.CACHES["conversations"]["OPTIONS"]["SOCKET_TIMEOUT"] = 0.5
        use_redis(settings, made.url)
        yield made
    finally:
        made.kill()


def writes(store: CacheStore, session: str, turn: Turn) -> bool:
    try:
        store.append(session, turn)
    except StoreUnavailable:
        return False
    return True


def held(server: RedisServer, session: str) -> bool:
    with server.client() as client:
        return bool(client.exists(f"conv:{session}"))


def test_a_killed_primary_is_followed_by_another(deployment: Deployment) -> None:
    store, session, turns = CacheStore("redis", LIMITS), a_session(), some_turns(2)
    store.append(session, turns[0])
    before = deployment.primary()
    eventually(lambda: all(held(server, session) for server in deployment.nodes), "the replicas do not have it")
    before.kill()
    after = deployment.promoted(before)
    eventually(lambda: writes(store, session, turns[1]), "the new primary takes no turn")
    assert store.load(session) == History.of(turns)
    assert held(after, session)


def test_nothing_is_written_to_an_old_primary_that_wakes(deployment: Deployment) -> None:
    """It takes writes until the sentinels have told it, and loses them then."""
    store, session, woken = CacheStore("redis", LIMITS), a_session(), a_session()
    stores = [CacheStore("redis", LIMITS) for _ in range(2)]
    for one in (store, *stores):  # each with kept connections
        one.append(session, a_turn())
    before = deployment.primary()
    before.freeze()
    deployment.promoted(before)
    eventually(lambda: writes(store, session, a_turn()), "the new primary takes no turn")
    before.thaw()
    for one in (store, *stores):
        assert writes(one, woken, a_turn())
    history = store.load(woken)
    assert history is not None
    assert len(history) == 6


def test_repair_leaves_an_old_primary_before_it_wakes(deployment: Deployment) -> None:
    """What repair would write there the sentinels' primary would lack, with the unsynced flags cleared."""
    store = CacheStore("redis", LIMITS)
    store.append(a_session(), a_turn())
    patient_client().ping()  # its connection is kept
    before = deployment.primary()
    before.freeze()
    after = deployment.promoted(before)
    eventually(lambda: writes(store, a_session(), a_turn()), "the new primary takes no turn")
    before.thaw()
    assert patient_client().info("server")["tcp_port"] == after.port


def test_a_primary_that_became_a_replica_is_left(deployment: Deployment) -> None:
    store, session, turns = CacheStore("redis", LIMITS), a_session(), some_turns(2)
    store.append(session, turns[0])
    eventually(lambda: all(held(server, session) for server in deployment.nodes), "the replicas do not have it")
    after = deployment.fail_over()
    store.beat("a process", Dataset("none", 1, ""))  # as each process does once a second
    eventually(lambda: writes(store, session, turns[1]), "the new primary takes no turn")
    with after.client() as client:
        assert client.get(f"conv:{session}").count(b"\n") == 4


def test_sentinels_that_are_out_keep_nobody_waiting(deployment: Deployment) -> None:
    """An open connection goes on without sentinels; a new one fails within the time of a few tries."""
    store = CacheStore("redis", LIMITS)
    store.ping()
    for sentinel in deployment.sentinels:
        sentinel.kill()
    assert writes(store, a_session(), a_turn())
    patient_client().connection_pool.disconnect()
    begun = time.monotonic()
    with pytest.raises(Exception, match="no sentinel names one"):
        patient_client().ping()
    assert time.monotonic() - begun < 10


def test_one_sentinel_is_enough(deployment: Deployment) -> None:
    for sentinel in deployment.sentinels[:2]:
        sentinel.kill()
    assert writes(CacheStore("redis", LIMITS), a_session(), a_turn())


def test_a_wrong_password_of_the_sentinels_is_an_outage(deployment: Deployment, settings: Settings) -> None:
    settings.REDIS_SENTINEL_PASSWORD = "another"  # noqa: S105
    use_redis(settings, deployment.url + "?")
    with pytest.raises(StoreUnavailable):
        CacheStore("redis", LIMITS).ping()
