"""The two stores of the simulation, and what can happen to them and to the links that lead there."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from conversations import deadline
from conversations.datasets import Dataset
from conversations.errors import StoreUnavailable
from conversations.stores.base import NO_TIME, Contents, HistoryStore, Newest, Page, Place, Receipt, Summary
from conversations.stores.bulk import Attempt, BulkStore, Removal, Share
from conversations.stores.bulk_reader import Found
from conversations.stores.control import ControlStore, Flags, Report
from conversations.stores.memory import MemoryStore
from conversations.stores.memory_bulk import MemoryBulk
from conversations.turns import History, Limits, Turn
from conversations.used_keys import Keys
from tests.simulation.scheduler import Scheduler

T = TypeVar("T")
UP, REFUSED, FROZEN = "up", "refused", "frozen"
LATENCY = {"redis": (0.0002, 0.002), "mongo": (0.0005, 0.005)}
EPOCH = 1_800_000_000.0  # Unix time at which every simulation begins
TIMEOUT = {"redis": 0.2, "mongo": 0.6}
SLOW = 0.7  # of a timeout: what a round trip to a slow store takes, which is not so slow that its breaker opens
TRIPS = {"report": {"redis": 1, "mongo": 2}, "beat": {"redis": 1, "mongo": 3}}
"""How many round trips a call takes, where that is more than one."""
_STATE = ("values", "quarantined", "_expiry", "_tombstones", "_flags", "_keys", "_notes", "_leases", "_heartbeats")


class SimulatedStore(MemoryStore):
    """A store whose server has an instance, which changes when it is started again."""

    instance = "1"

    def _usable(self) -> AbstractContextManager[Any]:
        """It is never down, nor are there threads: a lock that costs nothing stands for the check."""
        return self._lock

    def snapshot(self) -> dict[str, Any]:
        return {name: dict(getattr(self, name)) for name in _STATE} | {"_dataset": self._dataset}

    def restore(self, snapshot: dict[str, Any]) -> None:
        for name in _STATE:
            setattr(self, name, dict(snapshot[name]))
        self._dataset = snapshot["_dataset"]


@dataclass
class Lossy:
    """How often a call loses its request, loses its reply, or is applied after its caller has given up."""

    request: float = 0.0
    reply: float = 0.0
    late: float = 0.0


def questions(values: dict[str, Any]) -> set[str]:
    """Return the questions of all turns that a store holds."""
    return {message.content for value in values.values() for message in value[::2]}


class Backend:
    """One store's server."""

    def __init__(self, alias: str, limits: Limits, scheduler: Scheduler) -> None:
        self.alias = alias
        self.scheduler = scheduler
        self.skew = 0.0
        self.condition = UP
        self.lossy = Lossy()
        self.starts = 1
        self.store = SimulatedStore(alias, limits, clock=lambda: EPOCH + scheduler.now + self.skew)
        self.late: list[Callable[[], object]] = []
        self.past: list[tuple[float, dict[str, Any]]] = []
        """Snapshots that it may be rolled back to, oldest first."""
        self.trimmed: set[str] = set()
        """The questions of the turns that a command removed from it, or left a tombstone for."""
        self.every: list[SimulatedStore] = [self.store]
        """The stores of all servers."""

    def remember(self) -> None:
        self.past.append((self.scheduler.now, self.store.snapshot()))

    def start_again(self) -> None:
        """Give the server a new instance, as every start does."""
        self.starts += 1
        self.store.instance = str(self.starts)

    def thaw(self) -> None:
        """Answer again; what reached a frozen server is applied now."""
        self.condition = UP
        late, self.late = self.late, []
        for apply in late:
            apply()


class Link(HistoryStore, ControlStore):
    """The way of one process to one store: every call takes virtual time and can fail."""

    def __init__(self, backend: Backend, cut: set[str], slow: set[str]) -> None:
        super().__init__(backend.alias, backend.store.limits)
        self.backend = backend
        self._cut = cut
        """The aliases that this process' machine cannot reach."""
        self._slow = slow
        """The aliases whose round trips take nearly as long as a call may."""
        least, most = LATENCY[self.alias]
        self._latency = (least, most - least)
        self._connected_to = 0
        self._connections = 0

    @property
    def call_seconds(self) -> float:
        return TIMEOUT[self.alias]

    def call(self, apply: Callable[[], T], *, write: bool = False, trips: int = 1) -> T:
        """Return what the store answers; raise StoreUnavailable where it, or the link, fails."""
        backend, random, pause = self.backend, self.backend.scheduler.random, self.backend.scheduler.pause
        least, spread = self._latency
        if self.alias in self._slow:
            seconds, left = SLOW * TIMEOUT[self.alias] * trips, deadline.left()
            if seconds > left:  # the request that it belongs to has no more time
                self._give_up()
            pause(seconds)
        if write:  # what reads waits once, between its reading and the use of that
            pause(least + spread * random.random())
        if backend.condition == REFUSED:
            raise StoreUnavailable(self.alias, "refused")
        if self.alias in self._cut:
            self._give_up()
        if backend.condition == FROZEN:
            if write and random.random() < 0.5:
                backend.late.append(_quietly(apply))
            self._give_up()
        chance, lossy = random.random(), backend.lossy
        if chance < lossy.request:
            self._give_up()
        if write and chance < lossy.request + lossy.late:
            pause(TIMEOUT[self.alias])
            backend.scheduler.spawn(WORLD, _quietly(apply), random.uniform(0.0, 3.0))
            raise StoreUnavailable(self.alias, "timeout", unknown=True)
        starts = backend.starts
        if starts != self._connected_to:  # a restart has broken the connection that there was
            self._connected_to = starts
            self._connections += 1
        result = apply()
        if random.random() < lossy.reply:
            self._give_up()
        pause(least + spread * random.random())
        if backend.starts != starts or self.alias in self._cut:
            self._give_up()
        return result

    def _give_up(self) -> None:
        self.backend.scheduler.pause(min(TIMEOUT[self.alias], deadline.left()))
        raise StoreUnavailable(self.alias, "timeout", unknown=True)

    @property
    def _store(self) -> SimulatedStore:
        return self.backend.store

    def load(self, session: str) -> History | None:
        return self.call(lambda: self._store.load(session))

    def inspect(self, session: str) -> Contents:
        return self.call(lambda: self._store.inspect(session))

    def _append(self, session: str, turn: Turn | None, missing: Sequence[Turn], flag: bool) -> Receipt:
        return self.call(lambda: self._store._append(session, turn, missing, flag), write=True)

    def keep_keys(self, session: str, keys: Keys) -> None:
        self.call(lambda: self._store.keep_keys(session, keys), write=True)

    def delete(self, session: str, upto: str, *, flag: bool = False) -> bool:
        return self.call(lambda: self._store.delete(session, upto, flag=flag), write=True)

    def ttl(self, session: str) -> int | None:
        return self.call(lambda: self._store.ttl(session))

    def _scan(self, cursor: str, limit: int, tenant: str | None) -> Page:
        return self.call(lambda: self._store._scan(cursor, limit, tenant))

    def _newest(
        self, tenant: str | None, before: Place | None, limit: int, since: str, contains: str, user: str
    ) -> Newest:
        return self.call(lambda: self._store._newest(tenant, before, limit, since, contains, user))

    def count(self, tenant: str | None, since: str = NO_TIME, until: str = "") -> int | None:
        return self.call(lambda: self._store.count(tenant, since, until))

    def summaries(self, sessions: Collection[str], preview: int = 0) -> dict[str, Summary]:
        return self.call(lambda: self._store.summaries(sessions, preview))

    def quarantine(self, session: str) -> bool:
        return self.call(lambda: self._store.quarantine(session), write=True)

    def ping(self) -> None:
        self.call(self._store.ping)

    def flags(self, limit: int) -> Flags:
        return self.call(lambda: self._store.flags(limit))

    def clear_flag(self, session: str, flag: str) -> None:
        self.call(lambda: self._store.clear_flag(session, flag), write=True)

    def note(self, name: str) -> str | None:
        return self.call(lambda: self._store.note(name))

    def write_note(self, name: str, text: str) -> None:
        self.call(lambda: self._store.write_note(name, text), write=True)

    def lease(self, name: str, holder: str, seconds: float) -> bool:
        return self.call(lambda: self._store.lease(name, holder, seconds), write=True)

    def release(self, name: str, holder: str) -> None:
        self.call(lambda: self._store.release(name, holder), write=True)

    def holder(self, name: str) -> str | None:
        return self.call(lambda: self._store.holder(name))

    @property
    def connections(self) -> int:
        return self._connections

    def report(self, notes: Collection[str] = ()) -> Report:
        return self.call(lambda: self._store.report(notes), trips=TRIPS["report"][self.alias])

    def beat(self, process: str, dataset: Dataset) -> int | None:
        return self.call(lambda: self._store.beat(process, dataset), write=True, trips=TRIPS["beat"][self.alias])

    def identify(self, dataset: Dataset, before: Dataset | None) -> bool:
        return self.call(lambda: self._store.identify(dataset, before), write=True)

    def remove_heartbeat(self, process: str) -> None:
        self.call(lambda: self._store.remove_heartbeat(process), write=True)


class SimulatedBulk(BulkStore):
    """What repair needs of a store in bulk: one call for each batch, as the real stores make."""

    def __init__(self, store: HistoryStore, link: Link) -> None:
        super().__init__(store)
        self._link = link

    def contents(self, sessions: Collection[str]) -> dict[str, Found]:
        return self._link.call(lambda: self._memory.contents(sessions))

    def keep_keys(self, keys: Mapping[str, Keys]) -> None:
        self._link.call(lambda: self._memory.keep_keys(keys), write=True)

    def tombstones(self, size: int) -> Iterator[dict[str, str]]:
        yield from self._link.call(lambda: list(self._memory.tombstones(size)))

    def _put(self, shares: Sequence[Share], replace: bool) -> Attempt:
        return self._link.call(lambda: self._memory._put(shares, replace), write=True)

    def flagged(self, size: int) -> Iterator[list[str]]:
        yield from self._link.call(lambda: list(self._memory.flagged(size)))

    def clear_flags(self, values: Mapping[str, str]) -> None:
        self._link.call(lambda: self._memory.clear_flags(values), write=True)

    @property
    def _memory(self) -> MemoryBulk:
        return MemoryBulk(self._link._store)

    def last_ids(self, sessions: Collection[str]) -> dict[str, str]:
        return self._link.call(lambda: self._memory.last_ids(sessions))

    def remove(self, last_ids: Mapping[str, str], *, tombstones: bool) -> Removal:
        def apply() -> Removal:
            covered = {session: self._covered(session, last) for session, last in last_ids.items()}
            removal = self._memory.remove(last_ids, tombstones=tombstones)
            self._link.backend.trimmed.update(*(covered[session] for session in covered.keys() - removal.kept))
            return removal

        return self._link.call(apply, write=True)

    def trim(self, ends: Mapping[str, str], *, tombstones: bool) -> None:
        def apply() -> None:
            self._link.backend.trimmed.update(*(self._covered(session, end) for session, end in ends.items()))
            self._memory.trim(ends, tombstones=tombstones)

        self._link.call(apply, write=True)

    def _covered(self, session: str, end: str) -> set[str]:
        """Return the questions up to that id, of both stores: the tombstone here covers what the other one keeps."""
        held = [message for store in self._link.backend.every for message in store.values.get(session, ())[::2]]
        return {message.content for message in held if message.id <= end}

    def expire(self, *, apply: bool) -> int:
        raise NotImplementedError


class _World:
    """The owner of what belongs to no process."""

    def enter(self) -> None:
        pass


WORLD = _World()


def _quietly(apply: Callable[[], object]) -> Callable[[], None]:
    """Return the call without its answer: nobody waits for it."""

    def run() -> None:
        with suppress(StoreUnavailable):
            apply()

    return run
