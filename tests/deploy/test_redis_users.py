"""Redis' users, in a server started with the deployment's own files: what each can do, and what it cannot."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from pytest_django import Settings
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError
from redis.retry import Retry

from conversations.background import sampling
from conversations.stores.redis.turns import CacheStore
from tests import environment
from tests.api.talking import sample
from tests.builders import a_session, a_turn, some_turns
from tests.contract import test_bulk, test_control, test_stores
from tests.deploy.deployed_redis import DeployedRedis
from tests.deploy.files import BASE, DEPLOY, containers, manifest
from tests.servers import MongoServer, eventually, redis_binary, use_redis


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DeployedRedis]:
    server = DeployedRedis(tmp_path_factory.mktemp("deployed") / "redis")
    try:
        yield server.start()  # type: ignore[misc]
    finally:
        server.kill()


def until_saved(server: DeployedRedis) -> None:
    """Wait for the snapshot that another test has asked for: Redis takes one at a time."""
    with server.client() as client:
        eventually(lambda: not client.info("persistence")["rdb_bgsave_in_progress"], "the snapshot is not done")


class AsTheServicesUser:
    """The service is logged in as its own user."""

    @pytest.fixture(autouse=True)
    def _logged_in(self, deployed: DeployedRedis, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(environment, "REDIS", deployed)
        use_redis(settings, deployed.url_of("onesource"))


class TestTheServicesControl(AsTheServicesUser, test_control.TestRedisControl):
    """Every promise of what processes agree on, kept for that user."""


class TestTheServicesUser(AsTheServicesUser, test_stores.TestCacheStore):
    """Every promise of CacheStore, kept for that user."""

    def test_it_is_really_that_user(self, store: CacheStore, deployed: DeployedRedis) -> None:
        store.ping()
        with deployed.client() as client:
            assert "onesource" in {each["user"] for each in client.client_list()}


class TestTheServicesUserInBulk(AsTheServicesUser, test_bulk.TestRedisBulk):
    """Every promise of RedisBulk, kept by a command that is logged in as the service's user."""


@pytest.mark.parametrize("secret", ["onesource", "onesource-jobs"])
def test_each_of_our_urls_can_keep_a_turn(secret: str, deployed: DeployedRedis, settings: Settings) -> None:
    use_redis(settings, deployed.url_of(secret))
    store, session = CacheStore("redis", test_stores.LIMITS), a_session()
    assert store.append(session, a_turn(), flag=True).stored
    for turn in some_turns(30):
        seen = store.load(session)
        assert seen
        assert store.append_after(session, seen, turn, flag=True).stored


def test_the_service_can_tell_how_full_redis_is(deployed: DeployedRedis, settings: Settings) -> None:
    use_redis(settings, deployed.url_of("onesource"))
    sampling.sample()
    assert sample("redis_memory_max_bytes") == 1024**3
    assert sample("redis_memory_used_bytes") > 0


class TestTheJobsUser:
    """The CronJobs' own commands, as their user; a refusal of Redis would be trouble, and a CommandError."""

    @pytest.fixture(autouse=True)
    def _logged_in(self, deployed: DeployedRedis, settings: Settings, mongo_server: MongoServer) -> None:
        use_redis(settings, deployed.url_of("onesource-jobs"))
        # The corrupt values that other tests leave in either store would be trouble, rightly.
        with deployed.client() as client, mongo_server.client() as mongo:
            client.flushall()
            mongo.get_default_database()["conversations_conversation"].delete_many({})

    def run(self, name: str, **places: str) -> dict[str, Any]:
        """Run the command of the CronJob as it is written, with another place for its folder."""
        (container,) = containers(manifest("CronJob", f"onesource-{name}"))
        words = [places.get(word, word) for word in container["command"][2:]]
        output = StringIO()
        call_command(*words, "--json", stdout=output)
        answer: dict[str, Any] = json.loads(output.getvalue())
        return answer

    def test_it_can_back_up(self, deployed: DeployedRedis, tmp_path: Path) -> None:
        with deployed.client() as client:  # corrupt ones that another test has left would be reported
            for key in [*client.scan_iter("conv:*"), *client.scan_iter("tomb:*")]:
                client.delete(key)
        CacheStore("redis", test_stores.LIMITS).append(a_session(), a_turn())
        until_saved(deployed)
        output = json.dumps(self.run("backup", **{"/backups": str(tmp_path)}))
        assert "fetched by redis-cli" in output, output
        assert [file.suffix for file in tmp_path.iterdir() if not file.name.startswith(".")]

    def test_it_can_trim(self) -> None:
        with_no_end = a_session()
        CacheStore("redis", test_stores.LIMITS).append(with_no_end, a_turn())
        assert self.run("trim")
        assert CacheStore("redis", test_stores.LIMITS).load(with_no_end)


DANGEROUS = (
    "FLUSHALL", "FLUSHDB", "CONFIG SET maxmemory 1", "DEBUG SLEEP 0", "SHUTDOWN NOSAVE", "REPLICAOF NO ONE",
    "ACL SETUSER default nopass", "ACL LIST", "MODULE LIST", "CLIENT KILL TYPE normal", "CLIENT PAUSE 1", "SWAPDB 0 1",
    "SCRIPT FLUSH", "MONITOR", "SAVE", "FAILOVER", "MIGRATE 127.0.0.1 1 conv:x 0 1", "PUBLISH here x", "SET other 1",
)  # fmt: skip


@pytest.mark.parametrize("user", ["onesource", "jobs", "default"])
@pytest.mark.parametrize("command", DANGEROUS)
def test_what_is_dangerous_is_refused_to_all(user: str, command: str, deployed: DeployedRedis) -> None:
    # Redis 7 refuses DEBUG to everybody, before it looks who asks.
    with deployed.user(user) as client, pytest.raises(ResponseError, match="no permissions|DEBUG command not allowed"):
        client.execute_command(*command.split())


@pytest.mark.parametrize("user", ["onesource", "jobs"])
@pytest.mark.parametrize(
    "command",
    ["KEYS conv:*", "CONFIG GET *", "EVAL return(0) 0", "RANDOMKEY", "GET other", "SORT conv:x", "SLOWLOG GET"],
)
def test_what_holds_up_or_looks_beyond_our_keys_is_refused_to_programs(
    user: str, command: str, deployed: DeployedRedis
) -> None:
    with deployed.user(user) as client, pytest.raises(NoPermissionError):
        client.execute_command(*command.split())


def test_only_the_jobs_may_fetch_a_snapshot_as_a_replica_does(deployed: DeployedRedis) -> None:
    with deployed.user("onesource") as client, pytest.raises(NoPermissionError):
        client.execute_command("REPLCONF", "listening-port", "1")
    with deployed.user("jobs") as client:
        assert client.execute_command("REPLCONF", "listening-port", "1")


@pytest.mark.parametrize("user", ["onesource", "jobs", "default"])
def test_all_may_take_a_snapshot(user: str, deployed: DeployedRedis) -> None:
    with deployed.user(user) as client:
        assert client.lastsave()
        try:
            assert client.bgsave(schedule=True)
        except NoPermissionError:
            raise
        except RedisError as error:
            assert "in progress" in str(error)


def test_nobody_comes_in_without_a_password(deployed: DeployedRedis) -> None:
    with (
        Redis(port=deployed.port, protocol=2, retry=Retry(NoBackoff(), 0)) as client,
        pytest.raises(AuthenticationError),
    ):
        client.ping()
    for name in ("default", "onesource", "jobs"):
        with deployed.client_of(name, "guessed") as client, pytest.raises(AuthenticationError):
            client.ping()


def test_what_it_writes_down_is_no_password_and_nobody_elses_to_read(deployed: DeployedRedis) -> None:
    users = deployed.directory / "users.acl"
    assert users.stat().st_mode & 0o077 == 0
    assert not [name for name in ("operator", "onesource", "jobs") if deployed.password(name) in users.read_text()]
    assert "{" not in users.read_text()


def test_it_does_not_start_without_a_password(deployed: DeployedRedis, tmp_path: Path) -> None:
    shutil.copytree(deployed.secrets / "redis", tmp_path / "secrets")
    empty = tmp_path / "secrets" / "onesource_password"
    empty.unlink()
    empty.write_text("")
    done = subprocess.run(
        ["sh", str(BASE / "redis" / "start.sh")], capture_output=True, text=True,
        env={"PATH": os.environ["PATH"], "CONFIG": str(BASE / "redis"), "SECRETS": str(tmp_path / "secrets"),
             "USERS": str(tmp_path / "users.acl")},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert str(empty) in done.stderr


class TestTheRunbook:
    """Its commands, sent by the redis-cli that the image wraps, as the operators' user."""

    def cli(self, deployed: DeployedRedis, *arguments: str, given: str = "", **variables: str) -> str:
        binary = shutil.which("redis-cli") or str(Path(redis_binary()).parent / "redis-cli")
        done = subprocess.run(
            ["sh", str(DEPLOY / "redis-cli"), "-h", "127.0.0.1", "-p", str(deployed.port), *arguments],
            env={"PATH": os.environ["PATH"], "REDIS_CLI": binary, **variables}, input=given,
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout

    def test_the_pod_of_the_service_gets_its_pong(self, deployed: DeployedRedis) -> None:
        assert self.cli(deployed, "ping", REDIS_URL=deployed.url_of("onesource")) == "PONG\n"

    def test_every_command_of_it_works_for_the_operators(self, deployed: DeployedRedis) -> None:
        me = {"REDISCLI_AUTH": deployed.password("operator")}
        with deployed.user("onesource") as client:
            client.set("conv:test_session_123", "a value\n")
        assert self.cli(deployed, "ping", **me) == "PONG\n"
        assert "used_memory_human" in self.cli(deployed, "info", "memory", **me)
        assert "role:master" in self.cli(deployed, "info", "replication", **me)
        assert "connected_clients" in self.cli(deployed, "info", "clients", **me)
        assert "conv:test_session_123" in self.cli(deployed, "KEYS", "conv:*", **me)
        assert "a value" in self.cli(deployed, "GET", "conv:test_session_123", **me)
        assert int(self.cli(deployed, "MEMORY", "USAGE", "conv:test_session_123", **me)) > 0
        assert int(self.cli(deployed, "TTL", "conv:test_session_123", **me)) == -1
        assert int(self.cli(deployed, "eval", "return #redis.call('keys', 'conv:*')", "0", **me)) >= 1
        assert "conv:test_session_123" in self.cli(deployed, "--scan", "--pattern", "conv:*", **me)
        assert "a value" in self.cli(deployed, "mget", "conv:test_session_123", **me)
        cleared = "EVAL \"return redis.call('DEL', unpack(redis.call('KEYS', 'conv:*')))\" 0\n"
        assert int(self.cli(deployed, given="INFO memory\n" + cleared, **me).splitlines()[-1]) >= 1
        until_saved(deployed)
        assert "Background saving" in self.cli(deployed, "BGSAVE", **me)
