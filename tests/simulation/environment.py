"""Puts the real modules into the simulation: virtual time, no threads, no metrics and no log."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from unittest import mock
from uuid import UUID

from conversations import chat, ids, stores
from conversations.breaker import Breaker
from conversations.datasets import Dataset
from conversations.runtime import datasets, pings, switching, watcher
from conversations.stores import measured
from telemetry import logs, metrics
from tests.simulation.backends import SimulatedBulk
from tests.simulation.processes import current
from tests.simulation.scheduler import Scheduler, Task


class Time:
    """Stands for the module `time` in the code that runs."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.monotonic = self.perf_counter = lambda: scheduler.now
        self.sleep = scheduler.pause

    def time(self) -> float:
        return current().time()


class Future:
    """The outcome of what runs in another task of the same process."""

    def __init__(self, scheduler: Scheduler, task: Task) -> None:
        self.task = task
        self._scheduler = scheduler

    def result(self, seconds: float | None = None) -> Any:
        self._scheduler.wait([self.task], seconds)
        if self.task.error:
            raise self.task.error
        return self.task.result


class Executor:
    """Runs what is submitted in tasks of the process that submits it."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def submit(self, work: Callable[..., Any], *arguments: Any) -> Future:
        return Future(self._scheduler, current().spawn(partial(work, *arguments)))

    def wait(self, futures: Iterable[Future], seconds: float | None = None) -> tuple[set[Future], set[Future]]:
        every = set(futures)
        self._scheduler.wait([each.task for each in every], seconds)
        done = {each for each in every if each.task.done}
        return done, every - done


class Nothing:
    """A metric that counts nothing."""

    def __getattr__(self, name: str) -> Any:
        return self

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exception: object) -> None:
        pass


@contextmanager
def simulated(scheduler: Scheduler, answerer: Callable[[], Any]) -> Iterator[None]:
    """Let the service's code run under the scheduler until the end of the block."""
    time, executor, nothing = Time(scheduler), Executor(scheduler), Nothing()
    breaker = partial(Breaker, clock=time.monotonic, jitter=scheduler.random.uniform)
    replaced: list[tuple[Any, str, Any]] = [
        (stores, "_build", lambda alias: current().stores[alias]),
        (stores, "_build_bulk", _bulk),
        (datasets, "_on_this_machine", _noted),
        (datasets, "_note_on_this_machine", lambda known: current().machine.noted.update(known.datasets)),
        (datasets, "uuid4", lambda: UUID(int=scheduler.random.getrandbits(128))),
        (switching, "environment", lambda: current().environment),
        (measured, "Breaker", breaker),
        (watcher, "_executor", executor),
        (pings, "_executor", executor),
        (pings, "wait", executor.wait),
        (chat, "answerer", answerer),
        (chat, "idempotency_lock", partial(_idempotency_lock, scheduler)),
        (ids.secrets, "randbits", scheduler.random.getrandbits),
    ]
    for name, module in list(sys.modules.items()):
        if name.startswith("conversations."):
            replaced += _in_module(module, time, nothing)
    with ExitStack() as stack:
        for owner, name, value in replaced:
            stack.enter_context(mock.patch.object(owner, name, value))
        yield


def _bulk(alias: str) -> SimulatedBulk:
    return SimulatedBulk(current().stores[alias], current().links[alias])


def _noted(alias: str) -> list[Dataset]:
    noted = current().machine.noted
    return [noted[alias]] if alias in noted else []


def _in_module(module: Any, time: Time, nothing: Nothing) -> list[tuple[Any, str, Any]]:
    found: list[tuple[Any, str, Any]] = []
    names = vars(module)
    if getattr(names.get("time"), "__name__", "") == "time":
        found.append((module, "time", time))
    for name, real, stand_in in (
        ("event", logs.event, nothing),
        ("hashed", logs.hashed, lambda session: session),
        ("metrics", metrics, nothing),
        ("limits", stores.limits, lambda: current().stores["redis"].limits),
    ):
        if names.get(name) is real:
            found.append((module, name, stand_in))
    return found


@contextmanager
def _idempotency_lock(scheduler: Scheduler, session: str, key: str | None) -> Iterator[None]:
    """One request of a machine at a time for a session and key, as the lock on its disk sees to."""
    locks, name = current().machine.locks, (session, key or "")
    while key and name in locks:
        scheduler.pause(0.02)
    if key:
        locks.add(name)
    try:
        yield
    finally:
        locks.discard(name)
