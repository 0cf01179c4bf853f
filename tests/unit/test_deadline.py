"""A request has one deadline for all its calls to stores."""

import math
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from contextvars import copy_context
from functools import partial

import pytest

from conversations import deadline
from conversations.errors import StoreUnavailable
from conversations.slots import slots


class Clock:
    """Stands for the module `time`; only the test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr(deadline, "SECONDS", 1.9)
    monkeypatch.setattr(deadline, "time", clock := Clock())
    return clock


def left(alias: str) -> float:
    """Return what a call to the store would have."""
    with deadline.call(alias):
        return deadline.left()


def take(clock: Clock, alias: str, seconds: float) -> None:
    with deadline.call(alias):
        clock.now += seconds


def test_without_a_deadline_a_call_is_not_bounded() -> None:
    with deadline.call("redis"), deadline.excluded():
        assert deadline.left() == math.inf


def test_a_call_is_bounded_by_what_the_calls_before_it_left(clock: Clock) -> None:
    with deadline.begun():
        take(clock, "redis", 0.8)
        assert left("mongo") == pytest.approx(1.1)


def test_one_store_cannot_take_the_time_of_the_other(clock: Clock) -> None:
    with deadline.begun():
        assert left("mongo") == pytest.approx(1.65)
        take(clock, "mongo", 0.5)
        take(clock, "mongo", left("mongo"))
        with pytest.raises(StoreUnavailable, match="no time left"):
            left("mongo")
        assert left("redis") == pytest.approx(0.25)


def test_both_stores_together_cannot_take_more_than_there_is(clock: Clock) -> None:
    with deadline.begun():
        take(clock, "mongo", 1.0)
        take(clock, "redis", 0.9)
        for alias in ("redis", "mongo"):
            with pytest.raises(StoreUnavailable, match="no time left"):
                left(alias)


def test_a_call_that_fails_has_taken_its_time_too(clock: Clock) -> None:
    with deadline.begun():
        with pytest.raises(RuntimeError), deadline.call("mongo"):
            clock.now += 1.0
            raise RuntimeError
        assert left("mongo") == pytest.approx(0.65)


def test_what_a_model_takes_is_not_counted(clock: Clock) -> None:
    with deadline.begun():
        with deadline.excluded():
            clock.now += 20.0
        assert left("mongo") == pytest.approx(1.65)


def test_what_is_not_asked_of_a_store_counts_for_the_request_alone(clock: Clock) -> None:
    with deadline.begun():
        clock.now += 1.0
        assert [left("redis"), left("mongo")] == pytest.approx([0.9, 0.9])


def test_a_deadline_ends_with_its_request(clock: Clock) -> None:
    with deadline.begun():
        take(clock, "mongo", 1.6)
    with deadline.call("mongo"):
        assert deadline.left() == math.inf
    with deadline.begun():
        assert left("mongo") == pytest.approx(1.65)


def test_a_thread_that_copies_the_context_has_the_same_deadline(clock: Clock) -> None:
    found: list[float] = []
    with deadline.begun():
        context = copy_context()
        take(clock, "mongo", 1.0)
    thread = threading.Thread(target=context.run, args=[lambda: found.append(left("mongo"))])
    thread.start()
    thread.join()
    assert found == [pytest.approx(0.65)]


@pytest.mark.parametrize("waits", [deadline.excluded, partial(deadline.call, "redis")], ids=["model", "store"])
def test_a_request_that_waits_lets_another_run(waits: Callable[[], AbstractContextManager[None]]) -> None:
    free = slots._free
    with deadline.begun():
        assert slots._free == free - 1
        with waits():
            assert slots._free == free
        assert slots._free == free - 1
    assert slots._free == free


def test_a_request_that_cannot_begin_keeps_no_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    free = slots._free
    monkeypatch.setattr(deadline, "SECONDS", "none")
    with pytest.raises(TypeError), deadline.begun():
        pass
    assert slots._free == free


def test_a_call_that_is_not_made_keeps_the_slot(clock: Clock) -> None:
    free = slots._free
    with deadline.begun():
        clock.now += 5
        with pytest.raises(StoreUnavailable), deadline.call("redis"):
            pass
        assert slots._free == free - 1
    assert slots._free == free
