"""The benchmarks' own arithmetic, tables and pictures, and that docs/performance.md is what they made."""

import json
import xml.etree.ElementTree as ET

import orjson
import pytest

from benchmarks import document, http, messages, pictures
from benchmarks.figures import median_ratio, percentile, shown, table
from benchmarks.loads import kept
from benchmarks.targets import judged
from benchmarks.turns import whole_cycles
from conversations.stores.redis.room import beyond, step
from conversations.turns import Limits


@pytest.mark.parametrize(
    ("values", "part", "expected"),
    [([3.0, 1.0, 2.0], 0.5, 2.0), (list(range(100)), 0.95, 95), ([7.0], 0.95, 7.0), ([1.0, 2.0], 1.0, 2.0)],
)
def test_percentile(values: list[float], part: float, expected: float) -> None:
    assert percentile(values, part) == expected


def test_no_values_have_no_percentile() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


def test_ratio_is_the_median_of_rounds() -> None:
    """A slow round counts on both sides, and one that is slow for one side only does not decide."""
    assert median_ratio([2.0, 20.0, 90.0], [1.0, 10.0, 10.0]) == 2.0


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, "–"), (0.123, "0.12"), (12.34, "12.3"), (1234.5, "1,234"), (10_000, "10,000"), ("agno", "agno")],
)
def test_numbers_are_shown_with_the_digits_that_mean_something(value: object, expected: str) -> None:
    assert shown(value) == expected


def test_table_is_markdown() -> None:
    assert table(["", "µs"], [("floor", 1.0)]) == "|  | µs |\n| --- | --- |\n| floor | 1.00 |"


def test_messages_have_197_bytes() -> None:
    sizes = {len(line) for line in messages.lines((messages.QUESTION, messages.ANSWER)).splitlines(keepends=True)}
    assert sizes == {messages.BYTES}


def test_lines_are_turns_in_order() -> None:
    found = [orjson.loads(line) for _ in range(3) for line in messages.lines(messages.named_pair("x")).splitlines()]
    ids = [message["id"] for message in found]
    assert ids == sorted(ids)


@pytest.mark.parametrize(
    "picture",
    [
        pictures.bars("a < b", "note", {"onesource": 1.0, "floor & co": 2.0}),
        pictures.lines("a", "note", {"onesource": {10: 1.0, 1000: 3.0}, "floor": {10: 1.0, 1000: 3.1}}),
    ],
)
def test_pictures_are_svg_with_every_name(picture: str) -> None:
    root = ET.fromstring(picture)  # noqa: S314  # our own
    texts = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"onesource"} < texts


def test_names_at_the_ends_of_lines_keep_apart() -> None:
    heights = sorted(pictures._apart({"a": 10.0, "b": 11.0, "c": 100.0}).values())
    assert heights[0] == 10.0 and heights[1] - heights[0] >= 17.0 and heights[2] == 100.0


def test_a_missed_target_is_called_so() -> None:
    target = judged({"append": {"ratio": 0.7}})[0]
    assert target.cells()[1:] == ("≤ 0.6", 0.7, "missed")


def test_what_slow_answers_do_is_judged_too() -> None:
    """Of the load whose answers take a second every answer has to be 200, as of those that take no time."""
    targets = judged({"waiting": {"onesource": {"not_200": 3, "p95_ms": 1500.0}}})
    assert [(target.measured, target.met) for target in targets] == [(3.0, False), (1.5, True)]


def test_dual_write_to_stores_equally_far_away_is_judged() -> None:
    """Writing to one after the other takes the sum of their times, which misses the target."""
    assert [one.met for one in judged({"distant": {"dual write": {"p50_ratio": 1.5}}})] == [False]


def test_growth_is_judged_by_the_median_and_by_the_mean() -> None:
    growth = {"onesource": {"40": 1.0, "1000": 2.0, "mean_growth": 4.0}}
    assert [target.met for target in judged({"growth": growth})] == [True, False]


@pytest.mark.parametrize("stored_messages", [10, 40, 200, 1000])
def test_measured_turns_contain_whole_cycles_of_trimming(stored_messages: int) -> None:
    """After so many turns a full conversation holds as many turns as before, and was cut on the way."""
    limits = Limits(60, stored_messages // 2, 10_000_000)
    turns, dropped = limits.max_turns + 1, 0
    number = whole_cycles(1, stored_messages)
    for _ in range(number):
        how = step(turns * 394, turns, 394, limits)
        assert how
        dropped += how.dropped
        turns += 1 - how.dropped
    assert turns == limits.max_turns + 1
    assert dropped == number == beyond(limits)


@pytest.mark.parametrize(("turns", "expected"), [(1, 6), (6, 6), (7, 12), (50, 54)])
def test_cycles_are_whole(turns: int, expected: int) -> None:
    assert whole_cycles(turns, 40) == expected


@pytest.mark.parametrize(
    ("stored", "messages_kept", "turns", "doubled", "misplaced"),
    [
        ("q1 a1 q2 a2 Q1 A1", 6, 3, 0, 0),
        ("before x Q1 A1 q1 a1 q2 a2", 6, 3, 0, 0),  # what was there before counts for nothing; writers have no order
        ("q1 a1 q2 Q1 A1 a2", 6, 2, 0, 0),
        ("q1 a1 q1 a1 q2 a2", 4, 2, 2, 0),
        ("q2 a2 q1 a1 Q1 A1", 6, 3, 0, 2),
        ("a1 q1 q2 a2", 4, 1, 0, 1),
        ("q1 a1", 2, 1, 0, 0),
    ],
)
def test_what_is_kept_of_writers(stored: str, messages_kept: int, turns: int, doubled: int, misplaced: int) -> None:
    """Lost, torn, doubled and misplaced messages of two writers are counted each by itself."""
    own = [[("q1", "a1"), ("q2", "a2")], [("Q1", "A1")]]
    expected = {"messages": messages_kept, "turns": turns, "doubled": doubled, "misplaced": misplaced}
    assert kept(own, stored.split()) == expected


def test_loads_over_http_have_their_spread() -> None:
    """The ratio is the median of rounds, beside the least and the greatest; what was not 200 is added up."""
    own = [{"requests_per_second": each, "not_200": 1} for each in (5.0, 9.0, 8.0)]
    figures = http._median(own, [{"requests_per_second": 10.0, "not_200": 0}] * 3)
    assert (figures["ratio"], figures["least_ratio"], figures["most_ratio"]) == (0.8, 0.5, 0.9)
    assert figures["not_200"] == 3


def test_appends_have_a_row_for_conversations_that_grow() -> None:
    each = {"floor_us": 2.0, "onesource_us": 1.0, "ratio": 0.5}
    ((_, content),) = document.tables({"append": {**each, "growing": {**each, "ratio": 1.15}}})
    assert content.splitlines()[-1] == "| conversation not full (0 to 40 turns) | 2.00 | 1.00 | 1.15 |"


def test_page_is_made_from_its_figures() -> None:
    """docs/performance.md and the README say what docs/performance.json has: `python -m benchmarks.document` writes
    them again after a change of their words."""
    figures = json.loads((document.DOCS / "performance.json").read_text())
    assert (document.DOCS / "performance.md").read_text() == document.page(figures)
    assert document.quoted(figures) in document.README.read_text()
