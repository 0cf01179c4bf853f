"""The policy: one table for each decision, with a comment for each row."""

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
    ("inputs", "order", "merge"),
    [
        (Inputs(REDIS), (R, M), False),  # the primary first, the other only when needed
        (Inputs(DUAL), (R, M), False),
        (Inputs(MONGO), (M, R), True),  # with MongoDB as primary Redis is always read too
        (Inputs(REDIS, may_have_more=frozenset({M})), (R, M), True),  # unsynced: both, merged
        (Inputs(REDIS, unknown_flags=frozenset({M})), (R, M), True),  # a flag was set there that was not read yet
        (Inputs(REDIS, recovering=frozenset({R})), (R, M), True),  # another machine may still skip Redis
        (Inputs(REDIS, writable=frozenset({M})), (R, M), True),  # it refuses writes: alone it would be BEHIND
        (Inputs(REDIS, readable=frozenset({M})), (M,), False),  # Redis is unavailable: no wait for it
        (Inputs(REDIS, readable=frozenset({M}), may_have_more=frozenset({M})), (M,), False),  # nothing to merge with
        (Inputs(MONGO, readable=frozenset({M})), (M,), False),
        (
            Inputs(REDIS, readable=frozenset({R}), may_have_more=frozenset({M})),
            (R, M),
            True,
        ),  # an open breaker does not exclude it
        (Inputs(REDIS, readable=NONE), (), False),  # only the last resort is left
    ],
)
def test_which_stores_are_read(inputs: Inputs, order: tuple[str, ...], merge: bool) -> None:
    plan = plan_read(inputs)
    assert (plan.order, plan.merge) == (order, merge)
    assert sorted(plan.order + plan.last_resort) == [M, R]


@pytest.mark.parametrize(
    ("inputs", "failed", "order", "skipped"),
    [
        (Inputs(REDIS), NONE, (R, M), ()),
        (Inputs(REDIS), frozenset({R}), (M,), (R,)),  # reading it failed: one timeout is enough
        (Inputs(REDIS, writable=frozenset({M})), NONE, (M,), (R,)),  # full or read-only
        (Inputs(REDIS, writable=frozenset({R})), NONE, (R,), ()),  # the fallback is not wanted
        (Inputs(DUAL, writable=frozenset({R})), NONE, (R,), (M,)),  # with dual write it is
        (Inputs(DUAL_MONGO, writable=frozenset({R})), NONE, (R,), (M,)),
        (Inputs(REDIS, writable=NONE), NONE, (), (R,)),  # only the last resort is left
        (Inputs(REDIS, writable=frozenset({M})), frozenset({M}), (), (R,)),
    ],
)
def test_which_stores_are_written(
    inputs: Inputs, failed: frozenset[str], order: tuple[str, ...], skipped: tuple[str, ...]
) -> None:
    plan = plan_write(inputs, failed)
    assert (plan.order, plan.skipped) == (order, skipped)
    assert sorted(plan.order + plan.last_resort) == [M, R]


PRIMARY = {"complete": frozenset({R})}  # Redis is complete, MongoDB is not


@pytest.mark.parametrize(
    ("inputs", "answered", "latest", "expected", "fresh", "result"),
    [
        (Inputs(REDIS), {R}, "5", "5", False, FULL),  # all that the client was given
        (Inputs(REDIS), {R}, "6", "5", False, FULL),
        (Inputs(REDIS), BOTH, "4", "5", False, BEHIND),  # less in both stores
        (Inputs(REDIS), {R}, None, "5", False, BEHIND),
        (Inputs(REDIS, **PRIMARY), {M}, "5", "5", False, BEHIND),  # the fallback has it, perhaps not those before it
        (Inputs(REDIS), {R}, None, None, False, FULL),  # the primary has none
        (Inputs(REDIS, **PRIMARY), {M}, None, None, False, BEHIND),  # the primary, unavailable, may have some
        (Inputs(REDIS), {M}, None, None, True, FULL),  # the session_id is new: no store has any
        (Inputs(DUAL), {M}, "1", None, False, FULL),  # with dual write either store has all
        (Inputs(DUAL, may_have_more=frozenset({R})), {M}, "1", None, False, BEHIND),  # unless it has more
        (Inputs(REDIS, may_have_more=frozenset({M})), {R}, "1", None, False, BEHIND),
        (Inputs(REDIS, unknown_flags=frozenset({M})), {R}, "1", None, False, BEHIND),  # had flags when last read
        (Inputs(MONGO, **PRIMARY), {M}, "1", None, False, BEHIND),  # Redis may have turns from before the switch
        (Inputs(MONGO), {M}, "1", None, False, FULL),  # all was copied since
        (Inputs(DUAL, **PRIMARY), {M}, "1", None, False, BEHIND),  # dual write is on, but not all was copied yet
        (Inputs(DUAL, complete=frozenset()), {R}, "1", None, False, BEHIND),  # it came back with other data
        (Inputs(DUAL, complete=frozenset()), BOTH, "1", None, False, FULL),
        (Inputs(DUAL, cut_off=frozenset({R})), {R}, "1", None, False, BEHIND),  # another process may write to MongoDB
        (Inputs(DUAL, cut_off=frozenset({R})), {M}, "1", None, False, FULL),
        (Inputs(DUAL, recovering=frozenset({M})), {M}, "1", None, False, BEHIND),  # another one may still skip it
        (Inputs(DUAL, recovering=frozenset({M})), {R}, "1", None, False, FULL),
        (Inputs(DUAL, trimmed=frozenset({R})), {R}, "1", None, False, BEHIND),  # MongoDB may have what was removed
        (Inputs(DUAL, trimmed=frozenset({R})), {M}, "1", None, False, FULL),
        (Inputs(MONGO), BOTH, "1", None, False, FULL),
        (Inputs(DUAL_MONGO), {M}, "1", None, False, FULL),
    ],
)  # fmt: skip
def test_context_is_behind_where_turns_may_be_missing(
    inputs: Inputs, answered: set[str], latest: str | None, expected: str | None, fresh: bool, result: str
) -> None:
    assert context(inputs, frozenset(answered), latest, expected, fresh=fresh) == result


@pytest.mark.parametrize(
    ("environment", "started_at", "recorded", "routing", "changed"),
    [
        (REDIS, 10, None, REDIS, False),  # no switch: the environment
        (REDIS, 10, Switch(MONGO, REDIS, 20), MONGO, False),  # switched since it was started
        (REDIS, 30, Switch(MONGO, REDIS, 20), MONGO, False),  # started again with the same value: still switched
        (MONGO, 30, Switch(DUAL, REDIS, 20), DUAL_MONGO, True),  # started with a new value: follows that variable
        (DUAL, 30, Switch(MONGO, REDIS, 20), DUAL_MONGO, True),  # each variable for itself
        (MONGO, 10, Switch(REDIS, REDIS, 20), REDIS, False),  # a newer switch overrules an old process' variable
    ],
)  # fmt: skip
def test_newest_switch_or_newer_variable_wins(
    environment: Routing, started_at: float, recorded: Switch | None, routing: Routing, changed: bool
) -> None:
    assert follow(environment, started_at, recorded) == (routing, changed)
