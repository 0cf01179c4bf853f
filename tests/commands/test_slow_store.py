"""Commands on a store that is slow, in processes of their own with the timeouts of a turn: they wait, and are right."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from django.conf import settings

from conversations.clock import now
from conversations.stores import ALIASES, MONGO, REDIS, bulk
from tests.builders import a_turn
from tests.commands.working import hold, turns_in
from tests.faults.proxy import Mode, Proxy
from tests.servers import MongoServer, RedisServer

pytestmark = [
    pytest.mark.usefixtures("both_empty"),
    pytest.mark.one_server("the proxy is in front of one server; sentinels and nodes name the others by themselves"),
]

AS_DEPLOYED = {"REDIS_SOCKET_TIMEOUT_MS": "200", "REDIS_CONNECT_TIMEOUT_MS": "100", "MONGO_TIMEOUT_MS": "600"}
NAME = "command"  # of the processes that are started here, to MongoDB
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
            "MONGO_URL": f"mongodb://127.0.0.1:{self.proxies[MONGO].port}/onesource?directConnection=true&appName={NAME}",
            "VAR_DIR": str(self.folder),
        }
        return subprocess.run(
            [sys.executable, "manage.py", *words], cwd=settings.BASE_DIR, env=os.environ | AS_DEPLOYED | urls,
            capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL,
        )  # fmt: skip


@contextmanager
def too_late(mongo: MongoServer, command: str, *, skip: int, times: int, of: str | None = NAME) -> Iterator[None]:
    """Have MongoDB answer so many calls, after the first few, that their time is over."""
    mode = {"skip": skip, "times": times}
    data: dict[str, object] = {"failCommands": [command], "errorCode": 50} | ({"appName": of} if of else {})
    with mongo.client() as client:
        client.admin.command({"configureFailPoint": "failCommand", "mode": mode, "data": data})
        try:
            yield
        finally:
            client.admin.command({"configureFailPoint": "failCommand", "mode": "off"})


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


@pytest.mark.parametrize("skip", [0, 1], ids=["a page", "the walk"])
def test_what_mongo_answers_too_late_is_asked_again(slow: Slow, mongo_server: MongoServer, skip: int) -> None:
    """For longer than a second: four answers are too late."""
    hold(*ALIASES, turns=(a_turn(at=now() - timedelta(days=30)),))
    with too_late(mongo_server, "find", skip=skip, times=4):
        done = slow.command("trim", "--older-than", "20d")
    assert done.returncode == 0, done.stderr
    assert "would be removed: 1 in redis, 1 in mongo" in done.stdout


def test_a_removal_that_is_tried_again_is_counted_once(mongo_server: MongoServer) -> None:
    turn = a_turn()
    sessions = {hold(MONGO, turns=(turn,)): turn.answer.id for _ in range(3)}
    with too_late(mongo_server, "update", skip=0, times=1, of=None):
        removal = bulk(MONGO).remove(sessions, tombstones=True)
    assert removal.removed == frozenset(sessions)
    assert [turns_in(MONGO, session) for session in sessions] == [()] * 3


def test_counting_that_mongo_ends_is_only_for_the_progress(slow: Slow, mongo_server: MongoServer) -> None:
    hold(*ALIASES)
    with too_late(mongo_server, "count", skip=0, times=9):
        done = slow.command("reconcile")
    assert done.returncode == 0, done.stderr


def test_a_frozen_redis_is_out_and_costs_its_time_once(slow: Slow) -> None:
    session = hold(MONGO)
    slow.proxies[REDIS].set(Mode.FREEZE)
    done = slow.command("conversation", "show", session)
    assert done.returncode == 0, done.stderr
    assert "redis out" in " ".join(done.stdout.split())
