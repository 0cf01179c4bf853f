"""The charts of the last day: steps in SVG, each with its words, for a page in any colours."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from ops.status import limits
from ops.status.day import STEP, Point

HEIGHT = 100.0
"""Of the drawing, whose width is the number of points; the page stretches both."""
_MEGABYTE = 1_048_576.0


@dataclass(frozen=True, slots=True)
class Chart:
    """One figure over a day."""

    key: str
    name: str
    now: str
    worst: str
    words: str
    """What the drawing shows, for who does not see it."""
    top: str
    """What the upper edge stands for; the lower one is zero."""
    width: int
    line: str
    """The path of the steps; it has no part where there is no figure."""
    area: str
    gaps: tuple[tuple[int, int], ...]
    """Where there is no figure: first point and number."""
    limit: float | None
    """The height of the line of what is normal, None where it is above the drawing."""


@dataclass(frozen=True, slots=True)
class _Kind:
    key: str
    name: str
    value: Callable[[Point], float | None]
    form: str
    limit: float | None = None
    least_is_worst: bool = False
    top: float | None = None


_KINDS = (
    _Kind("p95", "P95 latency", lambda one: one.p95_ms, "{:.1f} ms", limit=limits.P95_MS),
    _Kind("memory", "Redis memory", lambda one: _part(one.memory_bytes, _MEGABYTE), "{:,.1f} MB"),
    _Kind("hits", "Hit rate", lambda one: _part(one.hit_rate, 0.01), "{:.1f} %", 100 * limits.HIT_RATE, True, 100.0),
    _Kind("errors", "Persist errors", lambda one: one.persist_errors, "{:.0f} in 5 min"),
    _Kind("unsynced", "Unsynced conversations", lambda one: one.unsynced, "{:.0f}"),
)


def charts(points: Sequence[Point]) -> list[Chart]:
    """Return a chart of each figure."""
    return [_chart(kind, [kind.value(point) for point in points], [point.at for point in points]) for kind in _KINDS]


def table(points: Sequence[Point]) -> tuple[list[str], list[tuple[datetime, list[str]]]]:
    """Return the names of the figures, and a row of each point that has any, the newest first."""
    rows = [(point.at, [_text(kind, kind.value(point), "-") for kind in _KINDS]) for point in reversed(points)]
    return [kind.name for kind in _KINDS], [row for row in rows if set(row[1]) != {"-"}]


def _chart(kind: _Kind, values: list[float | None], times: list[datetime]) -> Chart:
    known = [(value, at) for value, at in zip(values, times, strict=True) if value is not None]
    top = kind.top or _round_up(max((value for value, _ in known), default=0.0))
    heights = [None if value is None else HEIGHT * (1 - value / top) for value in values]
    pieces, gaps = _runs(heights)
    worst, worst_at = (min if kind.least_is_worst else max)(known, default=(None, times[-1]))
    now, named = _text(kind, values[-1], "not known"), "lowest" if kind.least_is_worst else "highest"
    most = f"{named} {_text(kind, worst, 'not known')}"
    limit = None if kind.limit is None or kind.limit > top else HEIGHT * (1 - kind.limit / top)
    words = [f"{times[0]:%H:%M} to {times[-1] + STEP:%H:%M} UTC in steps of five minutes: now {now}, {most}"]
    words += [f" at {worst_at:%H:%M}"] if known else []
    words += [f"; nothing is known of {len(values) - len(known)} of {len(values)} steps"] * (len(known) < len(values))
    return Chart(
        key=kind.key,
        name=kind.name,
        now=now,
        worst=most,
        words="".join(words) + ".",
        top=_text(kind, top, ""),
        width=len(values),
        line="".join(_steps(first, piece) for first, piece in pieces),
        area="".join(f"{_steps(first, piece)}V{HEIGHT:g}H{first}Z" for first, piece in pieces),
        gaps=tuple(gaps),
        limit=limit,
    )


def _runs(heights: list[float | None]) -> tuple[list[tuple[int, list[float]]], list[tuple[int, int]]]:
    """Return where there are figures, as first point and heights, and where there are none."""
    pieces: list[tuple[int, list[float]]] = []
    gaps: list[tuple[int, int]] = []
    for number, height in enumerate(heights):
        if height is None:
            first, length = gaps[-1] if gaps else (-1, 0)
            if first + length == number:
                gaps[-1] = (first, length + 1)
            else:
                gaps.append((number, 1))
        elif pieces and pieces[-1][0] + len(pieces[-1][1]) == number:
            pieces[-1][1].append(height)
        else:
            pieces.append((number, [height]))
    return pieces, gaps


def _steps(first: int, heights: list[float]) -> str:
    path = [f"M{first} {heights[0]:.1f}"]
    for number, height in enumerate(heights, first + 1):
        path.append(f"V{height:.1f}H{number}")
    return "".join(path)


def _round_up(value: float) -> float:
    """Return the next 1, 2 or 5 with zeros, at least 1."""
    scale = 1.0
    while True:
        for digit in (1, 2, 5):
            if value <= digit * scale:
                return digit * scale
        scale *= 10


def _part(value: float | None, of: float) -> float | None:
    return None if value is None else value / of


def _text(kind: _Kind, value: float | None, unknown: str) -> str:
    return unknown if value is None else kind.form.format(value)
