"""One turn: the floor of the driver, onesource and its peers by turns on the same stores, alone and by 16 clients.

Each part returns figures for JSON. Ratios are medians over rounds: in a round every contender is measured, in random
order, so that a slow minute of the machine counts for all.
"""

import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks import loads
from benchmarks.contenders import CONTENDERS, DUAL, FLOOR, IN_MONGO, IN_REDIS, MONGO_FLOOR
from benchmarks.figures import median_ratio, percentile
from benchmarks.service import PROCESSES, Stack
from conversations.stores.redis.room import beyond
from conversations.turns import Limits

MESSAGES = 40
GROWTH = (10, 40, 200, 1000)
CLIENTS = 16
WRITERS = 16
FEW_EACH = 10  # of agno, which reads every turn by a command of its own
RACE_TURNS = 30  # of each client
DISTANCE_MS = 20  # of a round trip
GROWING = 40  # turns that a conversation has at last
FEW_TURNS = 8  # of a contender that does not trim: it is filled anew before
SOON = 0.05  # seconds until every process is waiting
Figures = dict[str, Any]


@dataclass(frozen=True)
class Amount:
    """How much is measured."""

    rounds: int
    turns: int
    """Of each contender in each round."""
    each: int
    """Turns of each of 16 writers."""
    conversations: int
    seconds: float
    """Of each load over HTTP."""


FULL = Amount(rounds=6, turns=54, each=50, conversations=10_000, seconds=2.0)
QUICK = Amount(rounds=3, turns=21, each=10, conversations=1_000, seconds=1.0)


def whole_cycles(turns: int, messages: int) -> int:
    """Return how many turns to measure of a conversation of so many messages, at least so many: whole cycles, in each
    of which onesource's room beyond the turns that readers see is used up once."""
    limits = Limits(0, messages // 2, 0)
    cycle = beyond(limits)
    return -(-turns // cycle) * cycle


def by_turns(names: Sequence[str], rounds: int, measure: Callable[[str], Any]) -> dict[str, list[Any]]:
    """Return for each contender what was measured in each round."""
    found: dict[str, list[Any]] = {name: [] for name in names}
    for name in names:
        measure(name)  # imports, connects, compiles
    for _ in range(rounds):
        for name in random.sample(names, len(names)):
            found[name].append(measure(name))
    return found


def latencies(stack: Stack, names: Sequence[str], floor: str, messages: int, amount: Amount) -> Figures:
    """Return for each contender its percentiles in microseconds, beside the floor's."""
    trimming = whole_cycles(amount.turns, messages)
    few = min(amount.turns, 6) if messages > MESSAGES else amount.turns  # it takes long to fill what does not trim
    found = by_turns(
        names,
        amount.rounds,
        lambda name: stack.first(loads.alone, name, messages, trimming if CONTENDERS[name].trims else few),
    )
    return {name: _latency(found[name], found[floor]) for name in names}


def _latency(own: list[list[float]], floor: list[list[float]]) -> Figures:
    every = [seconds for one in own for seconds in one]
    figures: Figures = {
        "turns_per_second": len(every) / sum(every),
        "mean_us": statistics.median(map(statistics.fmean, own)) * 1e6,
    }
    for name, part in (("p50", 0.5), ("p95", 0.95)):
        rounds = [[percentile(one, part) for one in each] for each in (own, floor)]
        figures[f"{name}_us"] = percentile(every, part) * 1e6
        figures[f"{name}_ratio"] = median_ratio(*rounds)
    return figures


def turns(stack: Stack, amount: Amount) -> Figures:
    return latencies(stack, IN_REDIS, FLOOR, MESSAGES, amount)


def growth(stack: Stack, amount: Amount) -> Figures:
    """Return the median in microseconds by number of stored messages, and by how much the mean grows from 40 to 1,000:
    in that is what a conversation's string costs where it is cut, which few turns pay."""
    fewer = Amount(max(2, amount.rounds // 2), max(8, amount.turns // 3), 0, 0, 0)
    sizes = {size: latencies(stack, IN_REDIS, FLOOR, size, fewer) for size in GROWTH}
    return {
        name: {
            **{str(size): sizes[size][name]["p50_us"] for size in GROWTH},
            "mean_growth": sizes[1000][name]["mean_us"] / sizes[40][name]["mean_us"],
        }
        for name in IN_REDIS
    }


def clients(stack: Stack, amount: Amount) -> Figures:
    return {
        "threads": races(stack, IN_REDIS, FLOOR, amount, processes=1),
        "processes": races(stack, IN_REDIS, FLOOR, amount, processes=PROCESSES),
    }


def races(stack: Stack, names: Sequence[str], floor: str, amount: Amount, processes: int) -> Figures:
    """Return for each contender the turns a second of 16 clients, in so many processes."""
    found = by_turns(names, amount.rounds, lambda name: race(stack, name, processes))
    return {
        name: {"turns_per_second": statistics.median(found[name]), "ratio": median_ratio(found[name], found[floor])}
        for name in names
    }


def race(stack: Stack, name: str, processes: int) -> float:
    """Return the turns a second."""
    each = CLIENTS // processes
    turns = RACE_TURNS if CONTENDERS[name].trims else FEW_TURNS
    racing = stack.processes[:processes]
    for work, more in ((loads.get_ready, (MESSAGES, each)), (loads.race, (each, turns))):
        at = (time.monotonic() + SOON,) if work is loads.race else ()
        for number, process in enumerate(racing):
            process.begin(work, number, name, *more, *at)
        answers = [process.answer() for process in racing]
    took = max(ended for _, ended in answers) - min(begun for begun, _ in answers)
    return CLIENTS * turns / took


def writers(stack: Stack, amount: Amount) -> Figures:
    """Return what is kept of what 16 clients added to one conversation at the same time."""
    names = [name for name in IN_REDIS if name not in ("onesource, store", "onesource, chat")]
    return {
        name: stack.first(loads.writers, name, WRITERS, FEW_EACH if name == "agno" else amount.each) for name in names
    }


def size(stack: Stack, amount: Amount) -> Figures:
    """Return the bytes in Redis of one conversation."""
    names = [name for name in IN_REDIS if name not in ("onesource", "onesource, chat")]
    return {name: stack.first(loads.size, name, MESSAGES) for name in names}


def append(stack: Stack, amount: Amount) -> Figures:
    """Return the microseconds that an append takes inside Redis, by its own count: to a full conversation, and to one
    that grows from none to 40 turns."""
    number = amount.turns * 8
    return {
        **_inside(stack, loads.appends, (MESSAGES, whole_cycles(number, MESSAGES)), amount.rounds),
        "growing": _inside(stack, loads.growing, (GROWING, max(1, number // GROWING)), amount.rounds),
    }


def _inside(stack: Stack, work: Callable[..., int], arguments: tuple[int, int], rounds: int) -> Figures:
    found = by_turns((FLOOR, "onesource, store"), rounds, lambda name: _inside_once(stack, work, name, *arguments))
    ours, floor = found["onesource, store"], found[FLOOR]
    return {
        "floor_us": statistics.median(floor),
        "onesource_us": statistics.median(ours),
        "ratio": median_ratio(ours, floor),
    }


def _inside_once(stack: Stack, work: Callable[..., int], name: str, size: int, times: int) -> float:
    stack.first(work, name, size, 0)  # fills the conversation
    with stack.redis.client() as client:
        client.config_resetstat()
        number = stack.first(work, name, size, times)
        stats: Any = client.info("commandstats")
    # A script's time has that of its commands in it.
    scripts = [one for command, one in stats.items() if command in ("cmdstat_evalsha", "cmdstat_eval", "cmdstat_fcall")]
    counted = scripts if sum(one["calls"] for one in scripts) >= number else stats.values()
    return float(sum(one["usec"] for one in counted)) / number


def memory(stack: Stack, amount: Amount) -> Figures:
    """Return by how many bytes Redis' `used_memory` grows with so many conversations of 16 turns."""
    with stack.redis.client() as client:
        before: Any = client.info("memory")
        stack.first(loads.conversations, amount.conversations, 32)
        after: Any = client.info("memory")
    grown = after["used_memory"] - before["used_memory"]
    return {
        "conversations": amount.conversations,
        "bytes": grown,
        "bytes_of_10000": grown * 10_000 / amount.conversations,
    }


def mongo(stack: Stack, amount: Amount) -> Figures:
    fewer = Amount(amount.rounds, max(8, amount.turns // 3), 0, 0, 0)
    return {
        "alone": latencies(stack, IN_MONGO, MONGO_FLOOR, MESSAGES, fewer),
        "threads": races(stack, IN_MONGO, MONGO_FLOOR, amount, processes=1),
        "writers": {
            name: stack.first(loads.writers, name, WRITERS, amount.each)
            for name in IN_MONGO
            if name != "onesource, MongoDB store"
        },
    }


def dual(stack: Stack, amount: Amount) -> Figures:
    """Return dual write beside the slower of its stores alone."""
    fewer = Amount(amount.rounds, max(8, amount.turns // 2), 0, 0, 0)
    return latencies(stack, DUAL, DUAL[1], MESSAGES, fewer)


def distant(stack: Stack, amount: Amount) -> Figures:
    """Return the same where the stores answer equally late, by DISTANCE_MS: whether dual write takes the time of one
    or the sum."""
    fewer = Amount(amount.rounds, max(8, amount.turns // 4), 0, 0, 0)
    return latencies(stack, DUAL, DUAL[1], MESSAGES, fewer)
