"""The watcher: a thread in each process that asks both stores every second, so that nobody else need ask.

It pings them, tries what the breakers hold back, learns of marks and switches, and hands conversations that
are not in step to the healer, a second thread, of which one process at a time has the work. A third samples
what changes slowly.
"""

import logging
import os
import socket
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from conversations import policy
from conversations.breaker import CLOSED, Breaker
from conversations.errors import InvalidSession, StoreUnavailable
from conversations.history import repair
from conversations.policy import Switch
from conversations.runtime import sampling, switching
from conversations.runtime.state import state
from conversations.stores import ALIASES, MONGO, REDIS, store
from telemetry import metrics
from telemetry.logs import event

logger = logging.getLogger(__name__)

EVERY = 1.0  # seconds
BREATH = 0.1  # between two batches of work that there is more of
_KEPT = 60  # pings, about a minute's, for the 95th percentile
_LEASE_SECONDS = 5.0
_STARTED = time.time()
_ME = f"{socket.gethostname()}:{os.getpid()}"


@dataclass(frozen=True, slots=True)
class StoreHealth:
    """What is known of a store."""

    up: bool = False
    error: str | None = "not asked yet"
    latency_ms: float | None = None
    since: float = 0.0

    def report(self) -> dict[str, Any]:
        """Return what /healthz says of it."""
        said: dict[str, Any] = {"up": self.up}
        if self.latency_ms is not None:
            said["latency_ms"] = round(self.latency_ms, 3)
        if self.error:
            said["error"] = self.error
        return said


_health: dict[str, StoreHealth] = {}
_pings: dict[str, deque[float]] = {alias: deque(maxlen=_KEPT) for alias in ALIASES}
_starting = threading.Lock()
_threads: list[threading.Thread] = []
_executor = ThreadPoolExecutor(max_workers=2 * len(ALIASES), thread_name_prefix="ping")


def start() -> None:
    """Start the threads of this process, once; the first look is taken before the return."""
    with _starting:
        if not _threads:
            metrics.start()
            with suppress(Exception):
                _tick()
            steps = (
                ("watcher", _tick, EVERY),
                ("healer", _repair, EVERY),
                ("sampler", sampling.sample, sampling.EVERY),
            )
            for name, step, every in steps:
                _threads.append(threading.Thread(target=_forever, args=(step, every), name=name, daemon=True))
            for thread in _threads:
                thread.start()
            with suppress(Exception):
                sampling.sample()


def health(alias: str) -> StoreHealth:
    """Return what was last seen of the store; touches nothing."""
    return _health.get(alias, StoreHealth())


def look() -> dict[str, StoreHealth]:
    """Ping both stores at once, remember and return what was seen."""
    asked = {alias: _executor.submit(_ping, alias) for alias in ALIASES}
    for alias, answer in asked.items():
        _remember(alias, answer.result())
    return {alias: health(alias) for alias in ALIASES}


def _forever(step: Any, every: float) -> None:
    rest = every
    while True:
        time.sleep(rest)
        rest = every
        try:
            if step():
                rest = BREATH
        except StoreUnavailable:
            pass  # said by whoever asked; the next second tells more
        except RuntimeError as error:
            if "shutdown" in str(error):  # this process is ending, and its pool of threads before us
                return
            logger.exception("watcher_failed")
        except Exception:  # whatever happens, the next second is watched too
            logger.exception("watcher_failed")


def _tick() -> None:
    look()
    up = [alias for alias in ALIASES if health(alias).up]
    for learned in [_executor.submit(_learn, alias) for alias in up]:
        with suppress(StoreUnavailable):
            learned.result()
    _follow()
    if up:
        _recover(next(alias for alias in state().routing.order if alias in up))


def _ping(alias: str) -> StoreHealth:
    begun = time.perf_counter()
    known = state().stores[alias]
    try:
        store(alias).ping()
    except StoreUnavailable as error:
        known.reads.trip()
        known.writes.trip()
        return StoreHealth(False, error.reason, None, time.time())
    took = time.perf_counter() - begun
    _try(known.reads, took)
    if known.writes.state != CLOSED and known.writes.probe():
        _probe_writes(alias)
    return StoreHealth(True, None, took * 1000, time.time())


def _try(breaker: Breaker, took: float) -> None:
    if breaker.state != CLOSED and breaker.probe():
        breaker.record(False, took)


def _probe_writes(alias: str) -> None:
    """Write something: a store that is full or read-only answers every ping."""
    begun = time.perf_counter()
    failed = False
    try:
        store(alias).write_note("probe", _ME)
    except StoreUnavailable:
        failed = True
    state().stores[alias].writes.record(failed, time.perf_counter() - begun)


def _learn(alias: str) -> None:
    """Learn what the store has marked, mark what could not be marked before, and whether it is what it was."""
    known = state()
    asked_at = time.monotonic()
    known.remember_flags(alias, store(alias).marks(repair.MARKS), asked_at)
    for where, session in list(known.pending_flags):
        if where == alias:
            store(alias).append(session, None, mark=True)
            known.pending_flags.discard((where, session))
    if alias == REDIS:
        known.suspect = store(REDIS).note("swept") != store(REDIS).identity()


def _recover(alias: str) -> None:
    """Mark what a process that was killed had on its way into both stores."""
    found = state().journal.recover(lambda session: _flag(alias, session))
    if found:
        event(logger, logging.WARNING, "adopted", conversations=found)


def _flag(alias: str, session: str) -> None:
    with suppress(InvalidSession):  # half a name: the process was killed as it wrote it down
        store(alias).append(session, None, mark=True)


def _follow() -> None:
    """Follow the newest switch, and see to it that both stores have it."""
    known = state()
    recorded = switching.read()
    newest = switching.newest_of({**recorded, "seen": known.switch})
    routing, news = policy.follow(switching.environment(), _STARTED, newest)
    if news:
        newest = Switch(routing, switching.environment(), time.time(), by="environment")
        switching.write(newest)
    elif newest and any(switch != newest for switch in recorded.values()):
        switching.write(newest)
    known.switch = newest
    if routing != known.routing:
        known.routing = routing
        metrics.switches.inc()
        event(logger, logging.WARNING, "switched", primary=routing.primary, dual_write=routing.dual_write)


def _repair() -> bool:
    """Bring the stores together for a second at the most, if both are up and no other process is at it; return
    whether there is more to do."""
    known = state()
    marked = any(known.stores[alias].marks and known.stores[alias].marks.sessions for alias in ALIASES)  # type: ignore[union-attr]
    closed = all(one.reads.state == one.writes.state == CLOSED for one in known.stores.values())
    if not (marked or known.suspect) or not closed or not all(health(alias).up for alias in ALIASES):
        return False
    if not store(REDIS).lease("healing", _ME, _LEASE_SECONDS):
        return False
    deadline = time.monotonic() + repair.BATCH_SECONDS
    repair.heal_marked(deadline)
    if known.suspect:
        _sweep(deadline)
    return time.monotonic() > deadline


def _sweep(deadline: float) -> None:
    identity = store(REDIS).identity()
    global _sweeping
    if _sweeping is None or _sweeping[0] != identity:
        _sweeping = (identity, repair.Sweep())
    if _sweeping[1].step(deadline):
        store(REDIS).write_note("swept", identity)
        _sweeping = None
        event(logger, logging.INFO, "swept")


_sweeping: tuple[str, repair.Sweep] | None = None


def _remember(alias: str, seen: StoreHealth) -> None:
    before = _health.get(alias)
    if before and before.up == seen.up:
        seen = replace(seen, since=before.since)
    else:
        name = "store_up" if seen.up else f"{alias}_error"
        level = logging.INFO if seen.up else logging.WARNING
        event(logger, level, name, store=alias, operation="ping", error=seen.error)
    _health[alias] = seen
    {REDIS: metrics.redis_up, MONGO: metrics.mongo_up}[alias].set(seen.up)
    for kind in ("reads", "writes"):
        breaker = getattr(state().stores[alias], kind)
        metrics.breaker_open.labels(store=alias, kind=kind).set(breaker.state != CLOSED)
    if seen.latency_ms is not None:
        _pings[alias].append(seen.latency_ms)
        if alias == REDIS:
            metrics.redis_latency_p95_ms.set(_p95(_pings[alias]))


def _p95(values: "deque[float]") -> float:
    ordered = sorted(values)
    return ordered[int(0.95 * (len(ordered) - 1))]
