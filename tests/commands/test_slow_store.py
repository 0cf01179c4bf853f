"""Commands on a store that is slow, in processes of their own with the timeouts of a turn: they wait, and are right."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings

from conversations.stores import ALIASES, MONGO, REDIS
from tests.commands.working import hold, turns_in
from tests.faults.proxy import Mode, Proxy
from tests.servers import MongoServer, RedisServer

pytestmark = [
    pytest.mark.usefixtures("both_empty"),
    pytest.mark.one_server("the proxy is in front of one server; sentinels and nodes name the others by themselves"),
]

AS_DEPLOYED = {"REDIS_SOCKET_TIMEOUT_MS": "200", "REDIS_CONNECT_TIMEOUT_MS": "100", "MONGO_TIMEOUT_MS": "600"}
SLOW = 350  # milliseconds each way: longer than any of these, there and back


class Slow:
    """Both stores, each behind a proxy."""

    def __init__(self, redis: RedisServer, mongo: MongoServer, folder: Path) -> None:
        self.proxies = {REDIS: Proxy(redis.port), MONGO: Proxy(mongo.port)}
        self.folder = folder

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Return what the command did."""
        urls = {
            "REDIS_URL": f"redis://127.0.0.1:{self.proxies[REDIS].port}/0",
            "MONGO_URL": f"mongodb://127.0.0.1:{self.proxies[MONGO].port}/onesource?directConnection=true",
            "VAR_DIR": str(self.folder),
        }
        return subprocess.run(
            [sys.executable, "manage.py", *words], cwd=settings.BASE_DIR, env=os.environ | AS_DEPLOYED | urls,
            capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL,
        )  # fmt: skip


@pytest.fixture
def slow(redis_server: RedisServer, mongo_server: MongoServer, tmp_path: Path) -> Iterator[Slow]:
    both = Slow(redis_server, mongo_server, tmp_path)
    for proxy in both.proxies.values():
        proxy.start()
    yield both
    for proxy in both.proxies.values():
        proxy.stop()


@pytest.mark.parametrize("alias", ALIASES)
def test_a_slow_store_is_not_one_that_is_out(slow: Slow, alias: str) -> None:
    session = hold(*ALIASES)
    slow.proxies[alias].set(Mode.SLOW, SLOW)
    done = slow.command("conversation", "delete", session, "--noinput")
    assert (done.returncode, done.stdout) == (0, "deleted from redis and mongo\n"), done.stderr
    assert turns_in(REDIS, session) == turns_in(MONGO, session) == ()


def test_a_slow_redis_is_reconciled_and_backed_up(slow: Slow, tmp_path: Path) -> None:
    session = hold(REDIS)
    slow.proxies[REDIS].set(Mode.SLOW, SLOW)
    done = slow.command("reconcile", "--apply")
    assert done.returncode == 0, done.stderr
    done = slow.command("backup", "--to", str(tmp_path / "backups"))
    assert done.returncode == 0, done.stderr
    assert "redis: 1 conversations, 3 turns" in done.stdout
    assert len(turns_in(REDIS, session)) == 3


def test_a_frozen_redis_is_out_and_costs_its_time_once(slow: Slow) -> None:
    session = hold(MONGO)
    slow.proxies[REDIS].set(Mode.FREEZE)
    done = slow.command("conversation", "show", session)
    assert done.returncode == 0, done.stderr
    assert "redis out" in " ".join(done.stdout.split())
