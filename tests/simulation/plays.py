"""Plays series of plans, in several processes where that is wanted, and makes those smaller that break a promise."""

import gc
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from multiprocessing import get_context
from pprint import pformat

from tests.answers import Event
from tests.simulation import plans
from tests.simulation.breaks import broken
from tests.simulation.checker import check, stored_twice
from tests.simulation.plans import Plan
from tests.simulation.shrinking import shrink
from tests.simulation.world import World

BLOCK = 50  # plans that a process plays before it reports
_played = count(1)


@dataclass(frozen=True)
class Played:
    """What came of one plan."""

    plan: Plan
    events: list[Event]
    wrong: list[str]
    """The promises that did not hold, one line each."""
    steps: int

    @property
    def kinds(self) -> set[str]:
        """What went wrong, by the first words of the lines."""
        return {line.split()[0] for line in self.wrong}

    def report(self) -> list[str]:
        """Return the plan, what happened, what did not hold, and the plan as a test has it."""
        happened = ["", *map(str, self.events), "", *self.wrong]
        return [str(self.plan), *happened, "", pformat(self.plan, width=116)]


@dataclass(frozen=True)
class Series:
    """Plans that are played and judged in the same way, one for each seed."""

    rule: str | None = None
    """A rule that is broken on purpose; the first plan that shows it ends its block."""
    unconfirmed: bool = False
    """Whether both stores have the same fault; what is judged then is only that no question is there twice."""
    kept: Plan | None = None
    """A plan to play with each seed, instead of one that the seed makes."""

    def plan(self, seed: int) -> Plan:
        if self.kept:
            return replace(self.kept, seed=seed)
        return plans.unconfirmed(seed) if self.unconfirmed else plans.make(seed)

    def play(self, plan: Plan) -> Played:
        world = World(plan)
        wrong = []
        with broken(self.rule) if self.rule else nullcontext():
            try:
                world.play()
            except Exception:
                wrong.append(f"raised {traceback.format_exc()}")
        wrong += stored_twice(world) if self.unconfirmed else check(world)
        if not next(_played) % BLOCK:
            gc.collect()
        return Played(plan, world.events, wrong, world.scheduler.steps)

    def smaller(self, plan: Plan) -> Played:
        """Return a smaller plan that breaks a promise of the same kind, and what came of it."""
        kind = self.play(plan).wrong[0].split()[0]
        return self.play(shrink(plan, lambda smaller: kind in self.play(smaller).kinds))


@dataclass
class Block:
    """What came of some plans."""

    plans: int = 0
    steps: int = 0
    seconds: float = 0.0
    """Of processor time."""
    kinds: Counter[str] = field(default_factory=Counter)
    violating: list[Plan] = field(default_factory=list)

    def add(self, other: "Block") -> None:
        self.plans += other.plans
        self.steps += other.steps
        self.seconds += other.seconds
        self.kinds += other.kinds
        self.violating += other.violating


def _play(series: Series, seeds: range) -> Block:
    block, begun = Block(), time.process_time()
    for seed in seeds:
        played = series.play(series.plan(seed))
        block.plans += 1
        block.steps += played.steps
        block.kinds.update(played.kinds)
        if played.wrong:
            block.violating.append(played.plan)
            if series.rule:
                break
    block.seconds = time.process_time() - begun
    return block


def play_all(series: Series, seeds: range, jobs: int) -> Block:
    """Play the plans of these seeds, in so many processes; where a rule is broken, until one shows it."""
    total = Block()
    for block in _blocks(series, [seeds[start : start + BLOCK] for start in range(0, len(seeds), BLOCK)], jobs):
        total.add(block)
        if series.rule and total.violating:
            break
    return total


def _blocks(series: Series, parts: list[range], jobs: int) -> Iterator[Block]:
    """Yield the blocks in the order of their seeds."""
    if jobs == 1:
        yield from (_play(series, seeds) for seeds in parts)
        return
    with get_context("fork").Pool(min(jobs, len(parts))) as pool:
        yield from pool.imap(partial(_play, series), parts)
