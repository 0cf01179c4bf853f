"""What commands do on a Redis Cluster alone. What they do anywhere they do there too: script/test-kinds."""

from pathlib import Path
from zipfile import ZipFile

import pytest
from pytest_django import Settings

from conversations.stores import MONGO, REDIS
from conversations.stores.redis.keys import slot_of
from conversations.stores.sessions import make_key
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


def refusal(url: str, folder: Path) -> str:
    """Return the one line that a start with this address writes."""
    done = run_process("manage.py", "serve", **DEPLOYED | {"REDIS_URL": url, "VAR_DIR": str(folder)})
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    return done.stderr


def test_a_node_that_is_named_as_a_server_stops_the_start(redis_cluster: ClusterOfServers, tmp_path: Path) -> None:
    assert "use redis+cluster://" in refusal(redis_cluster.masters[0].url, tmp_path)


def test_a_server_that_is_named_as_a_node_stops_the_start(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "redis")
    try:
        server.start()
        assert "use redis://" in refusal(f"redis+cluster://127.0.0.1:{server.port}", tmp_path)
    finally:
        server.kill()
