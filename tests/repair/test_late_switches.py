"""A process that follows a switch late, or sees only the last of two, forgets nothing."""

import time
from collections.abc import Iterator

import pytest

from conversations import history
from conversations.background import coverage, watcher
from conversations.datasets import Coverage
from conversations.history import walk
from conversations.policy import Routing
from conversations.runtime import state, switching
from conversations.runtime.state import FOLLOWED, ProcessState
from conversations.stores import ALIASES, MONGO, REDIS, control, reachable, store
from conversations.turns import History
from tests.builders import a_session, a_turn, some_turns
from tests.servers import MongoServer, RedisServer, eventually


@pytest.fixture
def process(redis_server: RedisServer, mongo_server: MongoServer) -> Iterator[ProcessState]:
    """A process that follows switches, on two empty stores."""
    with redis_server.client() as redis, mongo_server.client() as mongo:
        redis.flushdb()
        for name in ("conversations_conversation", "onesource_notes"):
            mongo.get_default_database()[name].delete_many({})
    state.forget()
    watcher._tick()
    watcher._follow()
    yield state.state()
    eventually(lambda: reachable() == ALIASES, "not every store answers")
    for alias in ALIASES:
        control(alias).write_note(switching.NOTE, "")
    state.forget()


def late(process: ProcessState) -> None:
    """Let its last look at the recorded switches be too long ago."""
    process.followed_at = time.monotonic() - FOLLOWED


def test_a_sweep_begins_anew_after_a_switch_and_another_one_back(
    process: ProcessState, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A turn that another process stored in between is in one store, without a flag."""
    monkeypatch.setattr(walk, "PAGE", 1)
    monkeypatch.setattr(coverage, "_SETTLED", 0.0)
    monkeypatch.setattr(coverage, "_sweeping", None)
    session = a_session()
    for alias in ALIASES:
        store(alias).append(session, None, some_turns(1))
    switching.record(Routing(REDIS, True), "a test")
    watcher._follow()
    process.known.coverage = Coverage()
    while coverage._sweeping is None or not coverage._sweeping.sweep.compared:
        coverage.gain(process, 0.0)
    switching.record(Routing(REDIS, False), "a test")
    store(REDIS).append(session, a_turn("in between"))
    switching.record(Routing(REDIS, True), "a test")
    watcher._follow()
    eventually(lambda: (coverage.gain(process, 0.0), process.known.complete == set(ALIASES))[1], "no coverage")
    assert store(MONGO).load(session) == store(REDIS).load(session)


def test_a_process_that_was_stopped_ends_no_sweep(process: ProcessState) -> None:
    late(process)
    process.known.coverage = Coverage()
    coverage.gain(process, float("inf"))
    assert not process.known.complete


def test_a_process_that_may_not_know_of_a_switch_leaves_out_no_store(process: ProcessState) -> None:
    late(process)
    session, turn = a_session(), a_turn()
    written = history.append(session, turn, history.read(session))
    assert set(written.stored_in) == set(ALIASES)
    assert store(MONGO).load(session) == History.of([turn])


def test_nor_does_it_answer_full_from_one_store(process: ProcessState, mongo_server: MongoServer) -> None:
    eventually(lambda: (watcher._repair(), REDIS in process.known.complete)[1], "no coverage")
    watcher._follow()
    mongo_server.kill()
    try:
        assert history.read(a_session()).context == "full"
        late(process)
        assert history.read(a_session()).context == "behind"
    finally:
        mongo_server.start()


def test_a_look_that_reaches_no_store_does_not_count(
    process: ProcessState, redis_server: RedisServer, mongo_server: MongoServer
) -> None:
    late(process)
    redis_server.kill()
    mongo_server.kill()
    try:
        watcher._follow()
        assert not process.follows
    finally:
        redis_server.start()
        mongo_server.start()
    eventually(lambda: (watcher._follow(), process.follows)[1], "no store is reached")
