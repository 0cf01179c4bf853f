"""The time by the stores' clock."""

import pytest

from conversations import clock

ORDER = ("redis", "mongo")


class Times:
    """Stands for the module `time`: a wall clock that can be set, and a monotonic one that cannot."""

    def __init__(self) -> None:
        self.wall, self.passed = 1_000.0, 5.0

    def time(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.passed


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> Times:
    times = Times()
    monkeypatch.setattr(clock, "time", times)
    monkeypatch.setattr(clock, "_ahead", None)
    monkeypatch.setattr(clock, "_differences", {})
    return times


def test_before_the_first_look_it_is_this_machines(times: Times) -> None:
    assert (clock.timestamp(), clock.offset()) == (1_000.0, 0.0)


def test_it_is_the_first_stores(times: Times) -> None:
    clock.correct({"redis": 998.0, "mongo": 999.0}, ORDER)
    assert (clock.timestamp(), clock.offset()) == (1_003.0, 3.0)


def test_while_the_first_store_is_out_it_goes_on_as_it_was(times: Times) -> None:
    clock.correct({"redis": 998.0, "mongo": 999.0}, ORDER)
    clock.correct({"mongo": 999.0}, ORDER)
    assert clock.timestamp() == 1_003.0
    clock.correct({}, ORDER)
    assert clock.timestamp() == 1_003.0


def test_it_does_not_jump_where_this_machines_clock_is_set(times: Times) -> None:
    clock.correct({"redis": 998.0}, ORDER)
    times.wall += 121.0
    times.passed += 1.0
    assert (clock.timestamp(), clock.offset()) == (1_004.0, -117.0)
    clock.correct({"redis": 998.0}, ORDER)  # also where it was set between the measurement and this
    assert clock.timestamp() == 1_004.0
    assert clock.ahead(998.0) == -117.0
