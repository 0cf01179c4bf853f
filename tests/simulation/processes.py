"""The processes of the simulated service: the real state, watcher and request code, each with a clock of its own."""

import types
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from conversations import clock, expiry
from conversations.background import coverage, scrub, watcher
from conversations.breaker import CLOSED
from conversations.datasets import Dataset
from conversations.history import repair
from conversations.history.pauses import Pauses
from conversations.policy import Routing
from conversations.runtime import datasets, pings
from conversations.runtime import state as state_module
from conversations.runtime.state import ProcessState, StoreState
from conversations.stores import ALIASES
from conversations.stores.measured import MeasuredStore
from tests.simulation.backends import EPOCH, Backend, Link
from tests.simulation.scheduler import Scheduler, Task

SWAPPED: tuple[tuple[types.ModuleType, str], ...] = (
    (state_module, "_state"),
    (pings, "_health"),
    (pings, "_pings"),
    (clock, "_ahead"),
    (clock, "_differences"),
    (clock, "_wall"),
    (expiry, "_latest"),
    (datasets, "PROCESS"),
    (pings, "PROCESS"),
    (watcher, "PROCESS"),
    (coverage, "_sweeping"),
    (watcher, "_flagged"),
    (scrub, "_scrubbing"),
    (watcher, "_STARTED"),
    (repair, "_pauses"),
)
"""What is global in a real process: each simulated one has its own."""
_SWAPPED = [(vars(module), name) for module, name in SWAPPED]


class Machine:
    """A host: a clock, links that can be cut, and what outlives a killed process."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.skew = 0.0
        self.cut: set[str] = set()
        self.slow: set[str] = set()
        """The aliases that every round trip of this machine takes long to reach."""
        self.flags: dict[str, tuple[float, bool]] = {}
        """For each store when a process last set a flag there, and whether there were any."""
        self.datasets: dict[str, str] = {}
        """The identity of each store's dataset, as a process last found it."""
        self.journals: dict[Process, list[str]] = {}
        self.noted: dict[str, Dataset] = {}
        """The datasets that a file on its disk has."""
        self.locks: set[tuple[str, str]] = set()
        """Idempotency locks that are held."""


class SharedFlags:
    """The page of memory that the processes of one machine share."""

    def __init__(self, machine: Machine, scheduler: Scheduler) -> None:
        self._flags = machine.flags
        self._datasets = machine.datasets
        self._scheduler = scheduler

    def record(self, alias: str) -> None:
        self._flags[alias] = (self._scheduler.now, True)

    def recorded(self) -> tuple[object, ...]:
        return (*map(self.recorded_at, ALIASES), *map(self._datasets.get, ALIASES))

    def record_dataset(self, alias: str, identity: str) -> None:
        self._datasets[alias] = identity

    def knows_another(self, alias: str, identity: str) -> bool:
        return self._datasets.get(alias, identity) != identity

    def recorded_at(self, alias: str) -> float:
        return self._flags.get(alias, (-1.0, False))[0]

    def set_had_flags(self, alias: str, had: bool) -> None:
        self._flags[alias] = (self.recorded_at(alias), had)

    def had_flags(self, alias: str) -> bool:
        return self._flags.get(alias, (-1.0, False))[1]


class Journal:
    """The in-flight journal of one process; its machine keeps it when the process is killed."""

    def __init__(self, process: "Process") -> None:
        self._machine = process.machine
        self._own = self._machine.journals[process] = []

    @contextmanager
    def writing(self, session: str) -> Iterator[None]:
        self._own.append(session)
        try:
            yield
        finally:
            self._own.remove(session)

    def recover(self, flag: Callable[[str], None]) -> int:
        found = 0
        for process, sessions in list(self._machine.journals.items()):
            if not process.alive:
                for session in sessions:
                    flag(session)
                    found += 1
                self._machine.journals.pop(process, None)
        return found

    def close(self) -> None:
        pass


class Deletions:
    """Notes of deletions are for a restore, which is not played."""

    def note(self, uptos: dict[str, str]) -> None:
        pass


class Process:
    """One process of the service; `enter` makes it the one that the code runs in."""

    current: "Process | None" = None

    def __init__(
        self, name: str, machine: Machine, backends: dict[str, Backend], scheduler: Scheduler, routing: Routing
    ) -> None:
        self.name = name
        self.machine = machine
        self.scheduler = scheduler
        self.environment = routing
        self.alive = True
        self.tasks: list[Task] = []
        self.links = {alias: Link(backends[alias], machine.cut, machine.slow) for alias in ALIASES}
        self.stores = {alias: MeasuredStore(link, control=link) for alias, link in self.links.items()}
        state = ProcessState(
            {alias: StoreState(*self.stores[alias].renew_breakers()) for alias in ALIASES},
            SharedFlags(machine, scheduler),  # type: ignore[arg-type]
            Journal(self),  # type: ignore[arg-type]
            Deletions(),  # type: ignore[arg-type]
            routing,
        )
        recent: dict[str, deque[float]] = {alias: deque(maxlen=5) for alias in ALIASES}
        self._globals: list[Any] = [
            state, {}, recent, None, {}, 0.0, 0.0, name, name, name, None, repair.Flagged(), None,
            scheduler.now, Pauses(),
        ]  # fmt: skip

    def start(self) -> None:
        """Start the threads that every process has."""
        self.spawn(self._watch)
        self.spawn(self._follow)
        self.spawn(self._repair, 0.5)

    def spawn(self, work: Callable[[], Any], delay: float = 0.0) -> Task:
        task = self.scheduler.spawn(self, work, delay)
        self.tasks = [each for each in self.tasks if not each.done]
        self.tasks.append(task)
        return task

    def kill(self) -> None:
        """End it as kill -9 does: nothing of it runs any more."""
        self.alive = False
        for task in self.tasks:
            self.scheduler.cancel(task)

    def time(self) -> float:
        """Return Unix time by this machine's clock."""
        return EPOCH + self.scheduler.now + self.machine.skew

    def enter(self) -> None:
        """Give the modules this process' globals, unless it was the last process that ran."""
        before = Process.current
        if before is self:
            return
        Process.current = self
        if before:
            before._globals = [names[name] for names, name in _SWAPPED]
        for (names, name), value in zip(_SWAPPED, self._globals, strict=True):
            names[name] = value

    @property
    def state(self) -> ProcessState:
        return self._globals[0]  # type: ignore[no-any-return]

    @property
    def is_at_rest(self) -> bool:
        """Return whether it uses both stores and knows all that should be there to be there."""
        closed = all(one.reads.state == one.writes.state == CLOSED for one in self.state.stores.values())
        return self.alive and closed and not coverage.missing(self.state)

    def _watch(self) -> None:
        self._forever(watcher._tick, watcher.EVERY)

    def _follow(self) -> None:
        self._forever(watcher._follow, watcher.EVERY)

    def _repair(self) -> None:
        self._forever(watcher._repair, watcher.EVERY)

    def _forever(self, step: Callable[[], Any], every: float) -> None:
        rest = 0.0
        while True:
            self.scheduler.pause(rest)
            rest = every
            try:
                if step():
                    rest = watcher.PAUSE
            except watcher.StoreUnavailable:
                pass
            except Exception as error:
                self.scheduler.broken = error
                raise


def current() -> Process:
    """Return the process that the code runs in."""
    assert Process.current
    return Process.current
