"""Collecting the status: routing, both stores, unsynced conversations, and the runbook's four normal figures."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cache, partial
from typing import Any

from django.conf import settings
from django.db import connections

from conversations.background import sampling
from conversations.errors import StoreUnavailable
from conversations.policy import Routing, Switch
from conversations.runtime import datasets, switching
from conversations.runtime.pings import p95
from conversations.runtime.tenants import Use, newest
from conversations.stores import ALIASES, bulk, connect, info, misconfigured, missing_rights, store
from conversations.stores.info import StoreInfo
from ops.status import findings, limits, served, window
from ops.status.datasets import Asked, DatasetStatus, Machine, ScrubStatus, doubtful, judged, machines, scrubs
from ops.status.findings import Finding
from ops.status.pings import ping_ms
from ops.status.served import Served, server_url, total
from ops.status.served import reads as served_reads

COUNT_SECONDS = 0.2  # the rest of the status must not wait for a count
FEW = 1000  # with fewer conversations the memory of one cannot be estimated


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """One store as it answers now."""

    up: bool
    error: str = ""
    problem: str = ""
    """What an operator has to set right, where it is not merely out."""
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
        return {**fields, "says": report if self.up or self.info.role else {}, "dataset": dataset}


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
class Repaired:
    """What the server of this machine has repaired in the last ten minutes, or since its start where that is later."""

    conversations: int
    failed: int


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
    verified: float | None = None
    """When the newest one that was verified was begun, likewise."""
    scrub: ScrubStatus | None = None
    """None when no store can be asked."""
    counted: tuple[Counted, ...] = ()
    tenants: Use | None = None
    """The tenants near TENANT_MAX_BYTES; None where it is not set, or no store can be asked."""
    machines: tuple[Machine, ...] = ()
    """Those with a heartbeat in a store."""
    repaired: Repaired | None = None
    """None where no server of this machine answers."""
    findings: tuple[Finding, ...] = ()

    @property
    def trouble(self) -> str:
        """What is wrong now, in one line, "" for nothing."""
        return "; ".join(self.wrong)

    @property
    def wrong(self) -> list[str]:
        """Each thing that is wrong now, in words."""
        return [one.text for one in self.findings if one.serious]

    @property
    def verdict(self) -> str:
        """How things are, in a few words."""
        if not self.findings:
            return "All is well"
        return "Something is wrong" if self.wrong else "Something needs attention"

    @property
    def blind(self) -> bool:
        """Whether no store answers."""
        return not any(one.up for one in self.stores.values())

    def as_dict(self) -> dict[str, Any]:
        """Return it for machines."""
        stores = {alias: one.as_dict() for alias, one in self.stores.items()}
        counted = [one.as_dict() for one in self.counted]
        found = {**asdict(self), "stores": stores, "counted": counted, "trouble": self.trouble}
        if self.tenants is None:
            del found["tenants"]
        return found


def look(here: Served | None = None, followed: Switch | None = None) -> Status:
    """Ask both stores and the server of this machine, all at once. A process that is that server passes what it counts
    as `here`, and as `followed` the switch that it follows, which counts when both stores are out. The figures of the
    server's counters are of the last ten minutes, where these are known."""
    connect()
    with ThreadPoolExecutor(max_workers=6, thread_name_prefix="status") as pool:

        def submit(call: Callable[[], Any]) -> Future[Any]:
            return pool.submit(copy_context().run, _closing, call)

        asked = {alias: submit(partial(_ask, alias)) for alias in ALIASES}
        recorded = submit(switching.read)
        backups = submit(sampling.backups_recorded)
        verified = submit(partial(sampling.backups_recorded, sampling.VERIFIED))
        use = submit(newest) if settings.TENANT_MAX_BYTES else None
        counted = submit(served.served_metrics).result() if here is None else here
        answers = {alias: answer.result() for alias, answer in asked.items()}
        reports = {alias: report for alias, (_, report) in answers.items() if report}
        for alias in doubtful(reports):
            with suppress(StoreUnavailable):
                reports[alias] = submit(partial(datasets.ask, alias)).result()
        switch = switching.newest_of({**recorded.result(), "followed": followed})
        backup = max(backups.result().values(), default=None)
        used = use.result() if use else None
    samples = window.read()

    @cache
    def grown(seconds: float) -> Served | None:
        return None if counted is None else window.growth(counted, seconds, samples)

    lately = grown(window.SECONDS)
    found = judged(reports)
    stores = {alias: replace(one, dataset=found.get(alias)) for alias, (one, _) in answers.items()}
    environment = switching.environment()
    where = server_url()
    seen = Status(
        datetime.now(UTC).isoformat(timespec="seconds"),
        switch.routing if switch else environment,
        environment,
        switch,
        stores,
        _figures(stores, counted, counted if lately is None else lately),
        f"{where} answers" if counted is not None else f"no server answers on {where}",
        tuple(f"{name[1]} {name[2]}" for name, value in (counted or {}).items() if name[0] == "breaker_open" and value),
        backup,
        max(verified.result().values(), default=None),
        scrubs(reports),
        tuple(Counted(name, value(lately), value(counted), form) for name, value, form in _COUNTED),
        used,
        machines(reports),
        _repaired(counted if lately is None else lately),
    )
    return replace(seen, findings=findings.find(seen, grown))


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
        problem = missing_rights(alias)
    except StoreUnavailable as error:
        return StoreStatus(False, error.reason, misconfigured(alias, error), info=_info_all_the_same(alias)), None
    middle = round(pings[len(pings) // 2], 3)
    status = StoreStatus(True, "", problem, middle, round(p95(pings), 3), _count(alias), unsynced, info=found)
    return status, asked


def _info_all_the_same(alias: str) -> StoreInfo:
    """Return what the rest of a cluster reports, of which a part is out."""
    with suppress(StoreUnavailable):
        return info(alias)
    return StoreInfo()


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
        _figure("P95 latency", latency, "< 50 ms", lambda value: value < limits.P95_MS, "{:.1f} ms"),
        _figure(
            "persist errors", _persist_errors(lately), "< 0.1 %", lambda value: value < limits.PERSIST_ERRORS, "{:.3%}"
        ),
        _figure("memory per 10K", _memory(stores), "about 100 MB", lambda value: value <= 1.5, "{:.2f} of it"),
        _figure("hit rate", _hit_rate(lately), "> 90 %", lambda value: value > limits.HIT_RATE, "{:.1%}"),
    )


def _figure(name: str, value: float | None, limit: str, fine: Callable[[float], bool], form: str) -> Figure:
    if value is None:
        return Figure(name, None, limit, None, "unknown")
    return Figure(name, value, limit, fine(value), form.format(value))


def _persist_errors(served: Served | None) -> float | None:
    """Return which part of the turns that were written to a store it did not take."""
    if served is None:
        return None
    attempts, errors = (total(served, f"history_persist_{name}_total") for name in ("attempts", "errors"))
    return errors / attempts if attempts else 0.0


def _hit_rate(served: Served | None) -> float | None:
    if served is None:
        return None
    hits, reads = served_reads(served)
    return hits / reads if reads else 1.0


def _repaired(served: Served | None) -> Repaired | None:
    if served is None:
        return None
    return Repaired(*(int(total(served, f"{name}_total")) for name in ("healed_conversations", "repair_errors")))


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
            return used * 10_000 / number / limits.MEMORY_PER_10K
    return None
