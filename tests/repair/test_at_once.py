"""Dual write writes to both stores at the same time, so what each answers does not depend on the other."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from pytest_django import Settings

from conversations import deadline, history
from conversations.clock import now
from conversations.errors import KeyExpired
from conversations.history import at_once, repair
from conversations.history.writing import Offer
from conversations.runtime import state
from conversations.slots import Slots
from conversations.stores import ALIASES, MONGO, REDIS, other, store
from conversations.stores.base import Receipt
from conversations.stores.mongo.turns import DocumentStore
from conversations.stores.redis.turns import CacheStore
from conversations.turns import History, Turn
from tests.builders import a_session, a_turn
from tests.servers import RedisServer

SECONDS = 30  # until a call gives up waiting for the other store's


@pytest.fixture(autouse=True)
def dual_write(settings: Settings) -> None:
    settings.CONV_DUAL_WRITE = True
    state.forget()


def meet(monkeypatch: pytest.MonkeyPatch, method: str) -> list[str]:
    """Let each store's method wait until the other's is called too; return the aliases of those that met."""
    barrier, met = threading.Barrier(len(ALIASES), timeout=SECONDS), []

    def waiting(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: Any, *arguments: Any, **options: Any) -> Any:
            barrier.wait()
            met.append(self.alias)
            return real(self, *arguments, **options)

        return call

    for each in (CacheStore, DocumentStore):
        monkeypatch.setattr(each, method, waiting(getattr(each, method)))
    return met


def turns_in(session: str) -> list[tuple[Turn, ...]]:
    return [loaded.turns() if (loaded := store(alias).load(session)) else () for alias in ALIASES]


def test_a_turn_is_written_to_both_stores_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    session = a_session()
    reading = history.read(session)
    met = meet(monkeypatch, "append_after")
    written = history.append(session, a_turn(at=now()), reading)
    assert written.stored_in == (REDIS, MONGO)
    assert sorted(met) == sorted(ALIASES)
    assert turns_in(session) == [(written.turn,)] * 2


def test_stores_that_are_merged_are_read_at_the_same_time(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    settings.CONV_STORE_PRIMARY = "mongo"
    state.forget()
    met = meet(monkeypatch, "inspect")
    assert history.read(a_session()).answered == set(ALIASES)
    assert sorted(met) == sorted(ALIASES)


@pytest.mark.parametrize("alias", ALIASES)
@pytest.mark.parametrize("theirs_is_later", [False, True])
def test_of_two_tries_at_the_same_moment_the_later_one_is_the_turn(alias: str, theirs_is_later: bool) -> None:
    """Another machine's try has reached one store, this machine's the other."""
    session, moment = a_session(), now()
    reading = history.read(session)
    ours = a_turn("Q?", "Ours.", at=moment, key="k-1")
    theirs = a_turn("Q?", "Theirs.", at=moment + timedelta(seconds=1 if theirs_is_later else -1), key="k-1")
    store(alias).append(session, theirs)
    written = history.append(session, ours, reading)
    later = theirs if theirs_is_later else ours
    assert (written.turn, written.new) == (later, not theirs_is_later)
    assert set(written.stored_in) == set(ALIASES)
    assert any(store(each).inspect(session).flag for each in ALIASES)
    assert history.read(session, lazy=True).history == History.of([later])
    repair.conversation(session)
    assert [set(turns) for turns in turns_in(session)] == [{ours, theirs}] * 2
    assert history.read(session, lazy=True).history == History.of([later])


@pytest.mark.parametrize("alias", ALIASES)
@pytest.mark.parametrize("key", ["k-1", None])
def test_a_turn_that_one_store_knows_as_deleted_is_stored_later_in_both(alias: str, key: str | None) -> None:
    """A deletion has reached one store when the turn is written to both."""
    session = a_session()
    reading = history.read(session)
    turn = a_turn(at=now(), key=key)
    store(alias).append(session, turn)
    store(alias).delete(session, turn.answer.id)
    later = a_turn(at=now(), key="k-2" if key else None)
    store(alias).delete(session, later.answer.id)
    written = history.append(session, later, reading)
    assert written.stored_in == (REDIS, MONGO)
    assert written.new
    assert written.turn.id > later.answer.id
    assert all(turns[-1].id == written.turn.id for turns in turns_in(session))
    history.delete(session)
    assert history.read(session).found is False


@pytest.mark.parametrize("alias", ALIASES)
def test_a_turn_that_one_store_had_before_is_missing_there_once_the_other_has_it(alias: str) -> None:
    session = a_session()
    reading = history.read(session)
    turn = a_turn(at=now(), key="k-1")
    store(alias).append(session, turn)
    store(alias).delete(session, turn.answer.id)  # its key is kept
    written = history.append(session, a_turn(at=now() + timedelta(seconds=1), key="k-1"), reading)
    assert written.stored_in == (other(alias),)
    assert store(other(alias)).inspect(session).flag


def test_what_one_store_missed_is_flagged_in_the_other(redis_server: RedisServer) -> None:
    session = a_session()
    reading = history.read(session)
    redis_server.kill()
    try:
        written = history.append(session, a_turn(at=now()), reading)
        assert written.stored_in == (MONGO,)
        assert store(MONGO).inspect(session).flag
    finally:
        redis_server.start()
    repair.conversation(session)
    assert turns_in(session) == [(written.turn,)] * 2


@pytest.mark.parametrize("broken", [CacheStore, DocumentStore])
def test_an_error_that_is_no_outage_leaves_a_flag_where_the_turn_is(
    broken: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = a_session()
    reading = history.read(session)

    def fail(*arguments: Any, **options: Any) -> None:
        raise ValueError("nobody thought of it")

    with monkeypatch.context() as patched, pytest.raises(ValueError, match="nobody thought of it"):
        patched.setattr(broken, "append_after", fail)
        history.append(session, a_turn(at=now()), reading)
    has_it = MONGO if broken is CacheStore else REDIS
    assert store(has_it).inspect(session).flag
    repair.conversation(session)
    assert [len(turns) for turns in turns_in(session)] == [1, 1]


def test_where_no_thread_can_be_started_the_turn_is_written_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    session = a_session()
    reading = history.read(session)

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    executor = ThreadPoolExecutor(1)
    with monkeypatch.context() as patched:
        patched.setattr(at_once, "_executor", executor)
        patched.setattr(threading.Thread, "start", refuse)
        written = history.append(session, a_turn(at=now()), reading)
    assert written.stored_in == (REDIS, MONGO)
    history.delete(session)
    executor.submit(int).result()  # what it kept runs now
    executor.shutdown()
    assert not history.read(session).found


@pytest.mark.parametrize("alias", ALIASES)
def test_a_duplicate_that_is_deleted_as_it_is_found_is_no_stored_turn(
    alias: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deletion comes between a store's refusal of the second try and the look at the first."""
    session, turn = a_session(), a_turn(at=now(), key="k-1")
    reading = history.read(session)
    for each in ALIASES:
        store(each).append(session, turn)
    duplicate = Offer.duplicate

    def deleted_before(self: Offer) -> Turn | Receipt:
        for each in ALIASES:
            store(each).delete(session, turn.answer.id)
        return duplicate(self)

    monkeypatch.setattr(Offer, "duplicate", deleted_before)
    with pytest.raises(KeyExpired):
        history.append(session, a_turn(at=now() + timedelta(seconds=1), key="k-1"), reading)
    assert turns_in(session) == [()] * 2


def test_a_thread_of_a_request_with_a_slot_has_one_too(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Slots(1)
    monkeypatch.setattr(at_once, "slots", one)
    monkeypatch.setattr(deadline, "slots", one)
    seen: list[bool] = []
    with one.taken():
        first = at_once.at_once([lambda: seen.append(one.held)] * 2)
    assert (first, seen) == ([None, None], [True, True])
    at_once.at_once([lambda: seen.append(one.held)] * 2)
    assert seen[2:] == [False, False]
