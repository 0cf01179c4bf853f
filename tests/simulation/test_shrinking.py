"""A failing plan is made smaller, and still fails."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.simulation import plans
from tests.simulation.plans import Fault, Plan, Request
from tests.simulation.shrinking import MOST_PLAYS, shrink

SEED = 7


def a_plan() -> Plan:
    """Return one with three clients of ten requests each, and four faults."""
    faults = tuple(Fault(2.0 + number, "freeze", plans.STORES[number % 2], 3.2) for number in range(4))
    requests = tuple(
        Request(1.0 + number * 0.377, number % 3, "ask", number % plans.MACHINES, True, True) for number in range(30)
    )
    return Plan(SEED, "redis", True, 16, 3, faults, requests)


def has(*wanted: Fault | Request) -> Callable[[Plan], bool]:
    """Return what fails where these are in the plan, at about their times and whatever their client is called."""
    return lambda plan: all(any(map(like(each), (*plan.faults, *plan.requests))) for each in wanted)


def like(one: Fault | Request) -> Callable[[Fault | Request], bool]:
    return lambda other: type(one) is type(other) and one.kind == other.kind and abs(one.at - other.at) < 0.1


def test_only_what_fails_is_left() -> None:
    plan = a_plan()
    small = shrink(plan, has(plan.faults[1], plan.requests[4], plan.requests[20]))
    assert [fault.at for fault in small.faults] == [3.0]
    assert [request.at for request in small.requests] == [2.5, 8.5]


def test_clients_without_requests_are_left_out() -> None:
    plan = a_plan()
    small = shrink(plan, has(plan.requests[5]))
    assert (small.clients, [request.client for request in small.requests]) == (1, [0])


def test_what_a_request_does_not_need_is_left_out() -> None:
    plan = a_plan()
    [small] = shrink(plan, has(plan.requests[5])).requests
    assert not small.key and not small.expecting and small.machine == 0


def test_what_a_request_needs_stays() -> None:
    small = shrink(a_plan(), lambda plan: any(one.key and one.machine == 1 for one in plan.requests))
    assert [(one.key, one.machine, one.expecting) for one in small.requests] == [(True, 1, False)]


def test_a_fault_is_made_shorter() -> None:
    small = shrink(a_plan(), lambda plan: any(fault.seconds > 1.0 for fault in plan.faults))
    assert [fault.seconds for fault in small.faults] == [1.6]


@pytest.mark.parametrize("always", [True, False], ids=["all fail", "only the whole fails"])
def test_no_more_plays_than_allowed(always: bool) -> None:
    plan, played = a_plan(), []

    def fails(candidate: Plan) -> bool:
        played.append(candidate)
        return always or candidate == plan

    shrink(plan, fails)
    assert 0 < len(played) <= MOST_PLAYS
    played.clear()
    shrink(plan, fails, most=5)
    assert len(played) <= 5


def test_a_smaller_plan_may_fail_in_another_interleaving() -> None:
    whole = a_plan()
    small = shrink(whole, lambda plan: plan == whole or plan.seed == SEED + 2)
    assert (small.seed, small.faults, small.requests) == (SEED + 2, (), ())


def test_what_does_not_fail_smaller_stays_whole() -> None:
    plan = a_plan()
    assert shrink(plan, lambda candidate: candidate == plan) == plan


def test_a_printed_plan_can_be_pasted_into_a_test() -> None:
    plan = replace(plans.make(SEED), faults=(Fault(2.25, "evict", "redis"),))
    assert eval(repr(plan), {"Plan": Plan, "Fault": Fault, "Request": Request}) == plan  # noqa: S307


def test_a_printed_plan_has_its_requests() -> None:
    plan = a_plan()
    assert len(str(plan).splitlines()) == 1 + len(plan.faults) + len(plan.requests)
