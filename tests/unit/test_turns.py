"""Messages, turns and histories: ids in the order of cause, what is no history, and limits."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from conversations.errors import NoLaterTurn
from conversations.history import restamp
from conversations.ids import MESSAGE_ID, stamp
from conversations.turns import ANSWER, QUESTION, History, Limits, Message, make_turn
from tests.builders import a_history, a_turn, some_turns

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def records(**changes: Any) -> list[dict[str, Any]]:
    """Return the records of one good turn, with these changes to its question."""
    question, answer = a_turn(at=NOON).messages()
    return [question.as_dict() | changes, answer.as_dict()]


class TestIds:
    def test_an_id_is_a_uuid_of_version_7_that_carries_its_millisecond(self) -> None:
        question = UUID(a_turn(at=NOON).question.id)
        assert (question.version, question.variant) == (7, "specified in RFC 4122")
        assert question.int >> 80 == NOON.timestamp() * 1000

    def test_the_answer_is_the_successor_of_its_question(self) -> None:
        """So no other turn's message ever sorts in between."""
        for turn in (a_turn(at=NOON) for _ in range(100)):
            assert UUID(turn.answer.id).int == UUID(turn.question.id).int + 1
            assert UUID(turn.question.id).int % 2 == 0

    def test_ids_of_one_millisecond_differ(self) -> None:
        ids = {message.id for _ in range(1000) for message in a_turn(at=NOON).messages()}
        assert len(ids) == 2000
        assert all(MESSAGE_ID.fullmatch(each) for each in ids)

    def test_ids_sort_by_cause_at_one_millisecond(self) -> None:
        """Each turn has seen the one before; that their clock stands still must not show."""
        ids: list[str] = []
        seen = None
        for _ in range(50):
            turn = make_turn("q", "a", seen, NOON, NOON)
            ids += (turn.question.id, turn.answer.id)
            seen = turn.answer.at
        assert ids == sorted(ids)

    @pytest.mark.parametrize("hours", [-1, 0, 1])
    def test_a_turn_is_later_than_everything_seen_whatever_the_clock(self, hours: int) -> None:
        last = make_turn("q", "a", None, NOON, NOON + timedelta(seconds=20))
        here = NOON + timedelta(hours=hours, seconds=20)
        turn = make_turn("q", "a", last.answer.at, here, here)
        assert turn.question.id > last.answer.id
        assert turn.answer.time >= turn.question.time > last.answer.time

    def test_after_the_last_time_that_an_id_has_no_turn_is_made(self) -> None:
        """It would be a turn that nothing reads."""
        last = datetime(6429, 10, 17, 2, 45, 55, 327_000, tzinfo=UTC)
        turn = make_turn("q", "a", None, last, last)
        assert History.parse(turn.messages())
        for seen in (turn.answer.at, "7999-12-31T23:59:59.999Z"):
            with pytest.raises(NoLaterTurn):
                make_turn("q", "a", seen, NOON, NOON)
            with pytest.raises(NoLaterTurn):
                restamp(a_turn(), turn.answer.id)

    def test_an_answer_is_not_earlier_than_its_question(self) -> None:
        """A clock that is put back while the model thinks must not show."""
        turn = make_turn("q", "a", None, NOON, NOON - timedelta(hours=1))
        assert turn.answer.at == turn.question.at == stamp(NOON)

    def test_times_are_utc_with_milliseconds_wherever_the_clock_stands(self) -> None:
        there = datetime.fromisoformat("2026-03-01T14:30:00.123987+02:30")
        assert a_turn(at=there).question.at == "2026-03-01T12:00:00.123Z"
        assert a_turn(at=NOON).question.at == "2026-03-01T12:00:00.000Z"


class TestParse:
    def test_what_a_history_writes_it_reads(self) -> None:
        history = History.of([*some_turns(2), a_turn(key="k")])
        assert History.parse(message.as_dict() for message in history) == history
        assert History.parse(history) == history

    @pytest.mark.parametrize(
        "changes",
        [
            {"role": "system"},  # no role of ours
            {"role": ANSWER},  # an answer where a question belongs
            {"content": None},
            {"content": 5},
            {"key": 5},
            {"extra": "x"},
            {"id": "1"},
            {"id": "019CB1A0-0000-7000-8000-000000000000"},  # the same id would have two spellings
            {"id": "019cb1a0-0000-4000-8000-000000000000"},  # version 4 does not sort by time
            {"id": "019cb1a0-0000-7000-8000-000000000000\n"},
            {"at": "yesterday"},
            {"at": "2026-03-01T12:00:00Z"},
            {"at": "9999-12-31T23:59:59.999Z"},  # no turn could be later
            {"at": "2026-03-01T12:00:00.000+00:00"},
        ],
        ids=str,
    )
    def test_a_message_that_is_not_one_is_refused_and_not_quoted(self, changes: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=r".") as caught:
            History.parse(records(**changes))
        assert "What?" not in str(caught.value)

    @pytest.mark.parametrize("missing", ["role", "content", "id", "at"])
    def test_a_message_without_a_field_is_refused(self, missing: str) -> None:
        question, answer = records()
        del question[missing]
        with pytest.raises(ValueError, match="a message must have"):
            History.parse([question, answer])

    @pytest.mark.parametrize("value", ["no history", [None], [[]], ["a", "b"], [{1: 2}], {"role": "user"}], ids=str)
    def test_what_is_no_list_of_messages_is_refused(self, value: Any) -> None:
        with pytest.raises(ValueError, match="a message must have"):
            History.parse(value)

    def test_half_a_turn_is_refused(self) -> None:
        for part in ([], records()[:1], [*records(), a_turn().question]):
            with pytest.raises(ValueError, match="a turn is not whole"):
                History.parse(part)

    def test_messages_out_of_order_or_doubled_are_refused(self) -> None:
        first, second = some_turns(2)
        for turns in ([second, first], [first, first]):
            with pytest.raises(ValueError, match="ascending order"):
                History.parse(History.of(turns))


class TestHistory:
    def test_its_lines_are_one_json_object_each_that_ends_with_id_and_at(self) -> None:
        """What the runbook's `redis-cli GET` shows, and what the script in Redis relies on."""
        lines = a_history(3).lines().splitlines(keepends=True)
        assert len(lines) == 6
        assert all(line.startswith(b'{"role":"') and line[-77:].startswith(b'"id":"') for line in lines)

    def test_a_turn_is_known_by_its_id_or_by_its_key(self) -> None:
        turn = a_turn(key="k")
        history = History.of([a_turn(), turn])
        assert history.knows(turn)
        assert history.knows(a_turn(key="k"))
        assert not history.knows(a_turn(key="other"))
        assert not history.knows(a_turn())

    def test_a_turn_asked_again_with_the_key_of_its_id_supersedes_it(self) -> None:
        first, other = a_turn(), a_turn(key="k")
        again = a_turn(key=first.key)
        history = History.of([first, other, again])
        assert history.current() == History.of([other, again])
        assert [history.turn_of(key) for key in (first.key, other.key, f"turn:{other.id}")] == [again, other, other]

    def test_the_turn_of_a_key_is_the_latest(self) -> None:
        first, second = a_turn(key="k"), a_turn(key="k")
        assert History.of([first, second, a_turn()]).turn_of("k") == second
        assert History.of([first]).turn_of("other") is None


class TestTrim:
    def test_the_newest_turns_stay(self) -> None:
        turns = some_turns(5)
        assert Limits(60, 3, 100_000).trim(turns) == turns[-3:]
        assert Limits(60, 9, 100_000).trim(turns) == turns
        assert Limits(60, 3, 100_000).trim([]) == ()

    def test_bytes_count_as_they_are_stored(self) -> None:
        """Two bytes a letter here, and the names and quotes of JSON too."""
        turns = tuple(a_turn("é" * 100, "ü" * 100) for _ in range(4))
        size = len(turns[0].lines())
        assert size > 400
        assert Limits(60, 16, 2 * size).trim(turns) == turns[-2:]
        assert Limits(60, 16, 2 * size - 1).trim(turns) == turns[-1:]

    def test_the_newest_turn_stays_whatever_its_size(self) -> None:
        small, large = a_turn(), a_turn("q", "a" * 5000)
        assert Limits(60, 16, 1024).trim([small, large]) == (large,)

    def test_nothing_older_jumps_over_what_did_not_fit(self) -> None:
        small, large, last = a_turn(), a_turn("q", "a" * 5000), a_turn()
        assert Limits(60, 16, 1024).trim([small, large, last]) == (last,)


def test_a_message_without_a_key_has_no_such_field() -> None:
    without, with_key = Message(QUESTION, "q", "1", "2"), Message(QUESTION, "q", "1", "2", "k")
    assert list(without.as_dict()) == ["role", "content", "id", "at"]
    assert list(with_key.as_dict()) == ["role", "content", "key", "id", "at"]
