"""Plays plans: `python -m tests.simulation [--seed N] [--count N]`.

With `--unconfirmed` both stores have the same fault, and what is judged is only that no question is there twice.
"""

import argparse
import gc
import os
import random
import sys
import time
from collections import Counter
from contextlib import nullcontext

from tests.configured import LONG_SECRET

os.environ.update(
    DJANGO_SETTINGS_MODULE="onesource.settings",
    SECRET_KEY=LONG_SECRET,
    REDIS_URL="redis://127.0.0.1:9/0",  # named, never called
    MONGO_URL="mongodb://127.0.0.1:9/simulated",
)


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
    from tests.simulation import plans
    from tests.simulation.breaks import BREAKS, broken
    from tests.simulation.checker import check, stored_twice
    from tests.simulation.world import World

    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--show", action="store_true")
    parser.add_argument("--unconfirmed", action="store_true")
    parser.add_argument("--broken", choices=BREAKS, help="break this rule; end when that is found")
    options = parser.parse_args()
    first = options.seed if options.seed is not None else random.randrange(10**9)
    gc.disable()  # a third of the time would go into looking at what is still in use
    begun, steps, kinds = time.perf_counter(), 0, Counter[str]()
    for seed in range(first, first + (1 if options.show else options.count)):
        world = World(plans.unconfirmed(seed) if options.unconfirmed else plans.make(seed))
        with broken(options.broken) if options.broken else nullcontext():
            world.play()
        steps += world.scheduler.steps
        if not seed % 50:
            gc.collect()
        wrong = stored_twice(world) if options.unconfirmed else check(world)
        if options.show:
            show(world.plan, *world.events, "", *wrong)
        for line in {line.split()[0] for line in wrong}:
            kinds[line] += 1
        kinds["violating"] += bool(wrong)
        if wrong and kinds["violating"] <= 5 and not options.show:
            show(world.plan, *wrong[:2])
        if wrong and options.broken:
            break
    took = time.perf_counter() - begun
    show(dict(kinds), f"{steps} steps, {steps / options.count:.0f} a run, {took / options.count * 1000:.1f} ms a run")
    sys.exit(bool(kinds["violating"]))


repeatable()
main()
