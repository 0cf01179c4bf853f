"""A measured store is the store that it wraps, and keeps to the deadline of a request."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from conversations import deadline
from conversations.breaker import TRIPS
from conversations.datasets import Dataset
from conversations.errors import StoreUnavailable
from conversations.runtime import gauges
from conversations.slots import Slots
from conversations.stores import measured
from conversations.stores.measured import MeasuredStore
from conversations.stores.memory import MemoryStore
from conversations.turns import History, Limits
from tests.api.talking import sample
from tests.builders import a_session, a_turn, some_turns
from tests.servers import eventually


def a_store() -> MeasuredStore:
    inner = MemoryStore("redis", Limits(60, 16, 100_000))
    return MeasuredStore(inner, control=inner)


def test_its_limits_are_those_of_the_store_it_wraps() -> None:
    store, session, turns = a_store(), a_session(), some_turns(5)
    store.limits = Limits(60, 2, 100_000)
    store.append(session, None, turns)
    assert store.load(session) == History.of(turns[-2:])


CALLS: dict[str, Callable[[MeasuredStore], Any]] = {
    "load": lambda store: store.load("s"),
    "inspect": lambda store: store.inspect("s"),
    "append": lambda store: store.append("s", a_turn()),
    "delete": lambda store: store.delete("s", a_turn().id),
    "quarantine": lambda store: store.quarantine("s"),
    "clear_flag": lambda store: store.clear_flag("s", "flag"),
    "scan": lambda store: store.scan(),
    "summaries": lambda store: store.summaries(["s"]),
    "report": lambda store: store.report(),
    "identify": lambda store: store.identify(Dataset("new", 1), None),
    "ping": lambda store: store.ping(),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_no_call_is_made_when_the_request_has_no_time_left(
    call: Callable[[MeasuredStore], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = a_store()
    call(store)
    monkeypatch.setattr(deadline, "SECONDS", 0.0)
    with deadline.begun(), pytest.raises(StoreUnavailable, match="no time left"):
        call(store)


def test_a_call_that_is_not_made_is_no_fault_of_the_store(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gauges.start()
    store, errors = a_store(), "store_errors_total"
    before = sample(errors, store="redis", operation="load")
    monkeypatch.setattr(deadline, "SECONDS", 0.0)
    with deadline.begun():
        for _ in range(TRIPS):
            with pytest.raises(StoreUnavailable):
                store.load("s")
    assert store.reads.allows()
    assert sample(errors, store="redis", operation="load") == before
    assert not caplog.records


def fails(store: MeasuredStore) -> None:
    with pytest.raises(StoreUnavailable), store.recorded_batch("append", write=True):
        raise StoreUnavailable("redis", "timeout")


def test_a_batch_counts_for_the_breaker_only_where_it_fails() -> None:
    """It has longer than a turn's call, so its duration shows nothing."""
    store = a_store()
    store.writes.slow = 0.0  # whatever a call takes is too long
    for _ in range(TRIPS):
        with store.recorded_batch("append", write=True):
            pass
    assert store.writes.allows()
    for _ in range(TRIPS):
        fails(store)
    assert not store.writes.allows()
    assert store.reads.allows()


def test_a_slow_call_in_a_crowded_process_shows_no_slow_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its time is that of other threads too. The traffic would move to the other store, which is asked no sooner."""
    slots = Slots(1)
    monkeypatch.setattr(measured, "slots", slots)
    store = a_store()
    store.reads.slow = 0.0  # whatever a call takes is too long
    with ThreadPoolExecutor() as threads:
        with slots.taken():
            waits = threads.submit(lambda: slots.taken().__enter__())
            eventually(lambda: slots.crowded, "it does not wait")
            for _ in range(TRIPS):
                store.load("s")
            assert store.reads.allows()
        waits.result()
    assert not slots.crowded
    for _ in range(TRIPS):
        store.load("s")
    assert not store.reads.allows()


def test_a_call_has_until_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[float] = []
    monkeypatch.setattr(MemoryStore, "ping", lambda self: left.append(deadline.left()))
    monkeypatch.setattr(deadline, "SECONDS", 1.9)
    with deadline.begun():
        begun = time.monotonic()
        a_store().ping()
        assert 1.65 - (time.monotonic() - begun) <= left[0] <= 1.65
