"""How things stand: routing, both stores, what is not in step, and the runbook's four normal figures."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pymongo
from django.db import connections

from conversations.errors import StoreUnavailable
from conversations.policy import Routing, Switch
from conversations.runtime import sampling, switching
from conversations.stores import ALIASES, REDIS, info, store
from ops import direct
from ops.status.collect import facts

COUNT_SECONDS = 0.2  # whoever is on call wants the rest now
MARKS = 10_000  # more are said to be more
FEW = 1000  # with fewer conversations memory by conversation says nothing
P95_MS, PERSIST_ERRORS, MEMORY_PER_10K, HIT_RATE = 50.0, 0.001, 100 * 1_048_576, 0.9  # the runbook's

Served = dict[tuple[str, str, str], float]


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
    says: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Figure:
    """One of the runbook's normal figures; `ok` is None when it cannot be told."""

    name: str
    value: float | None
    limit: str
    ok: bool | None
    text: str


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
    """When the newest backup of both stores was begun, as Unix time; 0.0 for never, None when no store can tell."""

    @property
    def trouble(self) -> str:
        """What is wrong, in one line, "" for nothing."""
        wrong = [f"{alias} is out ({one.error})" for alias, one in self.stores.items() if not one.up]
        wrong += [
            f"{figure.name} is {figure.text}, not {figure.limit}" for figure in self.figures if figure.ok is False
        ]
        return "; ".join(wrong)

    @property
    def blind(self) -> bool:
        """Whether neither store answers."""
        return not any(one.up for one in self.stores.values())

    def facts(self) -> dict[str, Any]:
        """Return it for machines."""
        return {**asdict(self), "trouble": self.trouble}


def look(here: Served | None = None, followed: Switch | None = None) -> Status:
    """Ask both stores and the server of this machine, all at once. That server itself says what it counts `here`,
    and which switch it has `followed`: it goes on doing so when both stores are out."""
    direct.meet()
    with ThreadPoolExecutor(max_workers=5, thread_name_prefix="status") as pool:
        asked = {alias: pool.submit(_closing, partial(_ask, alias)) for alias in ALIASES}
        recorded = pool.submit(_closing, switching.read)
        backups = pool.submit(_closing, sampling.backups_recorded)
        served = pool.submit(facts.served_metrics).result() if here is None else here
        stores = {alias: answer.result() for alias, answer in asked.items()}
        switch = switching.newest_of({**recorded.result(), "followed": followed})
        backup = max(backups.result().values(), default=None)
    environment = switching.environment()
    where = facts.server_url()
    return Status(
        datetime.now(UTC).isoformat(timespec="seconds"),
        switch.routing if switch else environment,
        environment,
        switch,
        stores,
        _figures(stores[REDIS], served),
        f"{where} answers" if served is not None else f"no server answers on {where}",
        tuple(f"{name[1]} {name[2]}" for name, value in (served or {}).items() if name[0] == "breaker_open" and value),
        backup,
    )


def _closing(call: Callable[[], Any]) -> Any:
    """Return what the call returns; a thread's connections end with it."""
    try:
        return call()
    finally:
        connections.close_all()


def _ask(alias: str) -> StoreStatus:
    try:
        pings = facts.ping_ms(alias)
        marks = len(store(alias).marks(MARKS).sessions)
        says = asdict(info(alias))
    except StoreUnavailable as error:
        return StoreStatus(False, error.reason)
    try:
        with pymongo.timeout(COUNT_SECONDS):
            conversations: int | None = facts.estimate(alias)
    except StoreUnavailable:  # it answers pings; the embedded MongoDB counts one by one
        conversations = None
    middle = round(pings[len(pings) // 2], 3)
    return StoreStatus(True, "", middle, round(facts.p95(pings), 3), conversations, marks, says)


def _figures(redis: StoreStatus, served: Served | None) -> tuple[Figure, ...]:
    """Return the runbook's four; the server's own p95, of a minute, goes before ours, of this moment, unless Redis is
    out: then it is of before."""
    latency = (served or {}).get(("redis_latency_p95_ms", "", "")) or redis.p95_ms if redis.up else None
    return (
        _figure("P95 latency", latency, "< 50 ms", lambda value: value < P95_MS, "{:.1f} ms"),
        _figure("persist errors", _persist_errors(served), "< 0.1 %", lambda value: value < PERSIST_ERRORS, "{:.3%}"),
        _figure("memory per 10K", _memory(redis), "about 100 MB", lambda value: value <= 1.5, "{:.2f} of it"),
        _figure("hit rate", _hit_rate(served), "> 90 %", lambda value: value > HIT_RATE, "{:.1%}"),
    )


def _figure(name: str, value: float | None, limit: str, fine: Callable[[float], bool], form: str) -> Figure:
    if value is None:
        return Figure(name, None, limit, None, "unknown")
    return Figure(name, value, limit, fine(value), form.format(value))


def _persist_errors(served: Served | None) -> float | None:
    """Return the part of the turns offered to a store that it did not take, since the server was started."""
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


def _memory(redis: StoreStatus) -> float | None:
    """Return the memory that 10,000 conversations take in Redis, as a part of 100 MB."""
    used, number = redis.says.get("data_bytes"), redis.conversations or 0
    return used * 10_000 / number / MEMORY_PER_10K if used is not None and number >= FEW else None


def _sum(served: Served, name: str, label: str = "") -> float:
    return sum(value for (key, _, other), value in served.items() if key == name and (not label or other == label))


# --- for people -----------------------------------------------------------------------------------

Table = tuple[tuple[str, ...], list[tuple[str, ...]]]
"""A head and rows, every cell a string."""


def tables(status: Status) -> list[Table]:
    """Return what to show, the same on a terminal and in a pipe."""
    store_rows: list[tuple[str, ...]] = [
        (name, *(read(status.stores[alias]) for alias in ALIASES)) for name, read in _STORE_ROWS.items()
    ]
    figures: list[tuple[str, ...]] = [(one.name, one.text, one.limit, _VERDICT[one.ok]) for one in status.figures]
    return [
        (("routing", ""), _routing_rows(status)),
        (("store", *ALIASES), store_rows),
        (("figure", "now", "normal", ""), figures),
    ]


_VERDICT = {True: "ok", False: "NOT NORMAL", None: "not known"}


def _routing_rows(status: Status) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [
        ("traffic", in_words(status.routing)),
        ("environment", in_words(status.environment)),
    ]
    if status.switch:
        at = datetime.fromtimestamp(status.switch.at, UTC).isoformat(timespec="seconds")
        reason = f": {status.switch.reason}" if status.switch.reason else ""
        rows += [("switched by", f"{status.switch.by} at {at}{reason}"),
                 ("against", in_words(status.switch.against))]  # fmt: skip
        if status.environment != status.switch.against:
            rows.append(("note", "a server started now follows the environment where it differs from `against`"))
    elif status.blind:
        rows.append(("switched by", "not known: neither store answers"))
    else:
        rows.append(("switched by", "nobody: the environment counts"))
    return [
        *rows,
        ("server", status.server),
        ("breakers open", ", ".join(status.breakers) or "none known"),
        ("newest backup", _backup_in_words(status)),
    ]


def _backup_in_words(status: Status) -> str:
    if not status.backup:
        return "not known" if status.backup is None else "none is recorded"
    at = datetime.fromtimestamp(status.backup, UTC)
    hours = (datetime.fromisoformat(status.at) - at).total_seconds() / 3600
    return f"{max(hours, 0):.1f} hours ago, at {at.isoformat(timespec='seconds')}"


_STORE_ROWS: dict[str, Callable[[StoreStatus], str]] = {
    "state": lambda one: "up" if one.up else f"OUT ({one.error})",
    "ping": lambda one: _ms(one.ping_ms),
    "p95": lambda one: _ms(one.p95_ms),
    "memory": lambda one: _memory_in_words(one.says),
    "policy": lambda one: one.says.get("policy") or "-",
    "clients": lambda one: _or_dash(one.says.get("clients")),
    "role": lambda one: one.says.get("role") or "-",
    "replicas": lambda one: _or_dash(one.says.get("replicas")),
    "lag": lambda one: one.says.get("lag") or "-",
    "persistence": lambda one: one.says.get("persistence") or "-",
    "conversations": lambda one: "-" if one.conversations is None else f"about {one.conversations}",
    "unsynced": lambda one: "-" if one.unsynced is None else f"{one.unsynced}{'+' * (one.unsynced >= MARKS)}",
}


def in_words(routing: Routing) -> str:
    return f"primary {routing.primary}, dual write {'on' if routing.dual_write else 'off'}"


def _memory_in_words(says: dict[str, Any]) -> str:
    used, most = says.get("memory_bytes"), says.get("max_memory_bytes")
    if used is None:
        return "-"
    of = f" of {_mb(most)} ({used / most:.0%})" if most else ", no maxmemory" if most == 0 else ""
    return f"{_mb(used)}{of}"


def _mb(number: float) -> str:
    return f"{number / 1_048_576:.1f} MB"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} ms"


def _or_dash(value: Any) -> str:
    return "-" if value is None else str(value)
