"""Every store keeps to what a request has left, though its own timeouts are longer."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from conversations import deadline
from conversations.errors import StoreUnavailable
from conversations.stores import MONGO, REDIS, store
from conversations.stores.base import Page
from conversations.stores.measured import MeasuredStore
from conversations.stores.redis.client import HistoryClient
from tests import environment
from tests.servers import Server
from tests.unit.test_deadline import Clock, clock  # noqa: F401  # a fixture
from tests.unit.test_measured import CALLS

OWN_SECONDS = 2.0  # the shortest of the tests' own timeouts


@pytest.fixture(params=[REDIS, MONGO])
def frozen(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[MeasuredStore]:
    """A store whose server does not answer, in a request that has half a second."""
    one: MeasuredStore = store(request.param)
    server: Server = {REDIS: environment.REDIS, MONGO: environment.MONGO}[request.param]
    one.ping()  # is connected
    monkeypatch.setattr(deadline, "SECONDS", 0.5)
    server.freeze()
    yield one
    server.thaw()


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_call_ends_at_the_deadline(frozen: MeasuredStore, call: Callable[[MeasuredStore], Any]) -> None:
    begin = time.monotonic()
    with deadline.begun(), pytest.raises(StoreUnavailable):
        call(frozen)
    assert time.monotonic() - begin < OWN_SECONDS


def test_redis_returns_a_short_page_where_looking_for_more_would_take_too_long(
    clock: Clock,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The time that is left is for the summaries of what was found."""

    def finds_nothing(self: HistoryClient, cursor: int, pattern: str, count: int) -> tuple[int, list[bytes]]:
        clock.now += 0.3
        return cursor + 1, []

    monkeypatch.setattr(HistoryClient, "scan", finds_nothing)
    with deadline.begun():
        assert store(REDIS).scan() == Page((), "3")
