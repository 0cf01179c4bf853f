"""Collecting the status: routing, both stores, unsynced conversations, and the runbook's four normal figures."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from django.db import connection, connections

from conversations.background import sampling
from conversations.errors import StoreUnavailable
from conversations.policy import Routing, Switch
from conversations.runtime import datasets, switching
from conversations.runtime.pings import p95
from conversations.stores import ALIASES, bulk, connect, info, store
from conversations.stores.info import StoreInfo
from ops.status import served, window
from ops.status.datasets import Asked, DatasetStatus, ScrubStatus, doubtful, judged, scrubs
from ops.status.pings import ping_ms
from ops.status.served import Served, server_url

COUNT_SECONDS = 0.2  # the rest of the status must not wait for a count
FEW = 1000  # with fewer conversations the memory of one cannot be estimated
P95_MS, PERSIST_ERRORS, MEMORY_PER_10K, HIT_RATE = 50.0, 0.001, 100 * 1_048_576, 0.9  # the runbook's


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """One store as it answers now."""

    up: bool
    error: str = ""
    ping_ms: float | None = None
    p95_ms: float | None = None
    conversations: int | None = None
    """About how many."""
    unsynced: int | None = None
    dataset: DatasetStatus | None = None
    info: StoreInfo = StoreInfo()

    def as_dict(self) -> dict[str, Any]:
        """Return it for machines, which know the StoreInfo as `says`."""
        fields = asdict(self)
        report, dataset = fields.pop("info"), fields.pop("dataset")
        return {**fields, "says": report if self.up else {}, "dataset": dataset}


@dataclass(frozen=True, slots=True)
class Figure:
    """One of the runbook's normal figures; `ok` is None when it is not known."""

    name: str
    value: float | None
    limit: str
    ok: bool | None
    text: str


@dataclass(frozen=True, slots=True)
class Counted:
    """A figure of the server's counters, of two times; None where it is not known."""

    name: str
    last_10_min: float | None
    since_start: float | None
    form: str

    def as_dict(self) -> dict[str, Any]:
        """Return it for machines."""
        return {"name": self.name, "last_10_min": self.last_10_min, "since_start": self.since_start}


@dataclass(frozen=True, slots=True)
class Status:
    """All of it, at one moment."""

    at: str
    routing: Routing
    environment: Routing
    switch: Switch | None
    stores: dict[str, StoreStatus]
    figures: tuple[Figure, ...]
    server: str
    breakers: tuple[str, ...]
    """The breakers that are open in the server of this machine, as `store kind`."""
    backup: float | None = None
    """When the newest backup of both stores was begun, as Unix time; 0.0 for never, None when no store can be asked."""
    scrub: ScrubStatus | None = None
    """None when no store can be asked."""
    counted: tuple[Counted, ...] = ()

    @property
    def trouble(self) -> str:
        """What is wrong, in one line, "" for nothing."""
        return "; ".join(self.wrong)

    @property
    def wrong(self) -> list[str]:
        """Each thing that is wrong, in words."""
        wrong = [f"{alias} is out ({one.error})" for alias, one in self.stores.items() if not one.up]
        wrong += [
            f"{figure.name} is {figure.text}, not {figure.limit}" for figure in self.figures if figure.ok is False
        ]
        wrong += [
            f"{alias} evicts unsynced flags when its memory is full ({one.info.policy})"
            for alias, one in self.stores.items()
            if one.info.evicts_all
        ]
        others = max((one.dataset.machines for one in self.stores.values() if one.dataset), default=0)
        if others and connection.vendor == "sqlite":
            wrong.append(f"servers on other machines: {others}, and SQLite is not shared with them: set DATABASE_URL")
        return wrong

    @property
    def blind(self) -> bool:
        """Whether no store answers."""
        return not any(one.up for one in self.stores.values())

    def as_dict(self) -> dict[str, Any]:
        """Return it for machines."""
        stores = {alias: one.as_dict() for alias, one in self.stores.items()}
        counted = [one.as_dict() for one in self.counted]
        return {**asdict(self), "stores": stores, "counted": counted, "trouble": self.trouble}


def look(here: Served | None = None, followed: Switch | None = None) -> Status:
    """Ask both stores and the server of this machine, all at once. A process that is that server passes what it counts
    as `here`, and as `followed` the switch that it follows, which counts when both stores are out. The figures of the
    server's counters are of the last ten minutes, where these are known."""
    connect()
    with ThreadPoolExecutor(max_workers=5, thread_name_prefix="status") as pool:

        def submit(call: Callable[[], Any]) -> Future[Any]:
            return pool.submit(copy_context().run, _closing, call)

        asked = {alias: submit(partial(_ask, alias)) for alias in ALIASES}
        recorded = submit(switching.read)
        backups = submit(sampling.backups_recorded)
        counted = submit(served.served_metrics).result() if here is None else here
        answers = {alias: answer.result() for alias, answer in asked.items()}
        reports = {alias: report for alias, (_, report) in answers.items() if report}
        for alias in doubtful(reports):
            with suppress(StoreUnavailable):
                reports[alias] = submit(partial(datasets.ask, alias)).result()
        switch = switching.newest_of({**recorded.result(), "followed": followed})
        backup = max(backups.result().values(), default=None)
    lately = window.growth(counted) if counted is not None else None
    found = judged(reports)
    stores = {alias: replace(one, dataset=found.get(alias)) for alias, (one, _) in answers.items()}
    environment = switching.environment()
    where = server_url()
    return Status(
        datetime.now(UTC).isoformat(timespec="seconds"),
        switch.routing if switch else environment,
        environment,
        switch,
        stores,
        _figures(stores, counted, counted if lately is None else lately),
        f"{where} answers" if counted is not None else f"no server answers on {where}",
        tuple(f"{name[1]} {name[2]}" for name, value in (counted or {}).items() if name[0] == "breaker_open" and value),
        backup,
        scrubs(reports),
        tuple(Counted(name, value(lately), value(counted), form) for name, value, form in _COUNTED),
    )


def _closing(call: Callable[[], Any]) -> Any:
    """Return what the call returns; a thread's connections end with it."""
    try:
        return call()
    finally:
        connections.close_all()


def _ask(alias: str) -> tuple[StoreStatus, Asked | None]:
    try:
        asked = datasets.ask(alias)
        pings = ping_ms(alias)
        unsynced = store(alias).flags(1).number
        found = info(alias)
    except StoreUnavailable as error:
        return StoreStatus(False, error.reason), None
    middle = round(pings[len(pings) // 2], 3)
    status = StoreStatus(True, "", middle, round(p95(pings), 3), _count(alias), unsynced, info=found)
    return status, asked


def _count(alias: str) -> int | None:
    """Return about how many conversations the store has, None where it takes long to count them, as the embedded
    MongoDB, which counts one by one."""
    try:
        return bulk(alias).estimate(COUNT_SECONDS)
    except StoreUnavailable:
        return None


def _figures(stores: dict[str, StoreStatus], served: Served | None, lately: Served | None) -> tuple[Figure, ...]:
    """Return the runbook's four. The latency is that of the first store, Redis: the server's own p95, of a minute, goes
    before ours, of this moment, unless the store is out, when the server's is old. What is counted is of `lately`."""
    first = stores[ALIASES[0]]
    latency = (served or {}).get((f"{ALIASES[0]}_latency_p95_ms", "", "")) or first.p95_ms if first.up else None
    return (
        _figure("P95 latency", latency, "< 50 ms", lambda value: value < P95_MS, "{:.1f} ms"),
        _figure("persist errors", _persist_errors(lately), "< 0.1 %", lambda value: value < PERSIST_ERRORS, "{:.3%}"),
        _figure("memory per 10K", _memory(stores), "about 100 MB", lambda value: value <= 1.5, "{:.2f} of it"),
        _figure("hit rate", _hit_rate(lately), "> 90 %", lambda value: value > HIT_RATE, "{:.1%}"),
    )


def _figure(name: str, value: float | None, limit: str, fine: Callable[[float], bool], form: str) -> Figure:
    if value is None:
        return Figure(name, None, limit, None, "unknown")
    return Figure(name, value, limit, fine(value), form.format(value))


def _persist_errors(served: Served | None) -> float | None:
    """Return which part of the turns that were written to a store it did not take."""
    if served is None:
        return None
    attempts, errors = (_sum(served, f"history_persist_{name}_total") for name in ("attempts", "errors"))
    return errors / attempts if attempts else 0.0


def _hit_rate(served: Served | None) -> float | None:
    """Return how often the primary had a conversation that there was: a first question finds none, and is no miss."""
    if served is None:
        return None
    hits, rescues = (_sum(served, "history_reads_total", outcome) for outcome in ("hit", "rescue"))
    missing = _sum(served, "context_missing_total")
    return hits / (hits + rescues + missing) if hits + rescues + missing else 1.0


def _calls_p95(served: Served | None) -> float | None:
    return None if served is None else window.p95_ms(served)


_COUNTED: tuple[tuple[str, Callable[[Served | None], float | None], str], ...] = (
    ("P95 of calls", _calls_p95, "{:.1f} ms"),
    ("persist errors", _persist_errors, "{:.3%}"),
    ("hit rate", _hit_rate, "{:.1%}"),
)


def _memory(stores: dict[str, StoreStatus]) -> float | None:
    """Return the memory that 10,000 conversations take in the store that reports it, as a part of 100 MB."""
    for one in stores.values():
        used, number = one.info.data_bytes, one.conversations or 0
        if used is not None and number >= FEW:
            return used * 10_000 / number / MEMORY_PER_10K
    return None


def _sum(served: Served, name: str, label: str = "") -> float:
    return sum(value for (key, _, other), value in served.items() if key == name and (not label or other == label))
