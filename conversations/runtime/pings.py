"""Pings of the stores: what the last one found, in this process' memory, metrics and breakers."""

import logging
import time
from collections import deque
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from contextvars import copy_context
from dataclasses import dataclass, replace
from typing import Any

from conversations.breaker import CLOSED, Breaker
from conversations.errors import StoreUnavailable
from conversations.runtime import gauges
from conversations.runtime.datasets import PROCESS
from conversations.runtime.state import state
from conversations.stores import ALIASES, control, store
from telemetry import metrics
from telemetry.logs import event

logger = logging.getLogger(__name__)

_KEPT = 60  # pings for the 95th percentile: about a minute


@dataclass(frozen=True, slots=True)
class StoreHealth:
    """What the last ping of a store found."""

    up: bool = False
    error: str | None = "not asked yet"
    latency_ms: float | None = None
    since: float = 0.0

    def report(self) -> dict[str, Any]:
        """Return what /healthz reports of the store."""
        report: dict[str, Any] = {"up": self.up}
        if self.latency_ms is not None:
            report["latency_ms"] = round(self.latency_ms, 3)
        if self.error:
            report["error"] = self.error
        return report


_health: dict[str, StoreHealth] = {}
_pings: dict[str, deque[float]] = {alias: deque(maxlen=_KEPT) for alias in ALIASES}
_executor = ThreadPoolExecutor(max_workers=4 * len(ALIASES), thread_name_prefix="ping")


def health(alias: str) -> StoreHealth:
    """Return what the last ping found; no store is called."""
    return _health.get(alias, StoreHealth())


def look(seconds: float | None = None, *, eager: bool = False) -> dict[str, StoreHealth]:
    """Ping both stores at the same time; remember and return what was found. A store that has not answered after so
    many seconds is reported as down, and what its ping finds later is not remembered. With `eager` a store that answers
    is used again at once: for the process that repairs, since the pause is for those that answer requests, which must
    not all come back together."""
    pings = {alias: _executor.submit(copy_context().run, _ping, alias, eager) for alias in ALIASES}
    answered, _ = wait(pings.values(), seconds)
    found = {}
    for alias, ping in pings.items():
        if ping in answered:
            _remember(alias, ping.result())
            found[alias] = health(alias)
        else:
            found[alias] = StoreHealth(up=False, error=f"no answer in {seconds} s")
    return found


def _ping(alias: str, eager: bool) -> StoreHealth:
    begun = time.perf_counter()
    one = state().stores[alias]
    try:
        store(alias).ping()
    except StoreUnavailable as error:
        one.reads.trip()
        one.writes.trip()
        return StoreHealth(False, error.reason, None, time.time())
    took = time.perf_counter() - begun
    if eager:
        one.reads.end_pause()
        one.writes.end_pause()
    _try(one.reads, took)
    if one.writes.state != CLOSED and one.writes.probe():
        _probe_writes(alias)
    return StoreHealth(True, None, took * 1000, time.time())


def _try(breaker: Breaker, took: float) -> None:
    if breaker.state != CLOSED and breaker.probe():
        breaker.record(False, took)


def _probe_writes(alias: str) -> None:
    """Try a write: a store that is full or read-only still answers pings."""
    begun = time.perf_counter()
    failed = False
    try:
        control(alias).write_note("probe", PROCESS)
    except StoreUnavailable:
        failed = True
    state().stores[alias].writes.record(failed, time.perf_counter() - begun)


def _remember(alias: str, found: StoreHealth) -> None:
    before = _health.get(alias)
    if before and before.up == found.up:
        found = replace(found, since=before.since)
    else:
        name = "store_up" if found.up else f"{alias}_error"
        level = logging.INFO if found.up else logging.WARNING
        event(logger, level, name, store=alias, operation="ping", error=found.error)
    _health[alias] = found
    gauges.up(alias).set(found.up)
    for kind in ("reads", "writes"):
        breaker = getattr(state().stores[alias], kind)
        metrics.breaker_open.labels(store=alias, kind=kind).set(breaker.state != CLOSED)
    metrics.store_recovering.labels(store=alias).set(state().stores[alias].recovering)
    if found.latency_ms is not None:
        _pings[alias].append(found.latency_ms)
        if gauge := gauges.latency(alias):
            gauge.set(p95(_pings[alias]))


def p95(values: Iterable[float]) -> float:
    """Return the 95th percentile of the values."""
    ordered = sorted(values)
    return ordered[int(0.95 * (len(ordered) - 1))]
