"""What processes agree on through a MemoryStore, beside its histories: for tests and tools."""

import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from uuid import uuid4

from conversations.datasets import Dataset
from conversations.errors import StoreUnavailable
from conversations.stores.control import ControlStore, Flags, Report


class MemoryControl(ControlStore):
    """Dicts under a lock; `down` makes it an outage."""

    instance = "memory"

    def __init__(self, alias: str, clock: Callable[[], float]) -> None:
        self.alias = alias
        self.down = False
        self._flags: dict[str, str] = {}
        self._notes: dict[str, str] = {}
        self._leases: dict[str, tuple[str, float]] = {}
        self._dataset: Dataset | None = None
        self._heartbeats: dict[str, float] = {}
        self._clock = clock
        self._lock = threading.Lock()

    def flags(self, limit: int) -> Flags:
        with self._usable():
            sessions = list(self._flags)
            return Flags(frozenset(sessions[:limit]), len(sessions) <= limit, len(sessions))

    def clear_flag(self, session: str, flag: str) -> None:
        with self._usable():
            if self._flags.get(session) == flag:
                del self._flags[session]

    def note(self, name: str) -> str | None:
        with self._usable():
            return self._notes.get(name)

    def write_note(self, name: str, text: str) -> None:
        with self._usable():
            self._notes[name] = text

    def lease(self, name: str, holder: str, seconds: float) -> bool:
        with self._usable():
            current, until = self._leases.get(name, (holder, 0.0))
            if current != holder and until > self._clock():
                return False
            self._leases[name] = (holder, self._clock() + seconds)
            return True

    def release(self, name: str, holder: str) -> None:
        with self._usable():
            if self._leases.get(name, ("", 0.0))[0] == holder:
                del self._leases[name]

    def holder(self, name: str) -> str | None:
        with self._usable():
            holder, until = self._leases.get(name, ("", 0.0))
            return holder if until > self._clock() else None

    def report(self, notes: Collection[str] = ()) -> Report:
        with self._usable():
            now = self._clock()
            return Report(
                self._dataset,
                self.instance,
                now,
                {name: now - at for name, at in self._heartbeats.items()},
                {name: self._notes[name] for name in notes if name in self._notes},
            )

    def beat(self, process: str, dataset: Dataset) -> int | None:
        with self._usable():
            if self._dataset is None or self._dataset.id != dataset.id:
                return None
            self._dataset = replace(self._dataset, epoch=self._dataset.epoch + 1)
            self._heartbeats[process] = self._clock()
            return self._dataset.epoch

    def identify(self, dataset: Dataset, before: Dataset | None) -> bool:
        with self._usable():
            if (self._dataset and self._dataset.id) != (before and before.id):
                return False
            self._dataset = dataset
            return True

    def remove_heartbeat(self, process: str) -> None:
        with self._usable():
            self._heartbeats.pop(process, None)

    def _set_flag(self, session: str) -> None:
        """Give the session a flag of a new value; only inside `_usable`."""
        self._flags[session] = uuid4().hex

    @contextmanager
    def _usable(self) -> Iterator[None]:
        with self._lock:
            if self.down:
                raise StoreUnavailable(self.alias, "down")
            yield
