"""What the page asks of embedded stores: to stop, to freeze and to start again, with their data."""

import logging
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from redis import Redis

import embedded
from embedded import requests
from embedded.stores import Stores
from tests.commands.test_serve import knows, redis_at
from tests.servers import eventually, free_port

# Python 3.12 and later: pytest's threads beside the fork that starts a store.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Stores]:
    """An embedded Redis that has one conversation."""
    (tmp_path / "redis.port").write_text(str(free_port()))
    with embedded.start(tmp_path, redis=True, mongo=False) as stores:
        with redis_at(tmp_path) as client:
            client.set("conv:kept", "here")
        yield stores


def process_of(stores: Stores) -> psutil.Process:
    with Redis.from_url(stores.urls["redis"]) as client:
        return psutil.Process(client.info("server")["process_id"])


def is_gone(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.status() == psutil.STATUS_ZOMBIE
    return True


def test_a_stopped_store_stays_so_until_it_is_started(redis: Stores, tmp_path: Path) -> None:
    process = process_of(redis)
    embedded.request(tmp_path, "redis", "stop")
    eventually(lambda: is_gone(process), "it is not stopped")
    assert knows(tmp_path, "conv:kept") is None
    embedded.request(tmp_path, "redis", "start")
    eventually(lambda: knows(tmp_path, "conv:kept") == "here", "it is not started")


def test_a_start_right_after_a_stop_is_not_lost(redis: Stores, tmp_path: Path) -> None:
    process = process_of(redis)
    embedded.request(tmp_path, "redis", "stop")
    embedded.request(tmp_path, "redis", "start")
    eventually(lambda: is_gone(process), "it is not stopped")
    eventually(lambda: knows(tmp_path, "conv:kept") == "here", "it is not started")


def test_a_frozen_store_goes_on_where_it_was(redis: Stores, tmp_path: Path) -> None:
    process = process_of(redis)
    embedded.request(tmp_path, "redis", "freeze")
    eventually(lambda: process.status() == psutil.STATUS_STOPPED, "it is not frozen")
    embedded.request(tmp_path, "redis", "start")
    eventually(lambda: process.status() != psutil.STATUS_STOPPED, "it is not thawed")
    assert process_of(redis).pid == process.pid
    assert knows(tmp_path, "conv:kept") == "here"


def test_a_frozen_store_can_be_stopped(redis: Stores, tmp_path: Path) -> None:
    process = process_of(redis)
    embedded.request(tmp_path, "redis", "freeze")
    eventually(lambda: process.status() == psutil.STATUS_STOPPED, "it is not frozen")
    embedded.request(tmp_path, "redis", "stop")
    eventually(lambda: is_gone(process), "it is not stopped")


def test_each_request_is_logged(redis: Stores, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        embedded.request(tmp_path, "redis", "start")
        eventually(lambda: "embedded_store_request" in caplog.text, "it is not logged")
    (record,) = caplog.records
    assert (record.__dict__["store"], record.__dict__["request"]) == ("redis", "start")


def test_without_a_server_a_request_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(embedded.EmbeddedError, match="no `manage.py serve` takes requests"):
        embedded.request(tmp_path, "redis", "stop")
    with embedded.start(tmp_path, redis=False, mongo=False):
        embedded.request(tmp_path, "redis", "stop")  # it has none: nothing happens
    with pytest.raises(embedded.EmbeddedError):
        embedded.request(tmp_path, "redis", "stop")


def test_a_folder_without_fifos_still_has_its_stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some file systems, such as one shared with a virtual machine, cannot have a FIFO."""

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(requests.os, "mkfifo", refuse)
    with embedded.start(tmp_path, redis=False, mongo=False), pytest.raises(embedded.EmbeddedError):
        embedded.request(tmp_path, "redis", "stop")
