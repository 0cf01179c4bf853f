"""Plays plans: `python -m tests.simulation [--seed N] [--count N] [--jobs N]`.

With `--unconfirmed` both stores have the same fault, and what is judged is only that no question is there twice. The
first plans that break a promise are made smaller and printed with all that happened; `kept.py` makes tests of them.
"""

import argparse
import gc
import os
import random
import sys
import time

from tests.configured import LONG_SECRET

os.environ.update(
    DJANGO_SETTINGS_MODULE="onesource.settings",
    SECRET_KEY=LONG_SECRET,
    REDIS_URL="redis://127.0.0.1:9/0",  # named, never called
    MONGO_URL="mongodb://127.0.0.1:9/simulated",
)
SHOWN = 3  # plans that are made smaller and printed


def show(*lines: object) -> None:
    sys.stdout.writelines(f"{line}\n" for line in lines)


def repeatable() -> None:
    """Start again with hashes that do not change: the order of a set would differ from run to run."""
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]])  # noqa: S606


def main() -> None:
    import django

    django.setup()
    from tests.simulation.breaks import BREAKS
    from tests.simulation.kept import KEPT
    from tests.simulation.plays import Series, play_all

    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="processes; as many as cores")
    parser.add_argument("--show", action="store_true", help="print one run, whatever came of it")
    parser.add_argument("--unconfirmed", action="store_true", help="both stores have a fault at once")
    parser.add_argument("--broken", choices=BREAKS, help="break this rule; end when that is found")
    parser.add_argument("--kept", choices=KEPT, help="play this kept plan, with its seed and those after it")
    options = parser.parse_args()
    kept = KEPT[options.kept] if options.kept else None
    unconfirmed = kept.unconfirmed if kept else options.unconfirmed
    series = Series(options.broken, unconfirmed, kept.plan if kept else None)
    first = options.seed
    if first is None:
        first = kept.plan.seed if kept else random.randrange(10**9)
    gc.disable()  # a third of the time would go into looking at what is still in use
    series.play(series.plan(first))  # loads the modules that are imported late
    gc.collect()
    gc.freeze()  # what is there now needs no look at all
    if options.show:
        played = series.play(series.plan(first))
        show(*played.report())
        sys.exit(bool(played.wrong))
    begun = time.perf_counter()
    total = play_all(series, range(first, first + options.count), options.jobs)
    took = time.perf_counter() - begun
    for plan in total.violating[:SHOWN]:
        show(*series.smaller(plan).report(), "")
    steps, each = total.steps / total.plans, total.seconds / total.plans * 1000
    show(
        f"{total.plans} plans from seed {first} in {took:.0f} s: {len(total.violating)} violating {dict(total.kinds)}",
        f"{steps:.0f} steps and {each:.1f} ms of processor time a plan, {options.jobs} processes",
    )
    sys.exit(bool(total.violating))


repeatable()
main()
