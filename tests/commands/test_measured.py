"""Every caller of a store is measured: quarantines, timings, and what the breakers judge."""

from collections.abc import Callable
from pathlib import Path

import pytest

from conversations import history
from conversations.breaker import CLOSED, TRIPS, Breaker
from conversations.clock import now
from conversations.errors import CorruptHistory, StoreUnavailable
from conversations.history import repair
from conversations.runtime import gauges, pings
from conversations.runtime.state import state
from conversations.stores import ALIASES, MONGO, REDIS, store
from ops.consistency import compare
from telemetry import metrics
from tests import environment
from tests.api.talking import sample
from tests.builders import a_session, a_turn
from tests.commands.test_backup import make
from tests.commands.working import hold, run
from tests.servers import RedisServer

pytestmark = pytest.mark.usefixtures("both_empty")


@pytest.fixture(autouse=True)
def _no_second_look_to_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "SECOND_LOOK_SECONDS", 0.0)


def spoil(session: str) -> None:
    with environment.REDIS.client() as client:
        client.set(f"conv:{session}", "no history", ex=60)


def append_to(session: str, folder: Path) -> None:
    reading = history.read(session)
    spoil(session)
    history.append(session, a_turn(), reading)


def repair_it(session: str, folder: Path) -> None:
    spoil(session)
    repair.conversation(session)


def repair_with_others(session: str, folder: Path) -> None:
    spoil(session)
    assert repair.several([session, a_session()]) == (1, [])


def reconcile_it(session: str, folder: Path) -> None:
    spoil(session)
    assert run("reconcile", "--apply")[0] == 0


def restore_it(session: str, folder: Path) -> None:
    backup = make(folder)
    spoil(session)
    code, output = run("restore", str(backup), "--into", "both", "--noinput")
    assert code == 0, output


@pytest.mark.parametrize("quarantine", [append_to, repair_it, repair_with_others, reconcile_it, restore_it])
def test_every_quarantine_is_counted(quarantine: Callable[[str, Path], None], tmp_path: Path) -> None:
    gauges.start()
    session = hold(*ALIASES)
    before = sample("history_corrupt_total", store="redis")
    quarantine(session, tmp_path)
    assert sample("history_corrupt_total", store="redis") == before + 1


def test_nothing_is_counted_where_nothing_was_quarantined() -> None:
    gauges.start()
    before = sample("history_corrupt_total", store="redis")
    store(REDIS).quarantine(a_session())
    assert sample("history_corrupt_total", store="redis") == before


def test_clearing_an_unsynced_flag_is_timed() -> None:
    gauges.start()
    session = a_session()
    store(MONGO).append(session, a_turn(), flag=True)
    before = sample("store_duration_seconds_count", store="mongo", operation="settle")
    repair.conversation(session)
    assert sample("store_duration_seconds_count", store="mongo", operation="settle") == before + 1


def test_a_batch_of_repair_is_one_call_of_each_operation() -> None:
    gauges.start()
    sessions = [a_session() for _ in range(3)]
    for session in sessions:
        store(MONGO).append(session, a_turn(at=now(), key="k"), flag=True)
    expected = {
        REDIS: {"inspect": 1, "append": 1, "keep_keys": 1, "settle": 0},
        MONGO: {"inspect": 1, "append": 0, "keep_keys": 0, "settle": 1},
    }
    before = {alias: calls(alias) for alias in ALIASES}
    assert repair.several(sessions) == (3, [])
    counted = {alias: {name: calls(alias)[name] - before[alias][name] for name in expected[alias]} for alias in ALIASES}
    assert counted == expected


def calls(alias: str) -> dict[str, float]:
    """Return how many calls to the store were counted, by operation."""
    return {name: sample("store_duration_seconds_count", store=alias, operation=name) for name in metrics.OPERATIONS}


def test_a_value_that_is_no_history_is_no_fault_of_its_store() -> None:
    """The store answers, so its breaker stays closed."""
    session = a_session()
    spoil(session)
    for _ in range(10):
        with pytest.raises(CorruptHistory):
            store(REDIS).load(session)
    assert state().stores[REDIS].reads.state == CLOSED


def repair_one() -> None:
    repair.conversation(a_session())


def repair_two() -> None:
    repair.several([a_session(), a_session()])


@pytest.mark.parametrize("call", [repair_one, repair_two])
def test_failed_calls_of_every_caller_open_the_breaker(redis_server: RedisServer, call: Callable[[], None]) -> None:
    reads = state().stores[REDIS].reads
    metrics.store_errors.labels(store=REDIS, operation="inspect")  # as at a server's start
    before = sample("store_errors_total", store="redis", operation="inspect")
    redis_server.kill()
    try:
        for _ in range(TRIPS):
            with pytest.raises(StoreUnavailable):
                call()
        assert not reads.allows()
        assert sample("store_errors_total", store="redis", operation="inspect") == before + TRIPS
    finally:
        redis_server.start()


def test_what_the_watcher_tries_is_judged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It judges its own pings and its own write; the wrapper of the store leaves them to it."""
    writes, judged = state().stores[REDIS].writes, list[Breaker]()
    record = Breaker.record

    def recording(self: Breaker, failed: bool, seconds: float = 0.0) -> None:
        judged.append(self)
        record(self, failed, seconds)

    monkeypatch.setattr(Breaker, "record", recording)
    monkeypatch.setattr("conversations.breaker.OPEN_FOR", (0.0, 0.0))
    writes.trip()
    pings.look()
    assert writes.state == CLOSED
    assert judged == [writes]
