"""Puts the real modules into the simulation: virtual time, no threads, no metrics and no log."""

import sys
import time as real_time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache, lru_cache, partial
from typing import Any
from uuid import UUID

from conversations import chat, deadline, ids, stores
from conversations.background import watcher
from conversations.breaker import Breaker
from conversations.datasets import Dataset
from conversations.history import at_once
from conversations.runtime import datasets, pings, switching
from conversations.slots import Slots
from conversations.stores import measured
from telemetry import logs, metrics
from tests.simulation.backends import SimulatedBulk
from tests.simulation.processes import current
from tests.simulation.scheduler import Scheduler, Task


class Nothing:
    """A metric that counts nothing, and a log that nobody reads."""

    def __getattr__(self, name: str) -> Any:
        setattr(self, name, self)  # the next look finds it without a call
        return self

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exception: object) -> None:
        pass


NOTHING = Nothing()


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


def _raise(error: Exception) -> None:
    """What the watcher would log and go on after is a mistake here."""
    raise error


@contextmanager
def simulated(scheduler: Scheduler, answerer: Callable[[], Any]) -> Iterator[None]:
    """Let the service's code run under the scheduler until the end of the block."""
    time, executor = Time(scheduler), Executor(scheduler)
    replaced: list[tuple[Any, str, Any]] = [
        (stores, "_built", {}),
        (stores, "_build", lambda alias: current().stores[alias]),
        (stores, "_build_bulk", _bulk),
        (datasets, "_on_this_machine", _noted),
        (datasets, "_note_on_this_machine", lambda known: current().machine.noted.update(known.datasets)),
        (datasets, "_parsed", _parsed),
        (datasets, "_coverage", _coverage),
        (datasets, "uuid4", lambda: UUID(int=scheduler.random.getrandbits(128))),
        (switching, "environment", lambda: current().environment),
        (measured, "Breaker", partial(Breaker, clock=time.monotonic, jitter=scheduler.random.uniform)),
        (watcher, "_executor", executor),
        (watcher, "_has_failed", _raise),
        (at_once, "_executor", executor),
        (at_once, "wait", executor.wait),
        (pings, "_executor", executor),
        (pings, "wait", executor.wait),
        (chat, "answerer", answerer),
        (deadline, "slots", Slots(10**9)),  # a greenlet that waited for one would stop all others
        (chat, "idempotency_lock", partial(_idempotency_lock, scheduler)),
        (ids.secrets, "randbits", scheduler.random.getrandbits),
        *((module, "time", time) for module in _modules_with_time(len(sys.modules))),
        *_silenced(len(sys.modules)),
    ]
    before = [(vars(module), name, vars(module)[name]) for module, name, _ in replaced]
    try:
        for module, name, value in replaced:
            setattr(module, name, value)
        yield
    finally:
        for names, name, value in before:
            names[name] = value


_parsed = lru_cache(100)(datasets._parsed)  # what is noted seldom changes, and is read each second
_coverage = lru_cache(100)(datasets._coverage)


def _bulk(alias: str) -> SimulatedBulk:
    return SimulatedBulk(current().stores[alias], current().links[alias])


def _noted(alias: str) -> list[Dataset]:
    noted = current().machine.noted
    return [noted[alias]] if alias in noted else []


@cache
def _modules_with_time(loaded: int) -> list[Any]:
    """Return the service's modules that use the module `time`, of so many that are loaded."""
    return [module for module in _modules() if vars(module).get("time") is real_time]


@cache
def _silenced(loaded: int) -> list[tuple[Any, str, Any]]:
    """Return what counts, logs, hashes names or reads settings in the service's modules, with what stands in."""
    stand_ins = (
        ("event", logs.event, NOTHING),
        ("hashed", logs.hashed, lambda session: session),
        ("metrics", metrics, NOTHING),
        ("limits", stores.limits, lambda: current().stores["redis"].limits),
    )
    return [
        (module, name, stand_in)
        for module in _modules()
        for name, real, stand_in in stand_ins
        if vars(module).get(name) is real
    ]


def _modules() -> list[Any]:
    ours = ("conversations.", "ops.trim")
    return [module for name, module in sys.modules.items() if name.startswith(ours)]


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
