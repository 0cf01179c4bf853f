"""Faults in which a store comes back with other data than it had: none, or those of an earlier moment."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.injections import Fault, Run
from tests.faults.stack import Stack
from tests.servers import RedisServer, eventually

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


@contextmanager
def promoted_without_turns(run: Run) -> Iterator[None]:
    """A master's replicas stop following it; later it is killed, and one of them promoted, without the turns since."""
    redis = run.stack.redis
    before = redis.owner(f"conv:{run.load.sessions[0]}")
    replicas = redis.replicas_of(before)
    for replica in replicas:
        with replica.client() as client:
            client.config_set("masterauth", "refused")
            client.client_kill_filter(_type="master")
    _wait_for_answers(run)
    before.kill()
    yield
    redis.promoted(before)
    for replica in replicas:
        with replica.client() as client:
            client.config_set("masterauth", "")
    before.start()
    run.stack.wait_until_whole("redis")


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
    for node in stack.nodes(alias):
        own = copy / str(node.port)
        if isinstance(node, RedisServer):
            own.mkdir(parents=True)
            with node.client() as client:
                client.save()
            shutil.copy(node.directory / "dump.rdb", own)
        else:
            node.freeze()  # so that no file changes meanwhile
            shutil.copytree(node.directory / "db", own / "db")
            node.thaw()
    return copy


def put_back(stack: Stack, alias: str, copy: Path) -> None:
    for node in stack.nodes(alias):
        shutil.copytree(copy / str(node.port), node.directory, dirs_exist_ok=True)


def stop_without_data(stack: Stack, alias: str) -> None:
    """Kill the store and remove its files, but those in which servers of Redis note what they are to each other."""
    for node in stack.nodes(alias):
        node.kill()
        (node.directory / "dump.rdb").unlink(missing_ok=True)
        for name in ("appendonlydir", "db"):
            shutil.rmtree(node.directory / name, ignore_errors=True)


def start_with_what_is_there(stack: Stack, alias: str) -> None:
    """Start the store again; Redis reads no snapshot where it is to have an append-only file, and begins that later."""
    for node in stack.nodes(alias):
        if isinstance(node, RedisServer):
            _start_with_a_snapshot(node)
        else:
            node.start()
    stack.wait_until_whole(alias)


def _start_with_a_snapshot(node: RedisServer) -> None:
    options = node.options
    node.options = (*options, "--appendonly", "no")
    node.start()
    node.options = options
    with node.client() as client:
        client.config_set("appendonly", "yes")
