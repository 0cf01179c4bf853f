"""What could not be repaired waits longer after every failure."""

import pytest

from conversations.history import pauses
from conversations.history.pauses import Pauses


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(pauses.time, "monotonic", lambda: now[0])
    return now


def test_each_failure_doubles_the_pause_up_to_a_minute(clock: list[float]) -> None:
    waiting = Pauses()
    assert [waiting.failed("s") for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]


def test_only_what_failed_waits_and_not_for_ever(clock: list[float]) -> None:
    waiting = Pauses()
    waiting.failed("s")
    assert (waiting.holds("s"), waiting.holds("other")) == (True, False)
    clock[0] += 1
    assert waiting.holds("s") is False


def test_what_was_repaired_begins_anew(clock: list[float]) -> None:
    waiting = Pauses()
    waiting.failed("s")
    waiting.failed("s")
    waiting.done("s")
    assert (waiting.holds("s"), waiting.failed("s")) == (False, 1)


def test_what_another_process_has_repaired_is_forgotten(clock: list[float]) -> None:
    waiting = Pauses()
    waiting.failed("s")
    clock[0] += 3600
    waiting.failed("other")
    assert waiting.failed("s") == 1
