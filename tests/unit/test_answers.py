"""The checks of what answers show: a checker that cannot fail proves nothing, so each offence is shown to it."""

import pytest

from tests.answers import DISORDERED, DOUBLED, FORGOTTEN, OK, UNDELETED, Event, Loss, Recorded

WRONG = {
    "at the end": ("a b", [FORGOTTEN]),
    "in the middle": ("a c", [FORGOTTEN]),
    "twice": ("a b b c", [DOUBLED]),
    "before an earlier one": ("b a c", [DISORDERED]),
    "nothing": ("a b c", []),
}


def asked(text: str, at: float, *seen: str, **fields: object) -> Event:
    """Return a question asked at that second, its id later than that of all before, with which they were asked."""
    known = {"ended": at + 0.1, "outcome": OK, "context": "full", "message_id": f"id{at}", "expected": f"id{at - 1}"}
    return Event("ask", "s", 0, at, text, seen=seen, **known | fields)  # type: ignore[arg-type]


def deletion(at: float, **fields: object) -> Event:
    return Event("delete", "s", 0, at, **{"ended": at + 0.1, "outcome": OK} | fields)  # type: ignore[arg-type]


def kinds(*events: Event, **terms: object) -> list[str]:
    return [offence.kind for offence in Recorded(events, **terms).of(events[-1])]  # type: ignore[arg-type]


@pytest.mark.parametrize(("seen", "wrong"), WRONG.values(), ids=WRONG)
def test_what_an_answer_shows_is_compared_with_what_was_acknowledged(seen: str, wrong: list[str]) -> None:
    assert kinds(asked("a", 1), asked("b", 2), asked("c", 3), asked("d", 4, *seen.split())) == wrong


def test_an_answer_may_say_that_it_is_behind() -> None:
    assert kinds(asked("a", 1), asked("b", 2, context="behind")) == []


def test_a_replayed_answer_shows_what_there_was_before() -> None:
    assert kinds(asked("a", 1), asked("b", 2, replayed=True)) == []


def test_a_turn_that_was_deleted_is_not_shown_and_a_later_one_is() -> None:
    before = (asked("a", 1), deletion(2), asked("b", 3))
    assert kinds(*before, asked("c", 4, "b")) == []
    assert kinds(*before, asked("c", 4, "a", "b")) == [UNDELETED]
    assert kinds(*before, asked("c", 4)) == [FORGOTTEN]


def test_a_turn_may_be_shown_or_not_while_it_is_deleted_and_where_that_failed() -> None:
    for failed in (deletion(2, ended=9.0), deletion(2, outcome="failed")):
        assert kinds(asked("a", 1), failed, asked("b", 3, "a")) == []
        assert kinds(asked("a", 1), failed, asked("b", 3)) == []


def test_a_turn_that_a_retry_answers_is_as_old_as_the_first_try() -> None:
    """A deletion in between, of which nobody knows whether it was done, may still be done: it covers the turn."""
    tried = asked("a", 1, outcome="unknown", message_id=None)
    again = asked("a", 3, replayed=True)
    assert kinds(tried, deletion(2, outcome="failed"), again, asked("b", 4)) == []
    assert kinds(tried, again, asked("b", 4)) == [FORGOTTEN]


def test_what_was_asked_at_the_same_time_may_be_shown_or_not() -> None:
    assert kinds(asked("a", 1, ended=2.5), asked("b", 2)) == []
    assert kinds(asked("a", 1, ended=2.5), asked("b", 2), asked("c", 3, "b", "a")) == []


def test_what_was_trimmed_or_lost_or_cannot_be_known_is_excused() -> None:
    events = (asked("a", 1), asked("b", 2), asked("c", 3, "b"))
    assert kinds(*events, max_turns=1) == []
    assert kinds(*events, losses=[Loss(2.5, "redis", {"a"})]) == []
    assert kinds(*events, may_not_be_known=lambda earlier, event: earlier.ended < 2) == []


def test_a_lost_turn_that_a_late_write_brings_back_after_a_deletion_is_excused() -> None:
    """The deletion had not seen it."""
    events = (asked("a", 1), asked("b", 2, "a"), deletion(3), asked("c", 4, "b"))
    assert kinds(*events) == [UNDELETED]
    assert kinds(*events, losses=[Loss(2.5, "mongo", {"b"})]) == []
    assert kinds(*events, losses=[Loss(3.5, "mongo", {"b"})]) == [UNDELETED]


def test_only_turns_of_one_client_are_in_order() -> None:
    events = (asked("a", 1), asked("b", 2, client=1), asked("c", 3), asked("d", 4, "b", "a", "c"))
    assert kinds(*events) == []
    assert kinds(*events[:-1], asked("d", 4, "c", "b", "a")) == [DISORDERED]
