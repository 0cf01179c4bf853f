"""The status in words: tables of cells, the same on a terminal, in a pipe and in the admin."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from itertools import islice

from django.conf import settings

from conversations.background.watcher import MOST_OFFSET
from conversations.datasets import Scrubbed, Verdict
from conversations.policy import Routing
from conversations.stores import ALIASES
from conversations.stores.info import StoreInfo
from ops.status import limits
from ops.status.collect import Counted, Figure, Status, StoreStatus
from ops.status.datasets import DatasetStatus, Machine, Presence
from ops.status.findings import Finding

MOST_TENANTS = 10  # that are named


class Level(StrEnum):
    """How good the content of a cell is; a terminal and a page each have colours for it."""

    OK = "ok"
    WARN = "warn"
    BAD = "bad"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell; without a level its content is neither good nor bad."""

    text: str
    level: Level | None = None
    part: float | None = None
    """Of a cell that shows how full something is: which part of it is used. A page draws it."""


@dataclass(frozen=True, slots=True)
class Table:
    """A head and rows; the first cell of a row is its name."""

    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


def tables(status: Status) -> tuple[Table, Table, Table, Table, Table, Table]:
    """Return the routing, the stores, the figures, those of them that are counted, of two times, the machines, and the
    alerts."""
    stores = tuple((Cell(name), *(cell(status.stores[alias]) for alias in ALIASES)) for name, cell in _STORE.items())
    return (
        Table(("routing", ""), tuple((Cell(name), cell) for name, cell in _routing(status))),
        Table(("store", *ALIASES), stores),
        Table(("figure", "now", "normal", ""), tuple(map(_figure, status.figures))),
        Table(("counted", "last 10 min", "since start"), tuple(map(_counted, status.counted))),
        Table(("machine", *ALIASES), tuple(map(_machine, status.machines))),
        Table(
            ("finding", "alert", "runbook"), tuple(map(_found, status.findings)) or ((Cell("none"), *[Cell("")] * 2),)
        ),
    )


def in_words(routing: Routing) -> str:
    return f"primary {routing.primary}, dual write {'on' if routing.dual_write else 'off'}"


# --- figures --------------------------------------------------------------------------------------


def _figure(figure: Figure) -> tuple[Cell, ...]:
    return Cell(figure.name), Cell(figure.text), Cell(figure.limit), _VERDICTS[figure.ok]


def _counted(one: Counted) -> tuple[Cell, ...]:
    values = (one.last_10_min, one.since_start)
    return Cell(one.name), *(Cell("not known" if value is None else one.form.format(value)) for value in values)


_VERDICTS = {True: Cell("ok", Level.OK), False: Cell("NOT NORMAL", Level.BAD), None: Cell("not known", Level.UNKNOWN)}

# --- findings -------------------------------------------------------------------------------------


def _found(one: Finding) -> tuple[Cell, ...]:
    names = ", ".join(f"{alert.name} ({alert.severity})" for alert in one.alerts)
    sections = dict.fromkeys(alert.section for alert in one.alerts) or {one.section: None}
    return (
        Cell(one.text, Level.BAD if one.serious else Level.WARN),
        Cell(names or "-"),
        Cell(f"#{next(iter(sections))}"),
    )


# --- routing --------------------------------------------------------------------------------------


def _routing(status: Status) -> list[tuple[str, Cell]]:
    return [
        ("traffic", Cell(in_words(status.routing))),
        ("environment", Cell(in_words(status.environment))),
        *_switch(status),
        ("server", Cell(status.server)),
        ("breakers open", _breakers(status.breakers)),
        ("newest backup", Cell(_recorded(status, status.backup))),
        ("verified backup", Cell(_recorded(status, status.verified))),
        ("repair", _repair(status)),
        ("scrub", _scrub(status)),
        *_tenants(status),
    ]


def _switch(status: Status) -> list[tuple[str, Cell]]:
    if status.switch is None:
        unknown = Cell("not known: neither store answers", Level.UNKNOWN)
        return [("switched by", unknown if status.blind else Cell("nobody: the environment counts"))]
    at = datetime.fromtimestamp(status.switch.at, UTC).isoformat(timespec="seconds")
    reason = f": {status.switch.reason}" if status.switch.reason else ""
    rows = [
        ("switched by", Cell(f"{status.switch.by} at {at}{reason}")),
        ("against", Cell(in_words(status.switch.against))),
    ]
    if status.environment != status.switch.against:
        note = "a server started now follows the environment where it differs from `against`"
        rows.append(("note", Cell(note, Level.WARN)))
    return rows


def _breakers(names: tuple[str, ...]) -> Cell:
    return Cell(", ".join(names), Level.WARN) if names else Cell("none known")


def _recorded(status: Status, at: float | None) -> str:
    if not at:
        return "not known" if at is None else "none is recorded"
    return _ago(status, at)


def _repair(status: Status) -> Cell:
    if status.blind:
        return Cell("not known")
    left = sum(one.unsynced or 0 for one in status.stores.values())
    uncovered = [alias for alias in status.routing.wanted if _is_uncovered(status.stores[alias].dataset)]
    parts = [f"{left} left"] if left else []
    if uncovered:
        parts.append(f"everything is compared: {' and '.join(uncovered)} may be missing some")
    if parts and not all(one.up for one in status.stores.values()):
        parts.append("it waits for both stores")
    if status.repaired and (status.repaired.conversations or status.repaired.failed):
        parts.append(f"{status.repaired.conversations} repaired and {status.repaired.failed} failed in 10 min")
    return Cell("; ".join(parts) or "nothing is left", Level.WARN if left or uncovered else None)


def _is_uncovered(one: DatasetStatus | None) -> bool:
    return one is not None and not one.complete


def _scrub(status: Status) -> Cell:
    scrub = status.scrub
    if scrub is None:
        return Cell("not known")
    parts = [f"ended {_ago(status, scrub.last.at)}: {_compared(scrub.last)}" if scrub.last else "none has ended"]
    if scrub.under_way:
        total = max(one.conversations or 0 for one in status.stores.values())
        parts.append(f"under way: {_compared(scrub.under_way, f' of about {total}' if total else '')}")
    wrong = any(one and one.out_of_step for one in (scrub.last, scrub.under_way))
    return Cell("; ".join(parts), Level.WARN if wrong else None)


def _tenants(status: Status) -> list[tuple[str, Cell]]:
    """Return the tenants near their limit, the fullest first; no row where there is no limit."""
    use, limit = status.tenants, settings.TENANT_MAX_BYTES
    if use is None or not limit:
        return []
    if not use.at:
        return [("tenants near full", Cell("not counted yet"))]
    shown = [f"{tenant or '(none)'} {size / limit:.0%}" for tenant, size in islice(use.bytes.items(), MOST_TENANTS)]
    more = [f"{len(use.bytes) - len(shown)} more"] if len(use.bytes) > len(shown) else []
    text = f"{', '.join(shown + more) or 'none'}; counted {_ago(status, use.at)}"
    return [("tenants near full", Cell(text, Level.BAD if use.full else Level.WARN if shown else None))]


def _compared(one: Scrubbed, of: str = "") -> str:
    return f"{one.compared}{of} compared, {one.out_of_step} out of step"


def _ago(status: Status, moment: float) -> str:
    at = datetime.fromtimestamp(moment, UTC)
    hours = (datetime.fromisoformat(status.at) - at).total_seconds() / 3600
    return f"{max(hours, 0):.1f} hours ago, at {at.isoformat(timespec='seconds')}"


# --- machines -------------------------------------------------------------------------------------


def _machine(one: Machine) -> tuple[Cell, ...]:
    return Cell(one.name), *(_presence(one.stores.get(alias)) for alias in ALIASES)


def _presence(one: Presence | None) -> Cell:
    if one is None:
        return Cell("-")
    lost = f", {one.cut_off} cut off" if one.cut_off else ""
    text = f"{one.processes} process{'es' * (one.processes != 1)}{lost}, {one.seconds:.1f} s ago"
    return Cell(text, Level.WARN if lost else None)


# --- stores ---------------------------------------------------------------------------------------


def _state(store: StoreStatus) -> Cell:
    if store.problem:
        return Cell("up, MISCONFIGURED" if store.up else f"MISCONFIGURED ({store.error})", Level.BAD)
    return Cell("up", Level.OK) if store.up else Cell(f"OUT ({store.error})", Level.BAD)


def _unsynced(number: int | None) -> Cell:
    if number is None:
        return Cell("-")
    return Cell(str(number), Level.WARN if number else None)


def _dataset(one: DatasetStatus | None) -> Cell:
    if one is None:
        return Cell("-")
    if one.verdict != Verdict.SAME:
        return Cell(one.verdict.replace("_", " "), Level.WARN)
    return Cell(f"epoch {one.epoch}")


def _complete(one: DatasetStatus | None) -> Cell:
    if one is None:
        return Cell("-")
    if not one.complete:
        return Cell("no", Level.WARN)
    return Cell("but for what was trimmed" if one.trimmed else "yes")


def _processes(one: DatasetStatus | None) -> Cell:
    if one is None:
        return Cell("-")
    lost = f", {one.cut_off} cut off" if one.cut_off else ""
    return Cell(f"{one.processes}{lost}", Level.WARN if lost else None)


def _clock(one: DatasetStatus | None) -> Cell:
    if one is None:
        return Cell("-")
    return Cell(f"{one.clock_ahead:+.1f} s", Level.WARN if abs(one.clock_ahead) > MOST_OFFSET else None)


def _memory(info: StoreInfo) -> Cell:
    used, most = info.memory_bytes, info.max_memory_bytes
    if used is None:
        return Cell("-")
    if not most:
        return Cell(f"{_megabytes(used)}{', no maxmemory' if most == 0 else ''}")
    part = used / most
    level = Level.BAD if part >= limits.FULL else Level.WARN if part >= limits.ALMOST_FULL else None
    return Cell(f"{_megabytes(used)} of {_megabytes(most)} ({part:.0%})", level, part)


def _megabytes(number: float) -> str:
    return f"{number / 1_048_576:.1f} MB"


def _milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} ms"


def _or_dash(value: object) -> Cell:
    return Cell("-" if value is None else str(value))


_STORE: dict[str, Callable[[StoreStatus], Cell]] = {
    "state": _state,
    "ping": lambda one: Cell(_milliseconds(one.ping_ms)),
    "p95": lambda one: Cell(_milliseconds(one.p95_ms)),
    "memory": lambda one: _memory(one.info),
    "policy": lambda one: _or_dash(one.info.policy),
    "clients": lambda one: _or_dash(one.info.clients),
    "role": lambda one: _or_dash(one.info.role),
    "replicas": lambda one: _or_dash(one.info.replicas),
    "lag": lambda one: _or_dash(one.info.lag),
    "persistence": lambda one: _or_dash(one.info.persistence),
    "conversations": lambda one: Cell("-" if one.conversations is None else f"about {one.conversations}"),
    "unsynced": lambda one: _unsynced(one.unsynced),
    "complete": lambda one: _complete(one.dataset),
    "dataset": lambda one: _dataset(one.dataset),
    "processes": lambda one: _processes(one.dataset),
    "clock": lambda one: _clock(one.dataset),
}
