"""The figures of a run as tables, and docs/performance.md with its pictures, and what the README quotes of it.

`script/bench --write-docs` writes them after a run, `python -m benchmarks.document` again from docs/performance.json.
The words are in benchmarks/performance.md.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from string import Template
from textwrap import fill
from typing import Any

from benchmarks import pictures
from benchmarks.figures import shown, table
from benchmarks.targets import OURS, PEERS, judged
from benchmarks.turns import DISTANCE_MS

ROOT = Path(__file__).resolve().parent.parent
DOCS, README = ROOT / "docs", ROOT / "README.md"
QUOTED = re.compile(r"(?<=<!-- script/bench --write-docs -->\n).*?(?=<!-- end -->)", re.DOTALL)
WORDS = Path(__file__).with_name("performance.md")
QUOTE = """\
- One turn in a conversation of 40 messages: {ours} times the floor's time. The fastest other library, {fastest}: {a}.
- 16 clients of one process: {ours_16} of the floor's turns a second. The best other library, {quickest}: {b}.
- Over HTTP, 64 connections: {http} of the answers a second of a bare DRF view that makes the floor's turn.
"""
Figures = dict[str, Any]


def tables(figures: Figures) -> Iterator[tuple[str, str]]:
    """Yield the name and the table of each part that was measured."""
    makers = {
        "turns": _latencies, "growth": _growth, "writers": _kept, "size": _sizes, "append": _append, "memory": _memory,
        "mongo": _mongo, "dual": _dual, "distant": _dual, "http": _http,
        "waiting": lambda waiting: _http({"500": waiting}),
    }  # fmt: skip
    for name, make in makers.items():
        if name in figures:
            yield name, make(figures[name])
    for where, races in figures.get("clients", {}).items():
        yield where, _races(races)


def _latencies(figures: Figures, against: str = "floor") -> str:
    rows = [
        (name, one["p50_us"], one["p95_us"], one["turns_per_second"], one["p50_ratio"], one["p95_ratio"])
        for name, one in figures.items()
    ]
    return table(["", "p50 µs", "p95 µs", "turns/s", f"p50 × {against}", f"p95 × {against}"], rows)


def _dual(figures: Figures) -> str:
    return _latencies(figures, "slower store")


def _growth(figures: Figures) -> str:
    sizes = ("10", "40", "200", "1000")
    rows = [
        (name, *(by[size] for size in sizes), by["1000"] / by["40"], by["mean_growth"]) for name, by in figures.items()
    ]
    return table(["p50 µs", "10", "40", "200", "1,000", "1,000 ÷ 40", "the same of the mean"], rows)


def _races(figures: Figures) -> str:
    rows = [(name, one["turns_per_second"], one["ratio"]) for name, one in figures.items()]
    return table(["16 clients", "turns/s", "× floor"], rows)


def _kept(figures: Figures) -> str:
    rows = [
        (name, f"{one['messages']} of {2 * one['added']}", f"{one['turns']} of {one['added']}", one["doubled"],
         one["misplaced"], one["turns_per_second"])
        for name, one in figures.items()
    ]  # fmt: skip
    return table(["16 writers", "messages", "whole turns", "doubled", "out of order", "turns/s"], rows)


def _sizes(figures: Figures) -> str:
    return table(["", "bytes"], list(figures.items()))


def _append(one: Figures) -> str:
    kinds = (("full", one), ("not full (0 to 40 turns)", one["growing"]))
    rows = [(f"conversation {kind}", each["floor_us"], each["onesource_us"], each["ratio"]) for kind, each in kinds]
    return table(["", "floor's script, µs", "onesource, µs", "× floor"], rows)


def _memory(one: Figures) -> str:
    row = (one["conversations"], one["bytes"] / 1e6, one["bytes_of_10000"] / 1e6)
    return table(["conversations", "MB", "MB for 10,000"], [row])


def _mongo(one: Figures) -> str:
    return "\n\n".join((_latencies(one["alone"]), _races(one["threads"]), _kept(one["writers"])))


def _http(figures: Figures) -> str:
    parts = ("requests_per_second", "p50_ms", "p95_ms", "p99_ms", "not_200", "ratio", "least_ratio", "most_ratio")
    rows = [
        (number, name, *(one[part] for part in parts))
        for number, servers in figures.items()
        for name, one in servers.items()
    ]
    head = ["connections", "", "requests/s", "p50 ms", "p95 ms", "p99 ms", "not 200", "ratio", "least", "most"]
    return table(head, rows)


def _targets(figures: Figures) -> str:
    return table(["", "target", "measured", ""], [target.cells() for target in judged(figures)])


def for_terminal(figures: Figures) -> str:
    """Return everything that was measured."""
    parts = [f"{name}\n\n{content}" for name, content in tables(figures)]
    return "\n\n".join([*parts, f"targets\n\n{_targets(figures)}"])


def drawn(figures: Figures) -> Iterator[tuple[str, str]]:
    """Yield the name and the picture of each part that has one."""
    turns = {name: one["p50_us"] / 1000 for name, one in figures["turns"].items()}
    yield "turns", pictures.bars("One turn in Redis, 40 messages", "median in milliseconds; shorter is better", turns)
    longer = {
        name: {int(size): us / 1000 for size, us in by.items() if size.isdigit()}
        for name, by in figures["growth"].items()
        if name not in ("onesource, store", "onesource, chat")
    }
    note = "median of one turn in milliseconds, by stored messages; lower is better"
    yield "growth", pictures.lines("Longer conversations", note, longer)
    for where, title in (("threads", "16 threads of one process"), ("processes", "16 clients in four processes")):
        races = {name: one["turns_per_second"] for name, one in figures["clients"][where].items()}
        yield where, pictures.bars(title, "turns a second; longer is better", races)
    asked = {
        f"{name}, {number}": one["requests_per_second"]
        for number, servers in figures["http"].items()
        for name, one in servers.items()
    }
    yield "http", pictures.bars("Over HTTP, by connections", "requests a second; longer is better", asked)


def write(figures: Figures) -> None:
    """Write docs/performance.md, its pictures, and the figures that both are of."""
    images = DOCS / "images"
    images.mkdir(exist_ok=True)
    for name, picture in drawn(figures):
        (images / f"performance-{name}.svg").write_text(picture)
    (DOCS / "performance.json").write_text(f"{json.dumps(figures, indent=1)}\n")
    (DOCS / "performance.md").write_text(page(figures))
    README.write_text(QUOTED.sub(lambda _: quoted(figures), README.read_text()))


def page(figures: Figures) -> str:
    return Template(WORDS.read_text()).substitute(
        dict(tables(figures)),
        distance=DISTANCE_MS,
        machine=_machine(figures["about"]),
        summary=_summary(figures),
        targets=_targets(figures),
    )


def quoted(figures: Figures) -> str:
    """Return the three lines that the README has of it."""
    turns, threads, http = figures["turns"], figures["clients"]["threads"], figures["http"]["64"][OURS]
    fastest = min(PEERS, key=lambda peer: turns[peer]["p50_ratio"])
    quickest = max(PEERS, key=lambda peer: threads[peer]["ratio"])
    parts = {
        "ours": turns[OURS]["p50_ratio"], "a": turns[fastest]["p50_ratio"], "ours_16": threads[OURS]["ratio"],
        "b": threads[quickest]["ratio"], "http": http["ratio"],
    }  # fmt: skip
    return QUOTE.format(fastest=fastest, quickest=quickest, **{name: shown(value) for name, value in parts.items()})


def _machine(about: Figures) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    return fill(
        f"Machine: {about['cores']} cores and {about['memory_gb']} GB of memory, shared by client, servers and stores;"
        f" load average before the run {about['load']:.1f}, 0 where nothing else runs."
        f" {about['rounds']} rounds of {about['turns']} turns."
        f" Python {about['python']}, Redis {about['redis']}, {versions}.",
        140,
    )


def _summary(figures: Figures) -> str:
    every = judged(figures)
    missed = [f"{one.name}: {shown(one.measured)}" for one in every if not one.met]
    text = f"{len(every) - len(missed)} of {len(every)} are met."
    return fill(f"{text} Missed: {'; '.join(missed)}." if missed else text, 140)


if __name__ == "__main__":
    write(json.loads((DOCS / "performance.json").read_text()))
