"""Faults in which a store comes back with other data than it had: none, or those of an earlier moment."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.injections import Fault, Run
from tests.faults.stack import Stack
from tests.servers import eventually

REPAIR_SECONDS = 20.0
STEADY_SECONDS = 2.0
_ANSWERS_EACH = 5  # of each client, which the older data are missing


def wiped(alias: str) -> Fault:
    """The store is killed and comes back empty."""

    @contextmanager
    def fault(run: Run) -> Iterator[None]:
        stop_without_data(run.stack, alias)
        yield
        start_with_what_is_there(run.stack, alias)

    return fault


def rolled_back(alias: str, *, at_once: bool) -> Fault:
    """The store is killed and comes back with an older copy of its data; `at_once`, before the row goes on."""

    @contextmanager
    def fault(run: Run) -> Iterator[None]:
        copy = copied(run.stack, alias)
        _make_the_copy_old(run)
        stop_without_data(run.stack, alias)
        put_back(run.stack, alias, copy)
        if at_once:
            start_with_what_is_there(run.stack, alias)
        yield
        if not at_once:
            start_with_what_is_there(run.stack, alias)

    return fault


def in_turn(first: Fault, second: Fault) -> Fault:
    """A fault, its repair, and then another."""

    @contextmanager
    def fault(run: Run) -> Iterator[None]:
        with first(run):
            _wait_for_answers(run)
        _wait_until_repaired(run)
        with second(run):
            yield

    return fault


def _make_the_copy_old(run: Run) -> None:
    """Have the clients ask more, and the last two delete their conversations, which the copy has."""
    for client in run.load.clients[-2:]:
        client.delete_next.set()
    _wait_for_answers(run)
    eventually(lambda: not any(client.delete_next.is_set() for client in run.load.clients), "nothing was deleted")


def _wait_until_repaired(run: Run) -> None:
    """Return when every server has reported so for two seconds: each process reads unsynced flags once a second."""
    since = time.monotonic()

    def is_steady() -> bool:
        nonlocal since
        if not run.stack.is_repaired(run.route):
            since = time.monotonic()
        return time.monotonic() > since + STEADY_SECONDS

    eventually(is_steady, "the first fault is not repaired", REPAIR_SECONDS)


def _wait_for_answers(run: Run) -> None:
    before = run.load.acknowledged
    wanted = _ANSWERS_EACH * len(run.load.clients)
    eventually(lambda: run.load.acknowledged >= before + wanted, "the clients are not answered")


# --- Files of the stores ---------------------------------------------------------------------------------


def copied(stack: Stack, alias: str) -> Path:
    """Return a copy of what the store has on disk, made while it runs."""
    copy = stack.home / f"{alias} as it was"
    shutil.rmtree(copy, ignore_errors=True)
    if alias == "redis":
        copy.mkdir()
        with stack.redis.client() as client:
            client.save()
        shutil.copy(stack.redis.directory / "dump.rdb", copy)
    else:
        stack.mongo.freeze()  # so that no file changes meanwhile
        shutil.copytree(stack.mongo.directory / "db", copy / "db")
        stack.mongo.thaw()
    return copy


def put_back(stack: Stack, alias: str, copy: Path) -> None:
    shutil.copytree(copy, stack.server(alias).directory, dirs_exist_ok=True)


def stop_without_data(stack: Stack, alias: str) -> None:
    """Kill the store and remove its files."""
    directory = stack.server(alias).directory
    stack.server(alias).kill()
    (directory / "dump.rdb").unlink(missing_ok=True)
    for name in ("appendonlydir", "db"):
        shutil.rmtree(directory / name, ignore_errors=True)


def start_with_what_is_there(stack: Stack, alias: str) -> None:
    """Start the store again; Redis reads no snapshot where it is to have an append-only file, and begins that later."""
    if alias == "mongo":
        stack.mongo.start()
        return
    options = stack.redis.options
    stack.redis.options = (*options, "--appendonly", "no")
    stack.redis.start()
    stack.redis.options = options
    with stack.redis.client() as client:
        client.config_set("appendonly", "yes")
