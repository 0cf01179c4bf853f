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
    monkeypatch.setattr(clock, "_wall", 0.0)
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


@pytest.mark.parametrize("known", [{"redis": 998.0, "mongo": 999.0}, {"redis": 998.0}])
def test_while_the_first_store_is_out_it_goes_on_where_the_others_clock_is_set(
    times: Times, known: dict[str, float]
) -> None:
    clock.correct(known, ORDER)
    for set_to in (1_119.0, 1_119.1, 900.0):
        clock.correct({"mongo": set_to}, ORDER)
        assert abs(clock.timestamp() - 1_003.0) < 0.2
    clock.correct({"redis": 998.0, "mongo": 900.0}, ORDER)
    assert clock.timestamp() == 1_003.0


def test_a_suspended_machine_follows_the_other_store_while_the_first_is_out(times: Times) -> None:
    clock.correct({"redis": 998.0, "mongo": 999.0}, ORDER)
    times.wall += 3_600.0  # and the monotonic clock has stood still
    clock.correct({"mongo": 4_599.0}, ORDER)
    assert clock.timestamp() == 4_603.0


def test_where_the_first_store_was_never_there_the_others_counts(times: Times) -> None:
    for measured in (999.0, 1_119.0):
        clock.correct({"mongo": measured}, ORDER)
        assert clock.timestamp() == measured + 5.0
