"""What a conversation should be: the rule's properties, on histories that many writers might have made."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from conversations.merge import Missing, plan, stored, unite
from conversations.stores import MONGO, REDIS
from conversations.stores.base import Contents
from conversations.turns import ANSWER, QUESTION, History, Limits, Turn
from tests.builders import a_turn, some_turns

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
WIDE = Limits(60, 100, 1_000_000)
# Some at one millisecond, some with one key, and of three sizes.
POOL = tuple(
    a_turn(f"q{n}", "a" * (n % 3 * 300), at=NOON + timedelta(milliseconds=n // 3),
           key=f"k{n % 4}" if n % 5 == 0 else None)
    for n in range(24)
)  # fmt: skip
IDS = sorted(turn.id for turn in POOL)

turns = st.sets(st.sampled_from(POOL), max_size=14)
tombstones = st.none() | st.sampled_from(IDS)
some_limits = st.builds(Limits, st.just(60), st.integers(1, 8), st.integers(200, 3000))


def has(*held: Turn, tombstone: str | None = None) -> Contents:
    """Return what a store holds: no turn that its tombstone covers."""
    history = stored(held, WIDE, tombstone)
    return Contents(history or None, tombstone, None)


@st.composite
def stores(draw: st.DrawFn, limits: Limits = WIDE) -> Contents:
    contents = has(*draw(turns), tombstone=draw(tombstones))
    return Contents(stored((contents.history or History()).turns(), limits) or None, contents.tombstone, None)


def applied(held: Contents, missing: Missing, tombstone: str | None, limits: Limits) -> Contents:
    """Return what a store holds once it has been given what it was missing."""
    latest = tombstone if missing.tombstone else held.tombstone
    own = (held.history or History()).after(latest or "").turns()
    return Contents(stored([*own, *missing.turns], limits, latest) or None, latest, None)


def pair(one: Contents, two: Contents) -> dict[str, Contents]:
    return {REDIS: one, MONGO: two}


def turns_of(held: Contents) -> tuple[Turn, ...]:
    return held.history.turns() if held.history else ()


unhurried = settings(deadline=None)  # a busy machine is no fault


class TestHistory:
    @unhurried
    @given(stores(), stores(), some_limits)
    def test_it_does_not_depend_on_the_order_of_the_stores(self, one: Contents, two: Contents, limits: Limits) -> None:
        ahead, back = plan(pair(one, two), limits), plan({MONGO: two, REDIS: one}, limits)
        assert ahead == back

    @unhurried
    @given(stores(), stores(), stores())
    def test_it_does_not_depend_on_what_was_united_first(self, one: Contents, two: Contents, three: Contents) -> None:
        """Within the limits; over them, what was dropped first is not known any more."""
        first = plan(pair(one, two), WIDE)
        half = Contents(first.stored, first.tombstone, None)
        nested, flat = plan(pair(half, three), WIDE), plan({"a": one, "b": two, "c": three}, WIDE)
        assert (nested.history, nested.stored, nested.tombstone) == (flat.history, flat.stored, flat.tombstone)

    @unhurried
    @given(stores(), some_limits)
    def test_a_store_and_its_copy_are_the_store(self, one: Contents, limits: Limits) -> None:
        once = plan({REDIS: one}, limits)
        twice = plan(pair(one, one), limits)
        assert (once.history, once.stored) == (twice.history, twice.stored)

    @unhurried
    @given(stores(), stores(), some_limits)
    def test_no_tombstoned_turn_survives(self, one: Contents, two: Contents, limits: Limits) -> None:
        found = plan(pair(one, two), limits)
        given_back = [turn for missing in found.missing.values() for turn in missing.turns]
        latest = max(one.tombstone or "", two.tombstone or "")
        assert all(turn.id > latest for turn in (*found.history.turns(), *found.stored.turns(), *given_back))

    @unhurried
    @given(stores(), stores(), some_limits)
    def test_the_limits_hold_and_the_newest_turns_are_kept(self, one: Contents, two: Contents, limits: Limits) -> None:
        found = plan(pair(one, two), limits)
        whole = plan(pair(one, two), None)
        for kept, every in ((found.stored, whole.stored), (found.history, whole.history)):
            number = len(kept.turns())
            assert kept.turns() == every.turns()[len(every.turns()) - number :]
            assert number <= limits.max_turns
            newest = History.of(kept.turns()[-1:])  # kept whatever its size
            assert len(kept.lines()) <= max(limits.max_bytes, len(newest.lines()))
            assert bool(kept) == bool(every)

    @unhurried
    @given(stores(), stores())
    def test_readers_see_one_turn_a_key_and_stores_keep_every_turn(self, one: Contents, two: Contents) -> None:
        found = plan(pair(one, two), WIDE)
        keys = [turn.question.key for turn in found.history.turns() if turn.question.key]
        assert len(keys) == len(set(keys))
        dropped = {*found.stored.turns()} - {*found.history.turns()}
        assert all(found.stored.turn_of(turn.question.key or "") != turn for turn in dropped)
        assert found.stored == unite(one.history, two.history).after(found.tombstone or "")

    def test_of_nothing_it_is_empty(self) -> None:
        found = plan(pair(has(), has()), WIDE)
        assert (found.history, found.stored, found.last_id) == (History(), History(), None)

    @unhurried
    @given(stores(), stores())
    def test_turns_are_whole_and_in_order(self, one: Contents, two: Contents) -> None:
        history = plan(pair(one, two), WIDE).history
        assert {*history.turns()} <= {*turns_of(one), *turns_of(two)}
        assert [message.role for message in history] == [QUESTION, ANSWER] * (len(history) // 2)
        assert [message.id for message in history] == sorted({message.id for message in history})

    @unhurried
    @given(stores(), stores())
    def test_nothing_is_dropped_but_duplicates_and_what_is_tombstoned(self, one: Contents, two: Contents) -> None:
        found = plan(pair(one, two), WIDE)
        later = [turn for turn in (*turns_of(one), *turns_of(two)) if turn.id > (found.tombstone or "")]
        assert all(map(found.history.knows, later))

    def test_superseded_turns_take_no_place_of_a_readers_window(self) -> None:
        first, second = a_turn(), a_turn(key="k")
        third = a_turn(key="k")
        found = plan(pair(has(first, second), has(first, third)), Limits(60, 2, 100_000))
        assert found.history.turns() == (first, third)
        assert found.stored.turns() == (second, third)


class TestMissing:
    @unhurried
    @given(st.data(), some_limits)
    def test_applied_it_makes_both_stores_equal(self, data: st.DataObject, limits: Limits) -> None:
        """Whatever each of them dropped for its own limits before."""
        held = pair(data.draw(stores(limits)), data.draw(stores(limits)))
        found = plan(held, limits)
        after = {alias: applied(one, found.missing[alias], found.tombstone, limits) for alias, one in held.items()}
        assert after[REDIS] == after[MONGO] == Contents(found.stored or None, found.tombstone, None)

    @unhurried
    @given(st.data(), some_limits)
    def test_once_applied_nothing_is_missing(self, data: st.DataObject, limits: Limits) -> None:
        held = pair(data.draw(stores(limits)), data.draw(stores(limits)))
        found = plan(held, limits)
        after = {alias: applied(one, found.missing[alias], found.tombstone, limits) for alias, one in held.items()}
        assert not any(plan(after, limits).missing.values())

    def test_what_is_over_the_limits_is_not_missing(self) -> None:
        held = some_turns(5)
        found = plan(pair(has(*held[2:]), has(*held[1:])), Limits(60, 3, 100_000))
        assert not any(found.missing.values())

    def test_a_store_that_would_keep_an_older_turn_is_given_the_one_that_does_not_fit(self) -> None:
        small, large, last = a_turn(), a_turn("q", "a" * 2000), a_turn()
        found = plan(pair(has(small, last), has(large)), Limits(60, 16, 1000))
        assert found.stored.turns() == (last,)
        assert found.missing[REDIS].turns == (large,)
        assert found.missing[MONGO].turns == (last,)

    def test_a_deletion_that_one_store_missed_is_missing_there(self) -> None:
        turn = a_turn()
        found = plan(pair(has(turn), has(tombstone=turn.answer.id)), WIDE)
        assert found.missing == {REDIS: Missing((), tombstone=True, tombstoned=True), MONGO: Missing()}


class TestConflicts:
    def other_words(self, turn: Turn) -> Turn:
        return Turn(turn.question, replace(turn.answer, content="other"))

    def test_one_id_with_other_words_is_a_conflict_and_every_reader_sees_the_same(self) -> None:
        turn = a_turn()
        other = self.other_words(turn)
        found, back = plan(pair(has(turn), has(other)), WIDE), plan(pair(has(other), has(turn)), WIDE)
        assert found.conflicts == back.conflicts == {turn.id}
        assert found.history == back.history
        assert not any(found.missing.values())

    @unhurried
    @given(stores(), stores())
    def test_the_same_turns_are_no_conflict(self, one: Contents, two: Contents) -> None:
        assert not plan(pair(one, two), WIDE).conflicts


@unhurried
@given(st.lists(st.sampled_from(POOL), max_size=14), some_limits, tombstones)
def test_a_store_holds_the_newest_of_its_turns_in_order(
    held: list[Turn], limits: Limits, tombstone: str | None
) -> None:
    def ids(some: Iterable[Turn]) -> list[str]:
        return [turn.id for turn in some]

    kept = stored(held, limits, tombstone).turns()
    every = sorted({turn.id for turn in held if turn.id > (tombstone or "")})
    assert ids(kept) == every[len(every) - len(kept) :]
    assert limits.trim(kept) == kept
