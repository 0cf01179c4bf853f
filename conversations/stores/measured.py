"""MeasuredStore: a store whose calls are timed, counted, logged and recorded by breakers."""

import logging
from collections.abc import Collection, Sequence
from math import inf

from conversations import deadline
from conversations.breaker import Breaker
from conversations.datasets import Dataset
from conversations.errors import CorruptHistory, StoreUnavailable
from conversations.slots import slots
from conversations.stores.base import NO_TIME, Contents, HistoryStore, Newest, Page, Place, Receipt, Summary
from conversations.stores.control import ControlStore, Flags, PermitRequest, Permits, Report
from conversations.turns import History, Limits, Turn
from conversations.used_keys import Keys
from telemetry import metrics, traces
from telemetry.logs import event, hashed

logger = logging.getLogger(__name__)

_SLOW = 0.75  # of what a call may take: a busy store is not an absent one
_WRITE_PATIENCE = 2  # a write waits for other writers and for a disk


class MeasuredStore(HistoryStore, ControlStore):
    """Wraps a store once. A turn's own operations are measured, and repair's batches by `recorded_batch`; the watcher's
    calls are not, since it records them itself, and each must be recorded once. What a request may call is bounded by
    its deadline."""

    def __init__(self, store: HistoryStore, control: ControlStore) -> None:
        self._store = store
        self._control = control
        super().__init__(store.alias, store.limits)
        self.renew_breakers()

    def renew_breakers(self) -> tuple[Breaker, Breaker]:
        """Begin with breakers that have seen nothing; return those of reads and of writes."""
        slow = _SLOW * self._store.call_seconds
        self.reads, self.writes = Breaker(slow), Breaker(_WRITE_PATIENCE * slow)
        return self.reads, self.writes

    @property
    def limits(self) -> Limits:
        """Those of the store itself, which applies them."""
        return self._store.limits

    @limits.setter
    def limits(self, limits: Limits) -> None:
        self._store.limits = limits

    @property
    def call_seconds(self) -> float:
        return self._store.call_seconds

    def load(self, session: str) -> History | None:
        with self._measured("load", self.reads, session):
            return self._store.load(session)

    def inspect(self, session: str) -> Contents:
        with self._measured("inspect", self.reads, session):
            return self._store.inspect(session)

    def _append(self, session: str, turn: Turn | None, missing: Sequence[Turn], flag: bool) -> Receipt:
        with self._measured("append", self.writes, session):
            return self._store._append(session, turn, missing, flag)

    def append_after(self, session: str, seen: History, turn: Turn, *, flag: bool = False) -> Receipt:
        with self._measured("append", self.writes, session):
            return self._store.append_after(session, seen, turn, flag=flag)

    def keep_keys(self, session: str, keys: Keys) -> None:
        with self._measured("keep_keys", self.writes, session):
            self._store.keep_keys(session, keys)

    def delete(self, session: str, upto: str, *, flag: bool = False) -> bool:
        with self._measured("delete", self.writes, session):
            return self._store.delete(session, upto, flag=flag)

    def quarantine(self, session: str) -> bool:
        with self._measured("set_aside", self.writes, session):
            quarantined = self._store.quarantine(session)
        if quarantined:
            metrics.corrupt.labels(store=self.alias).inc()
        return quarantined

    def clear_flag(self, session: str, flag: str) -> None:
        with self._measured("settle", self.writes, session):
            self._control.clear_flag(session, flag)

    def flags(self, limit: int) -> Flags:
        return self._control.flags(limit)

    def ttl(self, session: str) -> int | None:
        return self._store.ttl(session)

    def _scan(self, cursor: str, limit: int, tenant: str | None) -> Page:
        with deadline.call(self.alias):
            return self._store._scan(cursor, limit, tenant)

    def _newest(
        self, tenant: str | None, before: Place | None, limit: int, since: str, contains: str, user: str
    ) -> Newest:
        with deadline.call(self.alias):
            return self._store._newest(tenant, before, limit, since, contains, user)

    def write_list(self) -> None:
        self._store.write_list()

    def count(self, tenant: str | None, since: str = NO_TIME, until: str = "") -> int | None:
        with deadline.call(self.alias):
            return self._store.count(tenant, since, until)

    def summaries(self, sessions: Collection[str], preview: int = 0) -> dict[str, Summary]:
        with deadline.call(self.alias):
            return self._store.summaries(sessions, preview)

    def note(self, name: str) -> str | None:
        return self._control.note(name)

    def write_note(self, name: str, text: str) -> None:
        self._control.write_note(name, text)

    def lease(self, name: str, holder: str, seconds: float) -> bool:
        return self._control.lease(name, holder, seconds)

    def release(self, name: str, holder: str) -> None:
        self._control.release(name, holder)

    def permits(self, requests: Sequence[PermitRequest], seconds: float = inf) -> list[Permits]:
        with deadline.call(self.alias, seconds):
            return self._control.permits(requests)

    def holder(self, name: str) -> str | None:
        return self._control.holder(name)

    @property
    def connections(self) -> int:
        return self._control.connections

    def report(self, notes: Collection[str] = ()) -> Report:
        with deadline.call(self.alias):
            return self._control.report(notes)

    def beat(self, process: str, dataset: Dataset) -> int | None:
        return self._control.beat(process, dataset)

    def identify(self, dataset: Dataset, before: Dataset | None) -> bool:
        with deadline.call(self.alias):
            return self._control.identify(dataset, before)

    def prepare(self) -> None:
        self._control.prepare()

    def remove_heartbeat(self, process: str) -> None:
        self._control.remove_heartbeat(process)

    def ping(self) -> None:
        with deadline.call(self.alias):
            self._store.ping()

    def recorded_batch(self, operation: str, *, write: bool) -> "Measurement":
        """Record what a BulkStore does with a batch of conversations as one call of that operation. The breaker counts
        it where it fails, however long it takes: a batch may well take longer than a turn's call, and that does not
        show a slow store."""
        return Measurement(self.alias, operation, self.writes if write else self.reads, judge_duration=False)

    def _measured(self, operation: str, breaker: Breaker, session: str) -> "Measurement":
        return Measurement(self.alias, operation, breaker, session)


class Measurement(deadline.call):
    """Bounds a call by the request's deadline, records it in the breaker and the metrics, and logs a fault by the event
    name in the runbook. A corrupt value is no fault of its store: it has answered. Nor is a call for which the request
    has no time."""

    __slots__ = ("_breaker", "_judge_duration", "_operation", "_session")

    def __init__(
        self, alias: str, operation: str, breaker: Breaker, session: str = "", *, judge_duration: bool = True
    ) -> None:
        super().__init__(alias)
        self._operation, self._breaker, self._session = operation, breaker, session
        self._judge_duration = judge_duration

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        # In a crowded process much of it is the wait for other threads. The other store would not be faster.
        judged = self._judge_duration and not slots.crowded
        super().__exit__(kind, error, trace)
        self._breaker.record(isinstance(error, StoreUnavailable), self.took if judged else 0.0)
        metrics.store_seconds.labels(store=self.alias, operation=self._operation).observe(self.took)
        if error:
            self._report(error)
        if traces.spans:
            traces.spans.store_call(self.alias, self._operation, _outcome(error), self._session, self.took)

    def _report(self, error: BaseException) -> None:
        """Count and log a fault."""
        if isinstance(error, StoreUnavailable):
            metrics.store_errors.labels(store=self.alias, operation=self._operation).inc()
            name = f"{self.alias}_error"
            event(logger, logging.WARNING, name, operation=self._operation, error=error.reason)
        elif isinstance(error, CorruptHistory):
            names = {"store": self.alias, "session": hashed(self._session)}
            event(logger, logging.ERROR, "corrupt_history", **names, error=str(error))


def _outcome(error: BaseException | None) -> str:
    """Return how a call has ended, for its span."""
    if isinstance(error, StoreUnavailable):
        return "unavailable"
    if isinstance(error, CorruptHistory):
        return "corrupt"
    return "failed" if error else "ok"
