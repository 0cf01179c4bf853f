"""Which of the items that a framework adds are whole turns."""

from typing import Any

import pytest

from conversations.api import input_serializers
from onesource_client.adapters.whole_turns import MAX_CHARACTERS, Part, Pending
from onesource_client.errors import InvalidRequest


def _part(item: str) -> Part:
    kind, _, text = item.partition(":")
    if kind == "tool":
        return Part("other", goes_on=True)
    return Part("user" if kind == "q" else "assistant" if kind == "a" else "other", text)


def turns(*items: str) -> tuple[list[tuple[str, str]], list[str]]:
    """Return the turns that are stored of these items, and what stays pending."""
    pending, found = Pending(_part), []
    with pending.adding(items):
        while turn := pending.turn():
            found.append((turn.question, turn.answer))
            pending.stored(turn)
    return found, pending.items


class TestWholeTurns:
    @pytest.mark.parametrize(
        ("items", "stored", "left"),
        [
            ([], [], []),
            (["q:1"], [], ["q:1"]),  # not answered yet
            (["q:1", "a:2"], [("1", "2")], []),
            (["q:1", "a:2", "q:3", "a:4", "q:5"], [("1", "2"), ("3", "4")], ["q:5"]),
            (["q:1", "tool:", "tool:", "a:2"], [("1", "2")], []),
            (["q:1", "a:2", "tool:"], [], ["q:1", "a:2", "tool:"]),  # a tool was called: the answer goes on
            (["q:1", "a:2", "tool:", "tool:", "a:3"], [("1", "2\n\n3")], []),
            (["q:1", "q:2", "a:3"], [("1\n\n2", "3")], []),
            (["a:0", "q:1", "a:2"], [("1", "2")], []),  # nobody asked for the first
            (["s:0", "q:1", "a:2"], [("1", "2")], []),
            (["q:1", "a:"], [], ["q:1", "a:"]),  # an answer without text
        ],
    )
    def test_a_turn_is_stored_when_it_is_whole(self, items: list[str], stored: list[Any], left: list[str]) -> None:
        assert turns(*items) == (stored, left)

    @pytest.mark.parametrize("items", [["q:{}"], ["q:1", "a:2", "q:3", "a:{}", "q:5"]])
    def test_a_text_that_is_too_long_is_refused_before_anything_is_stored(self, items: list[str]) -> None:
        pending: Pending[str] = Pending(_part)
        with (
            pytest.raises(InvalidRequest, match=r"65,537 characters.* 65,536"),
            pending.adding([item.format("x" * (MAX_CHARACTERS + 1)) for item in items]),
        ):
            raise AssertionError("a turn is stored")
        assert pending.items == []
        with pending.adding([item.format("x" * MAX_CHARACTERS) for item in items]):
            assert pending.items

    def test_questions_that_make_one_are_counted_together(self) -> None:
        half, pending = f"q:{'x' * 40_000}", Pending(_part)
        with pending.adding([half]):
            pass
        with pytest.raises(InvalidRequest, match="80,002"), pending.adding([half]):
            pass
        assert pending.items == [half]

    def test_the_limit_is_that_of_the_service(self) -> None:
        assert MAX_CHARACTERS == input_serializers.MAX_CHARACTERS

    def test_items_that_could_not_be_stored_have_the_same_keys_when_added_again(self) -> None:
        pending, keys = Pending(_part), []
        for fails in (True, False):
            try:
                with pending.adding(["q:1", "a:2", "q:1", "a:2"]):
                    while turn := pending.turn():
                        keys.append(pending.key(turn))
                        if fails and len(keys) == 2:
                            raise ConnectionError
                        pending.stored(turn)
            except ConnectionError:
                assert pending.items == []
        assert keys[:2] == keys[2:]
        assert keys[0] != keys[1]
