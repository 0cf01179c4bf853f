"""CHAT_RATE for all processes together: each `Rates` here is a process, on this machine or another."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from typing import Any

import pytest
from pytest_django import Settings

from conversations import deadline
from conversations.api.throttling import asker
from conversations.runtime import rates as module
from conversations.runtime.rates import Rates, parsed
from conversations.runtime.state import state
from conversations.stores.control import Rate
from conversations.stores.redis.keys import rate_key
from tests import round_trips
from tests.api.talking import post, sample
from tests.api.test_errors import refused
from tests.api.test_tokens import QUESTION, a_client
from tests.builders import a_session
from tests.servers import RedisServer, eventually

PROCESSES = 4
RATE = Rate(30, 60)


@pytest.fixture
def processes() -> list[Rates]:
    return [Rates() for _ in range(PROCESSES)]


@pytest.fixture(autouse=True)
def _in_a_request(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """With a deadline, and time for a busy machine."""
    monkeypatch.setattr(module, "SECONDS", 5.0)
    state()  # made here: to make it, a test's thread would wait for slots that the others have
    with deadline.begun():
        yield


def let_through(process: Rates, name: str, asks: int, rate: Rate = RATE) -> int:
    return sum(not process.wait(name, rate) for _ in range(asks))


def report(processes: list[Rates]) -> None:
    for process in processes:
        process.report()


class TestTogether:
    def test_all_processes_let_through_the_limit_and_one_each_at_the_most(self, processes: list[Rates]) -> None:
        name = a_session()
        asked = islice(cycle(processes), 50 * PROCESSES)
        assert RATE.limit <= sum(not one.wait(name, RATE) for one in asked) <= RATE.limit + PROCESSES

    def test_so_do_all_threads_at_once(self, processes: list[Rates]) -> None:
        name = a_session()

        def ask(process: Rates) -> int:
            with deadline.begun():
                return let_through(process, name, 25)

        with ThreadPoolExecutor(8) as pool:
            assert RATE.limit <= sum(pool.map(ask, processes * 2)) <= RATE.limit + PROCESSES

    def test_one_process_alone_may_use_all(self, processes: list[Rates]) -> None:
        name = a_session()
        assert let_through(processes[0], name, 100) == RATE.limit
        # What another one lets through it has to report.
        assert let_through(processes[1], name, 100) == 1

    def test_what_one_process_has_and_does_not_use_comes_back(self, processes: list[Rates]) -> None:
        name = a_session()
        assert [let_through(one, name, 2) for one in processes] == [2] * PROCESSES
        report(processes)
        assert let_through(processes[0], name, 100) == RATE.limit - 2 * (PROCESSES - 1) - 2

    def test_after_the_time_of_the_rate_there_are_permits_again(self, processes: list[Rates]) -> None:
        name, rate = a_session(), Rate(3, 1)
        assert let_through(processes[0], name, 9, rate) == 3
        eventually(lambda: not processes[0].wait(name, rate), "nothing is let through")

    def test_no_more_than_the_limit_at_any_time(self, processes: list[Rates]) -> None:
        """At a steady load, in each span of the rate's time."""
        name, rate, times = a_session(), Rate(20, 1), list[float]()
        until = time.monotonic() + 2.5
        for process in cycle(processes):
            if (now := time.monotonic()) > until:
                break
            if not process.wait(name, rate):
                times.append(now)
            if len(times) % 10 == 0:
                report(processes)
        most = max(sum(one <= other < one + 1.0 for other in times) for one in times)
        assert most <= rate.limit + PROCESSES
        assert len(times) >= 2 * rate.limit

    def test_the_wait_is_that_of_what_all_have_counted(self, processes: list[Rates]) -> None:
        name = a_session()
        let_through(processes[0], name, 100)
        let_through(processes[1], name, 1)
        assert 55 < processes[1].wait(name, RATE) <= 64


class TestApart:
    def test_two_tenants_with_the_same_name_and_session_never_meet(self, settings: Settings) -> None:
        settings.CHAT_AUTH, settings.CHAT_RATE = "token", "2/min"
        question = QUESTION | {"session_id": a_session()}
        one, other = a_client(a_session(), "same"), a_client(a_session(), "same")
        key = {"Idempotency_Key": "same"}
        assert [post(question, **one, **key).status_code for _ in range(3)] == [200, 200, 429]
        assert [post(question, **other, **key).status_code for _ in range(3)] == [200, 200, 429]

    @pytest.mark.parametrize(("address", "name"), [("tenant:name", "@tenant:name"), ("::1", "@::1")])
    def test_no_address_is_counted_as_a_token(self, address: str, name: str) -> None:
        assert asker(from_address(address)) == name

    def test_a_long_address_is_kept_short(self) -> None:
        """It comes from a header."""
        assert len(asker(from_address("\udcff" * 9000))) == 33


class TestRoundTrips:
    def test_an_ask_now_and_then_has_none(self, processes: list[Rates]) -> None:
        name = a_session()
        for _ in range(10):
            with round_trips.to_redis() as sent:
                assert processes[0].wait(name, RATE) == 0.0
            assert sent == []
            processes[0].report()

    def test_fast_asks_have_one_in_several(self, processes: list[Rates]) -> None:
        with round_trips.to_redis() as sent:
            assert let_through(processes[0], a_session(), 10_000, Rate(10_000, 60)) == 10_000
        assert len(sent) < 100

    def test_a_client_over_its_limit_has_none(self, processes: list[Rates]) -> None:
        name = a_session()
        let_through(processes[0], name, 100)
        let_through(processes[1], name, 2)
        with round_trips.to_redis() as sent:
            assert let_through(processes[0], name, 1000) == let_through(processes[1], name, 100) == 0
        assert sent == []

    def test_those_of_many_clients_are_reported_together(self, processes: list[Rates]) -> None:
        for _ in range(500):
            processes[0].wait(a_session(), RATE)
        with round_trips.to_redis() as sent:
            processes[0].report()
        assert len(sent) == 3
        with round_trips.to_redis() as sent:
            processes[0].report()
        assert sent == []


class TestOutages:
    def test_each_process_counts_alone_while_redis_is_out(self, processes: list[Rates], redis_out: None) -> None:
        name, before = a_session(), fallbacks()
        assert [let_through(one, name, 50) for one in processes] == [RATE.limit] * PROCESSES
        assert fallbacks() == before + PROCESSES * (RATE.limit - 1)  # the first of each would be reported later

    def test_a_redis_that_does_not_answer_is_waited_for_once(
        self, processes: list[Rates], redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "SECONDS", 0.05)
        name = a_session()
        let_through(processes[0], name, 2)  # it is connected
        redis_server.freeze()
        try:
            begun = time.monotonic()
            assert let_through(processes[0], name, 28) == 28
            took = time.monotonic() - begun
        finally:
            redis_server.thaw()
        assert took < 1.0

    def test_a_redis_whose_breaker_is_open_is_not_asked(self, processes: list[Rates]) -> None:
        state().stores["redis"].writes.trip()
        with round_trips.to_redis() as sent:
            assert let_through(processes[0], a_session(), 50) == RATE.limit
            processes[0].report()
        assert sent == []

    def test_what_was_let_through_in_an_outage_counts_when_it_ends(
        self, processes: list[Rates], redis_server: RedisServer, redis_out: None
    ) -> None:
        name = a_session()
        assert let_through(processes[0], name, 20) == 20
        redis_server.start()
        reported(processes[0], name)
        assert let_through(processes[1], name, 50) == 10

    def test_a_value_of_another_program_is_as_an_outage(
        self, processes: list[Rates], redis_server: RedisServer
    ) -> None:
        name = a_session()
        with redis_server.client() as client:
            client.set(rate_key(name, RATE), "x", ex=60)
        assert let_through(processes[0], name, 50) == RATE.limit

    def test_a_killed_redis_ends_no_request(
        self, settings: Settings, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings.CHAT_AUTH, settings.CHAT_RATE = "token", "6/min"
        headers = a_client()
        found = [post(QUESTION, **headers).status_code for _ in range(3)]
        redis_server.kill()
        try:
            found += [post(QUESTION, **headers).status_code for _ in range(3)]
            refused(post(QUESTION, **headers), 429, "throttled")
        finally:
            redis_server.start()
        assert found == [200] * 6


class TestMemory:
    def test_the_client_that_has_been_silent_for_longest_is_forgotten(
        self, processes: list[Rates], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "MOST", 3)
        for name in ("a", "b", "c", "a", "d"):
            processes[0].wait(name, RATE)
        assert list(processes[0]._clients) == ["c", "a", "d"]
        processes[0].report()

    def test_what_is_kept_of_a_client_does_not_grow_with_its_asks(self) -> None:
        now = [1000.0]
        process, rate = Rates(lambda: now[0]), Rate(1_000_000, 60)
        state().stores["redis"].writes.trip()
        for _ in range(5000):
            now[0] += 0.1
            assert process.wait("a", rate) == 0.0
        (one,) = process._clients.values()
        assert len(one.counts) <= 32
        assert one.used == sum(count for _, count in one.counts)


def test_own_asks_are_counted_for_the_time_of_the_rate() -> None:
    now = [1000.0]
    process = Rates(lambda: now[0])
    state().stores["redis"].writes.trip()
    assert let_through(process, "a", 40) == RATE.limit
    now[0] += 59.9
    assert 0 < process.wait("a", RATE) <= 2.1
    now[0] += 2.2
    assert let_through(process, "a", 40) == RATE.limit


@pytest.mark.parametrize(
    ("text", "rate"),
    [("30/min", Rate(30, 60)), ("2/s", Rate(2, 1)), ("5/hour", Rate(5, 3600)), ("9/day", Rate(9, 86_400))],
)
def test_a_rate_is_read(text: str, rate: Rate) -> None:
    assert parsed(text) == rate


def reported(process: Rates, name: str) -> None:
    """Report until it is done: after an outage there is a pause."""

    def done() -> bool:
        process.report()
        return process._clients[name].asked == 0

    eventually(done, "it is not reported")


def fallbacks() -> float:
    return sample("rate_fallbacks_total")


def from_address(address: str) -> Any:
    return type("Request", (), {"user": None, "headers": {}, "META": {"REMOTE_ADDR": address}})()
