"""What became of a store's data, decided from what it reports and what was noted of it."""

import pytest

from conversations.datasets import Coverage, Dataset, Known, Verdict, cut_off, judge, newest_coverage

A5, A7, B9 = Dataset("a", 5, "1"), Dataset("a", 7, "1"), Dataset("b", 9, "1")


@pytest.mark.parametrize(
    ("found", "instance", "noted", "verdict"),
    [
        (None, "1", [], Verdict.NEW),
        (None, "1", [A5], Verdict.WIPED),
        (A7, "1", [], Verdict.SAME),  # another process gave it the identity
        (A7, "1", [A5, A7], Verdict.SAME),
        (A7, "1", [A5], Verdict.SAME),  # others count the epoch up too
        (A5, "1", [A7], Verdict.ROLLED_BACK),
        (A7, "1", [A5, B9], Verdict.ROLLED_BACK),  # to before it was given its last identity
        (B9, "1", [A7], Verdict.SAME),  # another process gave it a new identity
        (A7, "2", [A7], Verdict.RESTARTED),
        (A5, "2", [A7], Verdict.ROLLED_BACK),
        (None, "2", [A7], Verdict.WIPED),
    ],
)
def test_a_store_is_judged_by_the_newest_that_was_noted(
    found: Dataset | None, instance: str, noted: list[Dataset], verdict: Verdict
) -> None:
    assert judge(found, instance, noted) is verdict


def test_coverage_ends_when_either_store_has_another_dataset() -> None:
    coverage = Coverage({"redis": "a", "mongo": "b"}, ("redis",))
    assert coverage.holds({"redis": A7, "mongo": B9}) == {"redis"}
    assert coverage.holds({"redis": Dataset("c", 8), "mongo": B9}) == frozenset()
    assert coverage.holds({"redis": A7, "mongo": Dataset("c", 10)}) == frozenset()
    assert coverage.holds({"redis": A7}) == frozenset()
    assert Known().complete == frozenset()


def test_a_store_stays_complete_where_the_other_one_is_renewed() -> None:
    both = Coverage({"redis": "a", "mongo": "b"}, ("redis", "mongo"), since=1.0, at=5.0)
    left = both.survives("redis", Dataset("c", 8), now=4.0)
    assert left.holds({"redis": Dataset("c", 8), "mongo": B9}) == {"mongo"}
    assert left.since == both.since
    assert newest_coverage([both, left]) is left  # also where the clock has been set back


def test_the_newest_coverage_counts() -> None:
    old, new = Coverage({"redis": "a"}, ("redis",), at=1.0), Coverage({"redis": "a"}, (), at=2.0)
    assert newest_coverage([new, None, old]) is new
    assert newest_coverage([None]).complete == ()


def test_a_process_is_cut_off_until_it_has_been_silent_for_an_hour() -> None:
    ages = {"me": 10.0, "here": 4.0, "gone": 6.0, "ended": 4000.0}
    assert cut_off(ages, "me") == {"gone"}


def test_a_record_of_coverage_tells_of_a_newer_dataset() -> None:
    known = Known({"redis": A7, "mongo": Dataset("a", 8)}, Coverage({"redis": "a", "mongo": "a"}, ("redis", "mongo")))
    renewed = known.coverage.survives("mongo", B9, now=1.0)
    known.learn(renewed)
    assert known.datasets == {"redis": A7, "mongo": Dataset("b", 9)}
    assert known.complete == {"redis"}


def test_a_store_that_was_asked_knows_better_what_it_has() -> None:
    """Where it is rolled back, its own notes are of another time."""
    known = Known({"redis": A7, "mongo": B9})
    known.learn(Coverage({"redis": "c", "mongo": "b"}, ("redis", "mongo"), epochs={"redis": 20, "mongo": 9}), "redis")
    assert known.datasets == {"redis": A7, "mongo": B9}
    assert known.complete == frozenset()


def test_a_record_of_coverage_of_an_older_dataset_does_not_count() -> None:
    known = Known({"redis": A7, "mongo": B9})
    known.learn(Coverage({"redis": "a", "mongo": "a"}, ("redis", "mongo"), epochs={"redis": 6, "mongo": 8}))
    assert known.datasets == {"redis": A7, "mongo": B9}
    assert known.complete == frozenset()
