"""Pictures as plain SVG, readable on a light and on a dark page."""

import math
from collections.abc import Mapping, Sequence
from html import escape

from benchmarks.figures import shown

WIDTH, LEFT, RIGHT, ROW, TOP = 760, 210, 90, 30, 64
STYLE = """<style>
  text { font: 14px system-ui, sans-serif; fill: #1f2328 }
  .title { font-weight: 600; font-size: 16px }
  .note { fill: #59636e; font-size: 12px }
  .page { fill: #ffffff } .bar { fill: #8c959f } .ours { fill: #0969da }
  .line { fill: none; stroke: #8c959f; stroke-width: 2 } .line.ours { stroke: #0969da; stroke-width: 3; fill: none }
  .grid { stroke: #d1d9e0 }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc } .note { fill: #9198a1 } .page { fill: #0d1117 }
    .bar { fill: #656c76 } .ours { fill: #4493f8 }
    .line { stroke: #656c76 } .line.ours { stroke: #4493f8 } .grid { stroke: #3d444d }
  }
</style>"""


def is_ours(name: str) -> bool:
    return name.startswith("onesource") or name == "dual write"


def bars(title: str, note: str, values: Mapping[str, float]) -> str:
    """Return a picture with a bar for each value, the number beside it."""
    most = max(values.values())
    room = WIDTH - LEFT - RIGHT
    parts = []
    for row, (name, value) in enumerate(values.items()):
        y, width = TOP + row * ROW, max(1.0, room * value / most)
        kind = "ours" if is_ours(name) else "bar"
        parts += [
            _text(LEFT - 10, y + 16, name, anchor="end"),
            f'<rect class="{kind}" x="{LEFT}" y="{y}" width="{width:.1f}" height="22" rx="3"/>',
            _text(LEFT + width + 8, y + 16, shown(value)),
        ]
    return _picture(title, note, TOP + len(values) * ROW + 12, parts)


def lines(title: str, note: str, series: Mapping[str, Mapping[int, float]]) -> str:
    """Return a picture with a line for each series, both axes logarithmic, its name at the line's end."""
    height, bottom = 400, 360
    xs = sorted({x for points in series.values() for x in points})
    ys = [y for points in series.values() for y in points.values()]
    low, high = math.log(min(ys)), math.log(max(ys))
    left, right = 70, WIDTH - 170

    def place(x: float, y: float) -> tuple[float, float]:
        across = (math.log(x) - math.log(xs[0])) / (math.log(xs[-1]) - math.log(xs[0]))
        return left + across * (right - left), bottom - (math.log(y) - low) / (high - low) * (bottom - TOP)

    parts = []
    for x in xs:
        at, _ = place(x, min(ys))
        parts += [f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{bottom}"/>']
        parts += [_text(at, bottom + 20, f"{x:,}", anchor="middle", kind="note")]
    for y in _decades(min(ys), max(ys)):
        _, at = place(xs[0], y)
        parts += [f'<line class="grid" x1="{left}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>']
        parts += [_text(left - 8, at + 4, shown(y), anchor="end", kind="note")]
    ends = _apart({name: place(max(points), points[max(points)])[1] for name, points in series.items()})
    for name, points in series.items():
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in sorted(points.items())))
        parts += [f'<polyline class="line{" ours" if is_ours(name) else ""}" points="{path}"/>']
        parts += [_text(right + 8, ends[name] + 5, name)]
    return _picture(title, note, height, parts)


def _decades(low: float, high: float) -> Sequence[float]:
    steps = [digit * 10.0**power for power in range(-3, 9) for digit in (1, 3)]
    return [step for step in steps if low <= step <= high]


def _apart(places: dict[str, float], least: float = 17.0) -> dict[str, float]:
    """Return the heights of the names, moved so that none covers another."""
    found: dict[str, float] = {}
    last = -math.inf
    for name, y in sorted(places.items(), key=lambda item: item[1]):
        last = max(y, last + least)
        found[name] = last
    return found


def _text(x: float, y: float, text: str, *, anchor: str = "start", kind: str = "") -> str:
    marked = f' class="{kind}"' if kind else ""
    return f'<text{marked} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _picture(title: str, note: str, height: int, parts: Sequence[str]) -> str:
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>{escape(title)}</title>",
        STYLE,
        f'<rect class="page" width="{WIDTH}" height="{height}" rx="6"/>',
        _text(16, 26, title, kind="title"),
        _text(16, 46, note, kind="note"),
    ]
    return "\n".join([*head, *parts, "</svg>", ""])
