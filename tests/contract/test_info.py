"""What every store's server reports about itself: see conversations/stores/info.py."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from conversations.errors import StoreUnavailable
from conversations.stores import ALIASES, MONGO, REDIS, info
from conversations.stores.info import StoreInfo
from conversations.stores.mongo import info as mongo_info
from conversations.stores.redis import info as redis_info
from tests import environment
from tests.contract.test_stores import refused
from tests.servers import RedisServer, eventually

SERVERS = {REDIS: environment.REDIS, MONGO: environment.MONGO}


def answers(alias: str) -> StoreInfo | None:
    try:
        return info(alias)
    except StoreUnavailable:
        return None


@pytest.mark.parametrize("alias", ALIASES)
class TestEveryStore:
    @pytest.fixture(autouse=True)
    def _up(self, alias: str) -> None:
        eventually(lambda: answers(alias), f"{alias} does not answer")

    def test_it_names_what_an_operator_looks_for(self, alias: str) -> None:
        found, masters = info(alias), len(environment.REDIS.masters)
        roles = {REDIS: "master" if masters == 1 else f"{masters} masters", MONGO: "primary of secantus"}
        assert found.version
        assert found.role == roles[alias]
        assert found.clients is not None and found.clients > 0

    def test_an_outage_is_not_an_answer(self, alias: str) -> None:
        SERVERS[alias].kill()
        try:
            with pytest.raises(StoreUnavailable) as raised:
                info(alias)
        finally:
            SERVERS[alias].start()
        assert raised.value.store == alias


class TestRedis:
    def test_memory_is_reported_with_and_without_that_of_an_empty_server(self) -> None:
        found = info(REDIS)
        assert found.memory_bytes and found.data_bytes
        assert 0 < found.data_bytes < found.memory_bytes
        assert (found.max_memory_bytes, found.policy, found.persistence) == (0, "noeviction", "AOF ok, RDB ok")

    def test_what_an_acl_forbids_is_none(self) -> None:
        with refused("info"):
            found = info(REDIS)
        assert replace(found, role=None) == StoreInfo()  # how many masters a cluster has its map says

    @pytest.fixture
    def replicas(self, tmp_path: Path) -> Iterator[int]:
        """How many there are, started where the Redis has none."""
        if not isinstance(environment.REDIS, RedisServer):
            yield len(environment.REDIS.replicas)
            return
        replica = RedisServer(tmp_path, "--replicaof", "127.0.0.1", str(environment.REDIS.port))
        try:
            replica.start()
            yield 1
        finally:
            replica.kill()

    def test_replicas_are_counted_and_how_far_they_are_behind(self, replicas: int) -> None:
        eventually(lambda: info(REDIS).lag, "no replica connects")
        found = info(REDIS)
        assert found.replicas == replicas
        assert found.lag and found.lag.endswith(" bytes")

    @pytest.mark.parametrize(
        ("fields", "lag"),
        [
            ({"role": "master"}, None),
            ({"role": "slave", "master_link_status": "down"}, "the link to its primary is down"),
            (
                {"role": "slave", "master_link_status": "up", "master_last_io_seconds_ago": 3},
                "3 s since its primary was heard",
            ),
            ({"master_repl_offset": 9, "slave0": {"offset": 7}, "slave1": {"offset": 4}}, "5 bytes"),
        ],
    )
    def test_replication_is_reported_in_words(self, fields: dict[str, object], lag: str | None) -> None:
        assert redis_info._lag(fields) == lag


class TestMongo:
    @pytest.mark.parametrize(
        ("hello", "role"),
        [
            ({"isWritablePrimary": True}, "primary"),
            ({"secondary": True, "setName": "rs0"}, "secondary of rs0"),
            ({}, "other"),
        ],
    )
    def test_the_role_is_reported_with_the_replica_set(self, hello: dict[str, object], role: str) -> None:
        assert mongo_info._role(hello) == role
