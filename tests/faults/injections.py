"""How each fault begins and how it ends: a context manager a fault, which changes what a run stands on."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass

from tests.faults import evidence
from tests.faults.clients import Load
from tests.faults.judge import Terms
from tests.faults.proxy import Mode
from tests.faults.stack import Route, Stack
from tests.servers import eventually


@dataclass
class Run:
    """A row under way."""

    stack: Stack
    load: Load
    terms: Terms
    route: Route
    """Where traffic goes now."""


Fault = Callable[[Run], AbstractContextManager[None]]


@contextmanager
def none(run: Run) -> Iterator[None]:
    """Nothing happens: what is wrong was wrong from the start."""
    yield


def wire(alias: str, mode: Mode, milliseconds: int = 0) -> Fault:
    """The way to a store is at fault, not the store."""

    @contextmanager
    def fault(run: Run) -> Iterator[None]:
        run.stack.wire(alias, mode, milliseconds)
        yield
        run.stack.wire(alias, Mode.PASS)

    return fault


def frozen(alias: str) -> Fault:
    """Its processes stand still; what they were sent they do when they go on."""

    @contextmanager
    def fault(run: Run) -> Iterator[None]:
        run.stack.freeze(alias)
        yield
        run.stack.thaw(alias)

    return fault


def killed(alias: str) -> Fault:
    """Its processes are killed, and started again with what they kept."""

    @contextmanager
    def fault(run: Run) -> Iterator[None]:
        for node in run.stack.nodes(alias):
            node.kill()
        yield
        for node in run.stack.nodes(alias):
            node.start()
        run.stack.wait_until_whole(alias)

    return fault


def at_once(*faults: Fault) -> Fault:
    """All of them."""

    @contextmanager
    def fault(run: Run) -> Iterator[None]:
        with ExitStack() as open_faults:
            for one in faults:
                open_faults.enter_context(one(run))
            yield

    return fault


@contextmanager
def not_primary(run: Run) -> Iterator[None]:
    """MongoDB answers that it is no primary."""
    commands = ["find", "update", "insert", "delete", "aggregate", "findAndModify"]
    data = {"failCommands": commands, "errorCode": 10107}
    with run.stack.mongo.client() as client:
        client.admin.command({"configureFailPoint": "failCommand", "mode": "alwaysOn", "data": data})
    yield
    with run.stack.mongo.client() as client:
        client.admin.command({"configureFailPoint": "failCommand", "mode": "off"})


@contextmanager
def cut_off(run: Run) -> Iterator[None]:
    """The first machine reaches Redis alone, the second MongoDB alone."""
    first, second = run.stack.links
    first["mongo"].set(Mode.REFUSE)
    second["redis"].set(Mode.REFUSE)
    yield
    first["mongo"].set(Mode.PASS)
    second["redis"].set(Mode.PASS)


def parted(*links: tuple[str, str]) -> Fault:
    """Links between hosts drop all that is sent over them."""

    @contextmanager
    def fault(run: Run) -> Iterator[None]:
        network = run.stack.network
        assert network
        for link in links:
            network.cut(*link)
        yield
        for link in links:
            network.mend(*link)

    return fault


@contextmanager
def workers_killed(run: Run) -> Iterator[None]:
    """One worker is killed, and then another. A slow MongoDB holds turns between their two writes."""
    run.stack.wire("mongo", Mode.SLOW, 60)
    time.sleep(0.3)
    run.stack.service.kill_worker()
    yield
    run.stack.service.kill_worker()
    run.stack.wire("mongo", Mode.PASS)


@contextmanager
def server_killed(run: Run) -> Iterator[None]:
    """The server is killed with all its workers, and started again."""
    run.stack.service.kill()
    run.stack.service.start()
    yield
    run.stack.service.wait()


@contextmanager
def merge_killed(run: Run) -> Iterator[None]:
    """Redis is away; when it is back and the merge is half way, the server is killed and started again."""
    run.stack.wire("redis", Mode.REFUSE)
    yield
    at_first = evidence.flags(run.stack)
    assert at_first >= 30, f"only {at_first} conversations are to be merged"
    run.stack.wire("mongo", Mode.SLOW, 15)
    run.stack.wire("redis", Mode.PASS)
    eventually(lambda: evidence.flags(run.stack) < at_first - 3, "no merge has begun")
    run.stack.service.kill()
    left = evidence.flags(run.stack)
    assert left, "the merge was over before it could be cut off"
    run.stack.wire("mongo", Mode.PASS)
    run.stack.service.start().wait()


def switched(*, back: bool = False) -> Fault:
    """An operator moves traffic to the other store, and back."""

    @contextmanager
    def fault(run: Run) -> Iterator[None]:
        before = run.route
        _switch(run, Route("mongo" if before.primary == "redis" else "redis", before.dual_write))
        yield
        if back:
            _switch(run, before)

    return fault


def _switch(run: Run, route: Route) -> None:
    run.route = route
    run.terms.switches.append((run.stack.switch(route), route.primary, route.dual_write))
