"""CONV_TTL_SECONDS was lowered: what is deleted then stays deleted, also where a store that was out has copies."""

from collections.abc import Iterator

import pytest
from pytest_django import Settings

from conversations import clock, expiry, history
from conversations.background import watcher
from conversations.history import repair
from conversations.runtime import datasets, state
from conversations.stores import ALIASES, MONGO, REDIS, control, limits, other, store
from conversations.turns import History
from tests import environment
from tests.builders import a_session, some_turns
from tests.contract import test_stores
from tests.servers import eventually

DAY = 86_400
BEFORE, LOWERED = 20 * DAY, DAY
SERVERS = {REDIS: environment.REDIS, MONGO: environment.MONGO}
CONTRACTS: dict[str, test_stores.Contract] = {
    REDIS: test_stores.TestCacheStore(),
    MONGO: test_stores.TestDocumentStore(),
}


@pytest.fixture(autouse=True)
def _nothing_noted() -> Iterator[None]:
    """Nothing is noted, before and after; both stores are up, with their own limits."""
    before = store(REDIS).limits
    forget()
    yield
    for alias in ALIASES:
        store(alias).limits = before
    forget()


def forget() -> None:
    for alias in ALIASES:
        control(alias).write_note(datasets.LATEST_EXPIRY, "")
    state.forget()


@pytest.fixture
def start(settings: Settings, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Be a process that has just started, with a TTL."""

    def begin(ttl: int) -> None:
        settings.CONV_TTL_SECONDS = ttl
        for alias in ALIASES:
            store(alias).limits = limits()
        state.forget()
        monkeypatch.setattr(expiry, "_latest", 0.0)
        watcher._tick()

    return begin


def noted(alias: str) -> float:
    """Return for how many seconds from now copies can live, as the store has it noted."""
    return float(control(alias).note(datasets.LATEST_EXPIRY) or 0.0) - clock.timestamp()


def pass_time(alias: str, session: str, seconds: int) -> None:
    CONTRACTS[alias].let_pass(store(alias), session, seconds)


@pytest.mark.parametrize("out", ALIASES)
def test_what_is_deleted_while_a_store_is_out_stays_deleted(start, out: str) -> None:  # type: ignore[no-untyped-def]
    start(BEFORE)
    session, turns = a_session(), some_turns(2)
    for alias in ALIASES:
        store(alias).append(session, None, turns)
    start(LOWERED)
    SERVERS[out].kill()
    try:
        watcher._tick()
        assert history.delete(session)
    finally:
        SERVERS[out].start()
    eventually(lambda: test_stores.answers(store(out)), "the driver does not see that the store is back")
    for alias in ALIASES:
        pass_time(alias, session, BEFORE - DAY)
    assert store(out).load(session) == History.of(turns)
    repair.conversation(session)
    assert [store(alias).load(session) for alias in ALIASES] == [None, None]
    pass_time(out, session, BEFORE - DAY)
    assert store(out).inspect(session).tombstone


def test_it_is_noted_in_both_stores_and_seldom_written(start) -> None:  # type: ignore[no-untyped-def]
    start(LOWERED)
    for alias in ALIASES:
        assert noted(alias) == pytest.approx(LOWERED + expiry.MARGIN, abs=60)
    written = [control(alias).note(datasets.LATEST_EXPIRY) for alias in ALIASES]
    watcher._tick()
    assert [control(alias).note(datasets.LATEST_EXPIRY) for alias in ALIASES] == written


def test_the_longest_ttl_counts(start) -> None:  # type: ignore[no-untyped-def]
    start(BEFORE)
    start(LOWERED)
    assert store(REDIS).tombstone_ttl == store(MONGO).tombstone_ttl == pytest.approx(BEFORE + expiry.MARGIN, abs=60)
    start(2 * BEFORE)
    assert min(map(noted, ALIASES)) > 2 * BEFORE


@pytest.mark.parametrize("alias", ALIASES)
def test_a_store_that_lost_it_is_given_it_again(start, alias: str) -> None:  # type: ignore[no-untyped-def]
    start(BEFORE)
    control(alias).write_note(datasets.LATEST_EXPIRY, "")
    start(LOWERED)
    assert noted(alias) == pytest.approx(noted(other(alias)), abs=1)
    assert noted(alias) > BEFORE


@pytest.mark.parametrize("alias", ALIASES)
def test_any_process_corrects_a_lower_time_that_another_wrote(start, alias: str) -> None:  # type: ignore[no-untyped-def]
    """It had read the note before a later one was written."""
    start(BEFORE)
    control(alias).write_note(datasets.LATEST_EXPIRY, str(clock.timestamp() + LOWERED))
    start(LOWERED)
    assert noted(alias) == pytest.approx(noted(other(alias)), abs=1)


def test_a_process_that_knows_a_later_time_than_both_stores_writes_it_again(start) -> None:  # type: ignore[no-untyped-def]
    start(BEFORE)
    for alias in ALIASES:
        control(alias).write_note(datasets.LATEST_EXPIRY, str(clock.timestamp() + LOWERED))
    watcher._tick()
    assert min(map(noted, ALIASES)) > BEFORE


@pytest.mark.parametrize("wrong", ["x", "nan", "inf", "-inf", "1e300", "4e9x"])
def test_what_cannot_be_is_written_over(start, wrong: str) -> None:  # type: ignore[no-untyped-def]
    for alias in ALIASES:
        control(alias).write_note(datasets.LATEST_EXPIRY, wrong)
    start(LOWERED)
    for alias in ALIASES:
        assert noted(alias) == pytest.approx(LOWERED + expiry.MARGIN, abs=60)
