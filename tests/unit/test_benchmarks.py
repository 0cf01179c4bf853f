"""The benchmarks' own arithmetic, tables and pictures, and that docs/performance.md is what they made."""

import json
import xml.etree.ElementTree as ET

import orjson
import pytest

from benchmarks import document, messages, pictures
from benchmarks.figures import median_ratio, percentile, shown, table
from benchmarks.targets import judged


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


def test_page_is_made_from_its_figures() -> None:
    """docs/performance.md and the README say what docs/performance.json has: `python -m benchmarks.document` writes
    them again after a change of their words."""
    figures = json.loads((document.DOCS / "performance.json").read_text())
    assert (document.DOCS / "performance.md").read_text() == document.page(figures)
    assert document.quoted(figures) in document.README.read_text()
