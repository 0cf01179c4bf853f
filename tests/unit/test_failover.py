"""The policy as one table a decision, a comment a row."""

import pytest

from conversations.policy import (
    BEHIND,
    FULL,
    Inputs,
    Routing,
    Switch,
    context,
    follow,
    plan_read,
    plan_write,
)

R, M = "redis", "mongo"
BOTH, NONE = frozenset({R, M}), frozenset[str]()
REDIS, MONGO = Routing(R, False), Routing(M, False)
DUAL, DUAL_MONGO = Routing(R, True), Routing(M, True)


@pytest.mark.parametrize(
    ("facts", "order", "merge"),
    [
        (Inputs(REDIS), (R, M), False),  # the primary first, the other only when needed
        (Inputs(DUAL), (R, M), False),
        (Inputs(MONGO), (M, R), True),  # with MongoDB as primary Redis is always read too
        (Inputs(REDIS, may_have_more=frozenset({M})), (R, M), True),  # not in step: both, merged
        (Inputs(REDIS, recovering=True), (R, M), True),  # another machine may still pass Redis over
        (Inputs(REDIS, readable=frozenset({M})), (M,), False),  # Redis out: nobody waits for it
        (Inputs(REDIS, readable=frozenset({M}), may_have_more=frozenset({M})), (M,), False),  # nothing to merge with
        (Inputs(MONGO, readable=frozenset({M})), (M,), False),
        (
            Inputs(REDIS, readable=frozenset({R}), may_have_more=frozenset({M})),
            (R, M),
            True,
        ),  # no breaker keeps us from it
        (Inputs(REDIS, readable=NONE), (), False),  # only the last resort is left
    ],
)
def test_whom_to_ask(facts: Inputs, order: tuple[str, ...], merge: bool) -> None:
    plan = plan_read(facts)
    assert (plan.order, plan.merge) == (order, merge)
    assert sorted(plan.order + plan.last_resort) == [M, R]


@pytest.mark.parametrize(
    ("facts", "failed", "order", "passed_over"),
    [
        (Inputs(REDIS), NONE, (R, M), ()),
        (Inputs(REDIS), frozenset({R}), (M,), (R,)),  # it failed to be read: not paid for twice
        (Inputs(REDIS, writable=frozenset({M})), NONE, (M,), (R,)),  # full or read-only
        (Inputs(REDIS, writable=frozenset({R})), NONE, (R,), ()),  # nobody misses the fallback
        (Inputs(DUAL, writable=frozenset({R})), NONE, (R,), (M,)),  # dual write does
        (Inputs(DUAL_MONGO, writable=frozenset({R})), NONE, (R,), (M,)),
        (Inputs(REDIS, writable=NONE), NONE, (), (R,)),  # only the last resort is left
        (Inputs(REDIS, writable=frozenset({M})), frozenset({M}), (), (R,)),
    ],
)
def test_to_whom_to_offer(
    facts: Inputs, failed: frozenset[str], order: tuple[str, ...], passed_over: tuple[str, ...]
) -> None:
    plan = plan_write(facts, failed)
    assert (plan.order, plan.skipped) == (order, passed_over)
    assert sorted(plan.order + plan.last_resort) == [M, R]


@pytest.mark.parametrize(
    ("facts", "answered", "latest", "expected", "fresh", "result"),
    [
        (Inputs(REDIS), {R}, "5", "5", False, FULL),  # all that the client was given
        (Inputs(REDIS), {R}, "6", "5", False, FULL),
        (Inputs(REDIS), BOTH, "4", "5", False, BEHIND),  # less, wherever one looks
        (Inputs(REDIS), {R}, None, "5", False, BEHIND),
        (Inputs(REDIS), {M}, "5", "5", False, BEHIND),  # the fallback has it, but perhaps nothing before it
        (Inputs(REDIS), {R}, None, None, False, FULL),  # the primary says that there is none
        (Inputs(REDIS), {M}, None, None, False, BEHIND),  # the primary, out, may have some
        (Inputs(REDIS), {M}, None, None, True, FULL),  # the name was made just now: nobody has any
        (Inputs(DUAL), {M}, "1", None, False, FULL),  # with dual write either store has all
        (Inputs(DUAL, may_have_more=frozenset({R})), {M}, "1", None, False, BEHIND),  # but where it has more
        (Inputs(REDIS, may_have_more=frozenset({M})), {R}, "1", None, False, BEHIND),
        (Inputs(REDIS, unknown_flags=frozenset({M})), {R}, "1", None, False, BEHIND),  # had more when last seen
        (Inputs(MONGO), {M}, "1", None, False, BEHIND),  # Redis, out, may have what was said before the switch
        (Inputs(MONGO), BOTH, "1", None, False, FULL),
        (Inputs(DUAL_MONGO), {M}, "1", None, False, FULL),
    ],
)  # fmt: skip
def test_what_the_client_is_told(
    facts: Inputs, answered: set[str], latest: str | None, expected: str | None, fresh: bool, result: str
) -> None:
    assert context(facts, frozenset(answered), latest, expected, fresh=fresh) == result


@pytest.mark.parametrize(
    ("environment", "started_at", "recorded", "routing", "news"),
    [
        (REDIS, 10, None, REDIS, False),  # no switch: the environment
        (REDIS, 10, Switch(MONGO, REDIS, 20), MONGO, False),  # switched since it was started
        (REDIS, 30, Switch(MONGO, REDIS, 20), MONGO, False),  # started again with the same value: still switched
        (MONGO, 30, Switch(DUAL, REDIS, 20), DUAL_MONGO, True),  # started with a new value: follows that variable
        (DUAL, 30, Switch(MONGO, REDIS, 20), DUAL_MONGO, True),  # each variable for itself
        (MONGO, 10, Switch(REDIS, REDIS, 20), REDIS, False),  # an old process does not argue with a newer switch
    ],
)  # fmt: skip
def test_whose_word_counts(
    environment: Routing, started_at: float, recorded: Switch | None, routing: Routing, news: bool
) -> None:
    assert follow(environment, started_at, recorded) == (routing, news)
