"""Redis' memory and the time of the newest backup: sampled from the stores, and kept through outages."""

from collections.abc import Iterator

import pytest

from conversations.background import sampling
from conversations.background.sampling import NOTE, VERIFIED
from conversations.errors import StoreUnavailable
from conversations.stores import ALIASES, MONGO, REDIS, store
from tests.api.talking import Lines, sample
from tests.servers import MongoServer, RedisServer, eventually

OLDER, NEWER = "2026-11-23T03:17:00.123Z", "2026-11-24T03:17:00.123Z"
OLDER_AT, NEWER_AT = 1795403820.123, 1795490220.123


@pytest.fixture(autouse=True)
def _no_backup(redis_server: RedisServer, mongo_server: MongoServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sampling, "_newest", {NOTE: 0.0, VERIFIED: 0.0})
    _forget_backups()
    yield
    _forget_backups()


def _forget_backups() -> None:
    """Remove the record from both stores, once they answer: a driver takes half a second to notice that they are up."""
    for alias in ALIASES:
        eventually(lambda alias=alias: _forgets(alias), f"{alias} does not answer")  # type: ignore[misc]


def _forgets(alias: str) -> bool:
    try:
        for name in (NOTE, VERIFIED):
            store(alias).write_note(name, "")
    except StoreUnavailable:
        return False
    return True


def backup() -> float:
    """Return the value in /metrics after a sample."""
    sampling.sample()
    return sample("onesource_backup_timestamp_seconds")


class TestMemory:
    def test_memory_gauges_are_from_redis_info(self, redis_server: RedisServer) -> None:
        with redis_server.client() as client:
            client.config_set("maxmemory", "512mb")
            try:
                sampling.sample()
            finally:
                client.config_set("maxmemory", "0")
            used = client.info("memory")["used_memory"]
        assert sample("redis_memory_max_bytes") == 512 * 1_048_576
        assert sample("redis_memory_used_bytes") == pytest.approx(used, rel=0.2)

    def test_without_maxmemory_the_maximum_is_0(self) -> None:
        sampling.sample()
        assert sample("redis_memory_max_bytes") == 0
        assert sample("redis_memory_used_bytes") > 0

    def test_an_outage_keeps_the_last_figures(self, redis_server: RedisServer) -> None:
        sampling.sample()
        before = sample("redis_memory_used_bytes")
        redis_server.freeze()
        try:
            sampling.sample()
        finally:
            redis_server.thaw()
        assert sample("redis_memory_used_bytes") == before > 0

    def test_an_acl_that_forbids_info_keeps_the_last_figures(self, redis_server: RedisServer) -> None:
        sampling.sample()
        before = sample("redis_memory_used_bytes")
        with redis_server.client() as client:
            client.execute_command("ACL", "SETUSER", "default", "-info")
            try:
                sampling.sample()
            finally:
                client.execute_command("ACL", "SETUSER", "default", "+@all")
        assert sample("redis_memory_used_bytes") == before > 0


class TestBackup:
    def test_without_a_recorded_backup_it_is_0(self) -> None:
        assert backup() == 0

    @pytest.mark.parametrize("newer", [REDIS, MONGO])
    def test_the_newer_of_two_recorded_backups_is_used(self, newer: str) -> None:
        for alias in ALIASES:
            store(alias).write_note(NOTE, NEWER if alias == newer else OLDER)
        assert backup() == NEWER_AT

    @pytest.mark.parametrize("recorded_in", [REDIS, MONGO])
    def test_a_record_in_one_store_is_enough(self, recorded_in: str) -> None:
        """The other store has lost its data."""
        store(recorded_in).write_note(NOTE, OLDER)
        assert backup() == OLDER_AT

    def test_the_time_is_kept_when_the_store_with_the_record_fails(self, mongo_server: MongoServer) -> None:
        store(REDIS).write_note(NOTE, OLDER)
        store(MONGO).write_note(NOTE, NEWER)
        assert backup() == NEWER_AT
        mongo_server.kill()
        try:
            assert backup() == NEWER_AT
        finally:
            mongo_server.start()

    def test_a_record_that_is_no_time_is_ignored(self) -> None:
        store(REDIS).write_note(NOTE, "yesterday")
        assert backup() == 0

    def test_the_newest_that_was_verified_is_another_figure(self) -> None:
        store(REDIS).write_note(VERIFIED, OLDER)
        assert backup() == 0
        assert sample("onesource_backup_verified_timestamp_seconds") == OLDER_AT

    def test_a_later_sample_sees_another_process_backup(self) -> None:
        backup()
        store(MONGO).write_note(NOTE, OLDER)
        assert backup() == OLDER_AT


def test_with_both_stores_down_nothing_changes_or_raises(request: pytest.FixtureRequest) -> None:
    sampling.sample()
    before = sample("redis_memory_used_bytes")
    for fixture in ("redis_out", "mongo_out"):
        request.getfixturevalue(fixture)
    sampling.sample()
    assert sample("redis_memory_used_bytes") == before > 0


def test_a_policy_that_evicts_flags_is_logged_once(
    redis_server: RedisServer, log: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "_evicts", False)
    with redis_server.client() as client:
        try:
            client.config_set("maxmemory-policy", "allkeys-lru")
            sampling.sample()
            sampling.sample()
            client.config_set("maxmemory-policy", "volatile-lru")
            sampling.sample()
            client.config_set("maxmemory-policy", "allkeys-random")
            sampling.sample()
        finally:
            client.config_set("maxmemory-policy", "noeviction")
    policies = [line["policy"] for line in log.events() if line["event"] == "redis_evicts"]
    assert policies == ["allkeys-lru", "allkeys-random"]
