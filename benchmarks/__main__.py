"""`script/bench`: measure onesource beside the driver alone and beside other libraries."""

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from benchmarks import document, http, turns
from benchmarks.service import Stack, versions
from benchmarks.targets import judged
from benchmarks.turns import FULL, QUICK, Amount, Figures

PACKAGES = (
    "redis", "orjson", "pymongo", "Django", "djangorestframework", "django-redis", "uvicorn", "SecantusDB",
    "llama-index-storage-chat-store-redis", "langchain-community", "openai-agents", "agno", "langchain-mongodb",
)  # fmt: skip
Part = Callable[[Stack, Amount], Figures]
IN_REDIS: dict[str, Part] = {
    "turns": turns.turns,
    "growth": turns.growth,
    "clients": turns.clients,
    "writers": turns.writers,
    "size": turns.size,
    "append": turns.append,
    "memory": turns.memory,
}
IN_MONGO: dict[str, Part] = {"mongo": turns.mongo}
DUAL: dict[str, Part] = {"dual": turns.dual}
DISTANT: dict[str, Part] = {"distant": turns.distant}
OVER_HTTP = {"http": http.instant, "waiting": http.waiting}
PARTS = (*IN_REDIS, *IN_MONGO, *DUAL, *DISTANT, *OVER_HTTP)


def arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="script/bench",
        description="Measure onesource beside the driver alone and beside other libraries.",
        epilog=f"Parts: {', '.join(PARTS)}. Exit code 0: every target was met; 1: one was missed; 2: it could not run.",
    )
    parser.add_argument("--only", metavar="NAME", help="measure only the parts that have this in their name")
    parser.add_argument("--quick", action="store_true", help="few rounds: shows that it works, and little more")
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="report as JSON")
    output.add_argument("--write-docs", action="store_true", help="write docs/performance.md and its pictures")
    return parser.parse_args(words)


def measure(chosen: Sequence[str], amount: Amount, home: Path, progress: Console) -> Figures:
    """Return the figures of the chosen parts."""
    figures: Figures = {"about": {}}
    load = os.getloadavg()[0]  # of other work: ours has not begun
    for stack_name, parts, distance_ms, variables in (
        ("redis", IN_REDIS, 0, {}),
        ("mongo", IN_MONGO, 0, {"CONV_STORE_PRIMARY": "mongo"}),
        ("dual", DUAL, 0, {"CONV_DUAL_WRITE": "1"}),
        ("distant", DISTANT, turns.DISTANCE_MS, {"CONV_DUAL_WRITE": "1"}),
    ):
        names = [name for name in parts if name in chosen]
        if not names:
            continue
        processes = 4 if "clients" in names else 1
        with Stack(home / stack_name, processes, distance_ms, **variables) as stack:
            for name in names:
                say(progress, name)
                figures[name] = parts[name](stack, amount)
            figures["about"] = about(stack, amount, load)
    for name in OVER_HTTP:
        if name in chosen:
            say(progress, name)
            folder = home / name
            folder.mkdir()
            figures[name] = OVER_HTTP[name](folder, amount)
    return figures


def about(stack: Stack, amount: Amount, load: float) -> Figures:
    """Return what the figures are of: no name of a machine."""
    with stack.redis.client() as client:
        server: Any = client.info("server")
    return {
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30),
        "python": platform.python_version(),
        "redis": server["redis_version"],
        "load": load,
        "rounds": amount.rounds,
        "turns": amount.turns,
        "versions": versions(PACKAGES),
    }


def say(progress: Console, name: str) -> None:
    if progress.is_terminal:
        progress.print(f"{PARTS.index(name) + 1}/{len(PARTS)} {name}", highlight=False)


def main(words: Sequence[str]) -> int:
    options = arguments(words)
    chosen = [name for name in PARTS if not options.only or options.only in name]
    if not chosen:
        sys.stderr.write(f"script/bench: no part is called {options.only}; there are: {', '.join(PARTS)}\n")
        return 2
    if options.write_docs and len(chosen) < len(PARTS):
        sys.stderr.write("script/bench: --write-docs needs every part\n")
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(2))  # by way of `finally`, which stops what runs
    try:
        with tempfile.TemporaryDirectory(prefix="onesource-bench-") as home:
            figures = measure(chosen, QUICK if options.quick else FULL, Path(home), Console(stderr=True))
    except Exception as error:
        sys.stderr.write(f"script/bench: could not run: {type(error).__name__}: {error}\n")
        return 2
    if options.write_docs:
        document.write(figures)
    targets = [dict(zip(("name", "target", "measured"), target.cells(), strict=False)) | {"met": target.met}
               for target in judged(figures)]  # fmt: skip
    sys.stdout.write(
        f"{json.dumps(figures | {'targets': targets}) if options.json else document.for_terminal(figures)}\n"
    )
    return 0 if all(target["met"] for target in targets) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
