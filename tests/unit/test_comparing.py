"""How a conversation compares in two stores: one table, nothing running."""

import pytest

from conversations.clock import now
from conversations.errors import CorruptHistory
from conversations.ids import tombstone_for
from conversations.policy import Routing
from conversations.stores import MONGO, REDIS
from conversations.stores.base import Contents
from conversations.stores.bulk_reader import Found
from conversations.turns import History, Turn
from ops.consistency.compare import compare
from tests.builders import a_turn, some_turns

A, B, C = some_turns(3)
NEW = a_turn(at=now())
DELETED = tombstone_for(NEW.answer.id)


def has(*turns: Turn, tombstone: str | None = None, flag: str | None = None) -> Contents:
    return Contents(History.of(turns) if turns else None, tombstone, flag)


@pytest.mark.parametrize(
    ("redis", "mongo", "dual_write", "kind", "expected"),
    [
        (has(A, B), has(A, B), False, "in_step", True),
        (has(A, B), has(), False, "only_in_redis", True),
        (has(A, B), has(), True, "only_in_redis", False),
        (has(), has(A, B), False, "only_in_mongo", False),
        (has(A, B), has(A), False, "fallback_behind", True),
        (has(A, B), has(A), True, "differing", False),
        # the fallback has turns that the primary is missing
        (has(A), has(A, B), False, "differing", False),
        # the same last id, and a hole
        (has(A, C), has(A, B, C), False, "differing", False),
        (has(A), has(A, flag="m"), False, "marked", False),
        (has(A, flag="m"), has(), False, "only_in_redis", False),
        (CorruptHistory(REDIS, "x"), has(A), False, "corrupt", False),
        (has(A), CorruptHistory(MONGO, "x"), False, "corrupt", False),
        # a deletion reached one of them
        (has(NEW), has(tombstone=DELETED), False, "differing", False),
        (has(), has(tombstone=DELETED), False, "differing", False),
        (has(tombstone=DELETED), has(tombstone=DELETED), False, "in_step", True),
        # a tombstone older than a TTL may have gone from one of them, and all is well if nothing came back
        (has(C), has(C, tombstone=B.answer.id), False, "in_step", True),
        (has(B, C), has(C, tombstone=B.answer.id), False, "differing", False),
    ],
)
def test_the_kind_and_whether_it_is_expected(
    redis: Found, mongo: Found, dual_write: bool, kind: str, expected: bool
) -> None:
    routing = Routing(REDIS, dual_write)
    one = compare("s", {REDIS: redis, MONGO: mongo})
    assert (one.kind(routing), one.expected(routing)) == (kind, expected)


def test_turns_over_the_limits_are_not_missing() -> None:
    """Each store drops the oldest turns when it takes a new one, and not at the same moment."""
    turns = some_turns(20)
    assert compare("s", {REDIS: has(*turns[4:]), MONGO: has(*turns[2:])}).in_step


def test_the_same_turn_with_other_words_is_a_conflict() -> None:
    other = Turn(A.question, type(A.answer)(A.answer.role, "other", A.answer.id, A.answer.at))
    one = compare("s", {REDIS: has(A), MONGO: has(other)})
    assert one.conflicting == {A.id}
    assert not one.in_step


def test_only_what_stays_wrong_in_the_same_way_counts() -> None:
    earlier = compare("s", {REDIS: has(A, B), MONGO: has(A)})
    assert compare("s", {REDIS: has(A, B), MONGO: has(A)}).same_as(earlier)
    assert not compare("s", {REDIS: has(A, B, C), MONGO: has(A, B)}).same_as(earlier)
