"""Makes a failing plan smaller: without the clients, requests and faults that it fails without, shorter and rounder.

In the manner of Zeller's delta debugging: parts are left out, many at a time and then one by one, and stay out where
the plan still fails. A smaller plan has another interleaving, in which it may fail no more; where nothing else can be
left out, it is tried in some others too, each with a seed of its own.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from tests.simulation.plans import Fault, Plan, Request

T = TypeVar("T", int, Fault, Request)
MOST_PLAYS = 200
SEEDS = 4


def shrink(plan: Plan, fails: Callable[[Plan], bool], most: int = MOST_PLAYS) -> Plan:
    """Return a smaller plan that fails too, after so many plays at most; the plan itself where there is none."""
    shrinking = _Shrinking(plan, fails, most)
    for shrinking.seeds in (1, SEEDS):
        before = None
        while shrinking.plan != before:
            before = shrinking.plan
            shrinking.leave_out(range(before.clients), _with_clients)
            shrinking.leave_out(shrinking.plan.faults, _with_faults)
            shrinking.leave_out(shrinking.plan.requests, _with_requests)
            shrinking.simplify()
    return shrinking.plan


class _Shrinking:
    """The smallest plan so far, and how many plays are left."""

    def __init__(self, plan: Plan, fails: Callable[[Plan], bool], most: int) -> None:
        self.plan = plan
        self.seeds = 1
        """How many seeds a smaller plan is tried with."""
        self._fails = fails
        self._left = most

    def leave_out(self, parts: Sequence[T], with_only: Callable[[Plan, Sequence[T]], Plan]) -> None:
        """Leave out as many of the parts as possible. The last go first: what happens before stays as it was."""
        parts = list(parts)
        size = len(parts)
        while size:
            for start in range(len(parts) - size, -size, -size):
                rest = parts[: max(start, 0)] + parts[start + size :]
                if self._take(with_only(self.plan, rest)):
                    parts = rest
            size //= 2

    def simplify(self) -> None:
        """Make what is left shorter and rounder."""
        for change in (_numbered, _rounded, *_PLAIN):
            self._take(change(self.plan))
        for number in range(len(self.plan.faults)):
            while self._take(_halved(self.plan, number)):
                pass

    def _take(self, plan: Plan) -> bool:
        """Go on with this plan, if it is another one and fails with one of its seeds; return whether it does."""
        if plan == self.plan:
            return False
        for seed in range(plan.seed, plan.seed + self.seeds):
            if self._left and self._try(replace(plan, seed=seed)):
                return True
        return False

    def _try(self, plan: Plan) -> bool:
        self._left -= 1
        if failed := self._fails(plan):
            self.plan = plan
        return failed


def _with_clients(plan: Plan, clients: Sequence[int]) -> Plan:
    return replace(plan, requests=tuple(each for each in plan.requests if each.client in clients))


def _with_faults(plan: Plan, faults: Sequence[Fault]) -> Plan:
    return replace(plan, faults=tuple(faults))


def _with_requests(plan: Plan, requests: Sequence[Request]) -> Plan:
    return replace(plan, requests=tuple(requests))


def _numbered(plan: Plan) -> Plan:
    """Number the clients that have requests."""
    numbers = {client: number for number, client in enumerate(sorted({each.client for each in plan.requests}))}
    requests = tuple(replace(each, client=numbers[each.client]) for each in plan.requests)
    return replace(plan, clients=len(numbers), requests=requests)


def _rounded(plan: Plan) -> Plan:
    faults = tuple(replace(each, at=round(each.at, 1), seconds=round(each.seconds, 1)) for each in plan.faults)
    return replace(plan, faults=faults, requests=tuple(replace(each, at=round(each.at, 1)) for each in plan.requests))


def _all(**changes: Any) -> Callable[[Plan], Plan]:
    return lambda plan: replace(plan, requests=tuple(replace(each, **changes) for each in plan.requests))


_PLAIN = (_all(key=False), _all(expecting=False), _all(machine=0))


def _halved(plan: Plan, number: int) -> Plan:
    """Let the fault of this number last half as long, or be half as far back or off."""
    faults = list(plan.faults)
    faults[number] = replace(faults[number], seconds=round(faults[number].seconds / 2, 1))
    return replace(plan, faults=tuple(faults))
