"""The figures of the last day: a row a minute of each machine, on `default`, and what the charts show of them.

The process of the management port keeps them in a thread of its own, which is the only one that waits for `default`:
with that database out, minutes are missing in the charts, and nothing else changes.
"""

import logging
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import DatabaseError, close_old_connections
from django.db.models import Max, Sum

from conversations.stores import ALIASES, memory_store
from ops import models
from ops.status import served, window
from ops.status.served import Served
from telemetry.logs import event
from telemetry.requests import page

logger = logging.getLogger(__name__)

EVERY = 60  # seconds
DAY = timedelta(hours=24)
STEP = timedelta(minutes=5)
"""What one point of a chart stands for."""
STEPS = DAY // STEP

_Minute = dict[str, float | None]


@dataclass(frozen=True, slots=True)
class Point:
    """The figures of five minutes, of all machines together; None where no minute has one."""

    at: datetime
    p95_ms: float | None = None
    memory_bytes: float | None = None
    hit_rate: float | None = None
    persist_errors: float | None = None
    unsynced: float | None = None


def start() -> None:
    """Keep the figures of each minute from now on, in a thread."""
    threading.Thread(target=_forever, name="day", daemon=True).start()


def keep(at: datetime, before: Served, counted: Served) -> None:
    """Keep the figures of the minute that began then, and drop what is older than a day; `before` and `counted` are
    what the server counted at its begin and at its end. Raise DatabaseError."""
    figures = _figures(window.between(before, counted), counted)
    models.Sample.objects.update_or_create(machine=socket.gethostname(), at=at, defaults=figures)
    models.Sample.objects.filter(at__lt=at - DAY).delete()


def keep_if_possible(now: datetime, before: Served) -> Served:
    """Keep the figures of the minute that has ended now, and return what the server counts now; `before` again, with
    which the next minute has these counts too, where `default` is out: that is logged."""
    counted, minute = _look(), timedelta(seconds=EVERY)
    try:
        keep(_floor(now, minute) - minute, before, counted)
    except DatabaseError as error:
        event(logger, logging.WARNING, "figures_not_stored", error=type(error).__name__)
        return before
    return counted


def points(now: datetime) -> list[Point]:
    """Return a day of points, the oldest first; the last one is of the five minutes that go on. Raise DatabaseError."""
    begin = _floor(now, STEP) + STEP - DAY
    found: dict[int, list[_Minute]] = {}
    for at, row in _minutes(begin):
        found.setdefault((at - begin) // STEP, []).append(row)
    return [_point(begin + number * STEP, found.get(number, [])) for number in range(STEPS)]


def _minutes(begin: datetime) -> Iterator[tuple[datetime, _Minute]]:
    """Yield a row a minute, over all machines."""
    highest, added = ("p95_ms", "memory_bytes", "unsynced"), ("hits", "reads", "persist_errors")
    columns = {f"{name}_": Max(name) for name in highest} | {f"{name}_": Sum(name) for name in added}
    rows: Any = models.Sample.objects.filter(at__gte=begin).values("at").annotate(**columns).order_by("at")
    for row in rows:
        yield row.pop("at"), {name.removesuffix("_"): value for name, value in row.items()}


def _point(at: datetime, minutes: list[_Minute]) -> Point:
    def known(name: str) -> list[float]:
        return [value for row in minutes if (value := row[name]) is not None]

    reads, errors = sum(known("reads")), known("persist_errors")
    return Point(
        at,
        p95_ms=max(known("p95_ms"), default=None),
        memory_bytes=max(known("memory_bytes"), default=None),
        hit_rate=sum(known("hits")) / reads if reads else None,
        persist_errors=sum(errors) if errors else None,
        unsynced=max(known("unsynced"), default=None),
    )


def _figures(grown: Served, counted: Served) -> dict[str, float | None]:
    """Return the figures of a minute. The gauges of a store that is out are old, and count as not known."""
    up = [alias for alias in ALIASES if counted.get((f"{alias}_up", "", ""))]
    hits, reads = served.reads(grown)

    def gauge(alias: str, name: str) -> float | None:
        return counted.get((f"{alias}_{name}", "", "")) if alias in up else None

    return {
        "p95_ms": gauge(ALIASES[0], "latency_p95_ms"),
        "memory_bytes": gauge(memory_store() or "", "memory_used_bytes"),
        "hits": hits,
        "reads": reads,
        "persist_errors": served.total(grown, "history_persist_errors_total"),
        "unsynced": sum(counted.get(("unsynced_conversations", alias, ""), 0.0) for alias in up) if up else None,
    }


def _forever() -> None:
    before = _look()
    while True:
        time.sleep(EVERY - time.time() % EVERY)
        close_old_connections()
        try:
            before = keep_if_possible(datetime.now(UTC), before)
        except Exception:  # it must go on, whatever happens
            logger.exception("figures_not_stored")


def _look() -> Served:
    return served.parse(page().content.decode())


def _floor(moment: datetime, step: timedelta) -> datetime:
    return moment - (moment - datetime.min.replace(tzinfo=UTC)) % step
