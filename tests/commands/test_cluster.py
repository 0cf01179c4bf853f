"""Each command once on a Redis Cluster, from end to end."""

from pathlib import Path
from zipfile import ZipFile

import pytest
from pytest_django import Settings

from conversations.policy import Routing
from conversations.runtime import switching
from conversations.stores import MONGO, REDIS, store
from conversations.stores.redis.bulk import RedisBulk
from conversations.stores.redis.keys import slot_of
from conversations.stores.redis.turns import CacheStore
from conversations.stores.sessions import make_key
from ops.consistency import compare
from tests import environment
from tests.clusters import MASTERS, ClusterOfServers
from tests.commands.working import hold, run, run_json, turns_in
from tests.configured import DEPLOYED
from tests.configured import run as run_process
from tests.servers import RedisServer, eventually, use_redis

pytestmark = pytest.mark.usefixtures("both_empty")


@pytest.fixture
def redis_server(redis_cluster: ClusterOfServers, settings: Settings) -> ClusterOfServers:
    """The cluster, in the place of the one server."""
    use_redis(settings, redis_cluster.url)
    return redis_cluster


@pytest.fixture
def sessions(both_empty: None, redis_cluster: ClusterOfServers) -> list[str]:
    """Conversations in both stores, on every master."""
    found = [hold(REDIS, MONGO) for _ in range(30)]
    assert {redis_cluster.owner_of(slot_of(make_key(session))) for session in found} == set(redis_cluster.masters)
    return found


def test_backup_verify_and_restore(sessions: list[str], redis_cluster: ClusterOfServers, tmp_path: Path) -> None:
    code, report = run_json("backup", "--to", str(tmp_path))
    assert code == 0
    assert report["snapshot"] == f"{MASTERS} masters, each at a moment of its own: copied from the disk of the server"
    with ZipFile(report["file"]) as archive:
        assert {"dump.rdb", "dump-2.rdb", "dump-3.rdb"} <= set(archive.namelist())
    code, verified = run_json("backup", "verify", report["file"])
    assert code == 0, verified
    assert verified["snapshot_keys"] > len(sessions)  # those of all masters
    before = {session: turns_in(REDIS, session) for session in sessions}
    with redis_cluster.client() as client:
        client.flushdb()
    assert turns_in(REDIS, sessions[0]) == ()
    code, output = run("restore", report["file"], "--into", "redis")
    assert code == 0, output
    assert {session: turns_in(REDIS, session) for session in sessions} == before


def test_status(sessions: list[str], redis_cluster: ClusterOfServers) -> None:
    _, report = run_json("status")
    found = report["stores"][REDIS]
    assert found["up"]
    assert found["conversations"] == len(sessions)
    assert (found["says"]["role"], found["says"]["replicas"]) == (f"{MASTERS} masters", MASTERS)
    assert found["says"]["lag"].endswith(" bytes")
    _, output = run("status")
    assert f"{MASTERS} masters" in output


def test_status_of_a_cluster_without_some_slots(sessions: list[str], redis_cluster: ClusterOfServers) -> None:
    with redis_cluster.masters[2].client() as client:
        client.execute_command("CLUSTER DELSLOTS", 16383)
    try:
        eventually(lambda: not run_json("status")[1]["stores"][REDIS]["up"], "it counts as up")
        assert run_json("status")[1]["stores"][REDIS]["says"]["role"] == f"{MASTERS} masters, 1 slots have none"
    finally:
        with redis_cluster.masters[2].client() as client:
            client.execute_command("CLUSTER ADDSLOTS", 16383)
        eventually(redis_cluster.is_whole, "the cluster is not whole")


def test_reconcile(sessions: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "SECOND_LOOK_SECONDS", 0.0)
    switching.record(Routing(REDIS, True), "a test")
    lost = [hold(REDIS), hold(MONGO)]
    code, _ = run("reconcile", "--apply")
    assert all(turns_in(REDIS, session) == turns_in(MONGO, session) != () for session in lost)
    code, output = run("reconcile")
    assert code == 0, output
    assert f"{len(sessions) + 2} conversations compared" in output


def test_trim(sessions: list[str], redis_cluster: ClusterOfServers) -> None:
    code, output = run("trim", "--max-turns", "2", "--apply")
    assert code == 0, output
    assert {len(turns_in(REDIS, session)) for session in sessions} == {2}
    for one in redis_cluster.masters:
        with one.client() as client:
            client.config_set("maxmemory", "100mb")
    try:
        code, output = run("trim", "--to-memory", "1%", "--apply")
        assert code in (0, 1), output
        assert not any(turns_in(REDIS, session) for session in sessions)
        assert all(turns_in(MONGO, session) for session in sessions)
    finally:
        for one in redis_cluster.masters:
            with one.client() as client:
                client.config_set("maxmemory", 0)


def test_failover_and_failback(sessions: list[str]) -> None:
    late = hold(REDIS)
    code, report = run_json("failover", "--to", "mongo")
    assert (code, report["differences"], report["copied"]) == (0, 0, 1)
    assert switching.current() == Routing(MONGO, False)
    assert turns_in(MONGO, late) == turns_in(REDIS, late) != ()
    code, report = run_json("failback")
    assert (code, report["differences"]) == (0, 0)
    assert switching.current() == Routing(REDIS, False)


def test_conversation_and_list(sessions: list[str]) -> None:
    code, report = run_json("conversation", "show", sessions[0])
    assert code == 0, report
    one = store(REDIS)
    for _ in RedisBulk(CacheStore(REDIS, one.limits)).list_all():
        pass
    listed = [place.session for place in one.newest(None, limit=100).places]
    assert set(sessions) == set(listed)
    code, output = run("conversation", "delete", sessions[0], "--noinput")
    assert code == 0, output
    assert turns_in(REDIS, sessions[0]) == turns_in(MONGO, sessions[0]) == ()


@pytest.mark.parametrize("kind", ["node", "server"])
def test_another_kind_of_server_stops_the_start(redis_cluster: ClusterOfServers, tmp_path: Path, kind: str) -> None:
    node: RedisServer = redis_cluster.masters[0]
    urls = {"node": node.url, "server": f"redis+cluster://127.0.0.1:{environment.REDIS.port}"}
    names = {"node": "use redis+cluster://", "server": "use redis://"}
    done = run_process("manage.py", "serve", **DEPLOYED | {"REDIS_URL": urls[kind], "VAR_DIR": str(tmp_path)})
    assert done.returncode == 2
    assert names[kind] in done.stderr
    assert done.stderr.count("\n") == 1
