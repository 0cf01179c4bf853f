"""Bringing two real stores together: everything in both, nothing deleted back, and again changes nothing."""

import time
from datetime import timedelta
from pathlib import Path

import pytest
from django.conf import settings

from conversations import history
from conversations.background import watcher
from conversations.clock import now
from conversations.errors import StoreUnavailable
from conversations.history import repair
from conversations.history.sweep import Sweep
from conversations.ids import MESSAGE_ID, tombstone_for
from conversations.policy import Routing, Switch
from conversations.runtime import pings, state, switching
from conversations.stores import ALIASES, MONGO, REDIS, other, store
from conversations.turns import History, Turn
from tests import environment
from tests.builders import a_session, a_turn, some_turns
from tests.servers import RedisServer, eventually


def both(session: str) -> list[History | None]:
    return [store(alias).load(session) for alias in (REDIS, MONGO)]


def put(session: str, alias: str, *turns: Turn, flag: bool = False) -> None:
    store(alias).append(session, None, turns, flag=flag)


def test_each_store_gets_its_missing_turns_in_their_places() -> None:
    session, turns = a_session(), some_turns(6)
    put(session, REDIS, turns[0], turns[2], turns[5])
    put(session, MONGO, turns[1], turns[2], turns[4])
    assert repair.conversation(session) is True
    assert both(session) == [History.of(turns[n] for n in (0, 1, 2, 4, 5))] * 2
    assert repair.conversation(session) is False


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("alias", ALIASES)
def test_keys_of_turns_that_are_gone_are_given_too(alias: str, together: bool) -> None:
    """The turn was stored while the other store was out, and trimmed before it was back."""
    session, first = a_session(), a_turn(at=now(), key="k-1")
    put(session, alias, first)
    store(alias).delete(session, first.answer.id)
    put(session, alias, a_turn(at=now() + timedelta(seconds=1)), flag=True)
    repair.several([session]) if together else repair.conversation(session)
    for one in ALIASES:
        assert set(store(one).inspect(session).keys) == {"k-1"}
        assert store(one).append(session, a_turn(at=now() + timedelta(seconds=2), key="k-1")).expired


def test_flags_are_taken_away_once_all_is_done() -> None:
    session = a_session()
    put(session, MONGO, a_turn(), flag=True)
    repair.Flagged().step(time.monotonic() + 5)
    assert session not in store(MONGO).flags(10_000).sessions
    assert both(session)[0] == both(session)[1] is not None


def test_a_flag_set_meanwhile_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn that comes while its conversation is repaired is repaired next time."""
    session, late = a_session(), a_turn()
    put(session, MONGO, a_turn(), flag=True)
    append = store(REDIS).append

    def append_and_be_overtaken(*arguments: object, **options: object) -> object:
        put(session, MONGO, late, flag=True)
        return append(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(store(REDIS), "append", append_and_be_overtaken)
    repair.conversation(session)
    monkeypatch.undo()
    assert session in store(MONGO).flags(10_000).sessions
    repair.conversation(session)
    assert both(session)[0] == both(session)[1]
    assert session not in store(MONGO).flags(10_000).sessions


@pytest.mark.parametrize(("deleted_in", "kept_in"), [(REDIS, MONGO), (MONGO, REDIS)])
def test_what_was_deleted_in_one_store_goes_from_the_other(deleted_in: str, kept_in: str) -> None:
    session, old, new = a_session(), some_turns(2), a_turn()
    put(session, REDIS, *old)
    put(session, MONGO, *old)
    store(deleted_in).delete(session, old[-1].answer.id, flag=True)
    put(session, deleted_in, new)
    repair.conversation(session)
    assert both(session) == [History.of([new])] * 2
    put(session, kept_in, *old)
    assert both(session) == [History.of([new])] * 2


def test_a_corrupt_value_is_quarantined_and_filled_from_the_other_store() -> None:
    session, turn = a_session(), a_turn()
    put(session, MONGO, turn)
    with environment.REDIS.client() as client:
        client.set(f"conv:{session}", "no history", ex=60)
    repair.conversation(session)
    assert both(session) == [History.of([turn])] * 2


def test_superseded_turns_are_the_same_in_both_stores() -> None:
    """Two tries of one question, each stored where the other could not be seen: a reader sees the later."""
    session, first, second = a_session(), a_turn(key="k"), a_turn(key="k")
    put(session, REDIS, first)
    put(session, MONGO, second)
    repair.conversation(session)
    assert both(session) == [History.of([first, second])] * 2
    assert history.read(session).history == History.of([second])


def sweep() -> Sweep:
    """Compare everything once."""
    done = Sweep()
    eventually(done.step, "the sweep does not end")
    return done


@pytest.mark.parametrize("alias", ALIASES)
def test_a_sweep_gives_a_store_back_what_it_lost(alias: str) -> None:
    sessions = [a_session() for _ in range(30)]
    for session in sessions:
        put(session, other(alias), *some_turns(2))
    assert sweep().repaired >= 30
    assert all(one == two for one, two in map(both, sessions))


@pytest.mark.parametrize("alias", ALIASES)
def test_a_sweep_finds_a_turn_missing_in_the_middle(alias: str) -> None:
    session, (one, two, three) = a_session(), some_turns(3)
    put(session, alias, one, three)
    put(session, other(alias), one, two, three)
    sweep()
    assert both(session) == [History.of([one, two, three])] * 2


@pytest.mark.parametrize("alias", ALIASES)
def test_a_sweep_copies_a_deletion(alias: str) -> None:
    """Also where the other store holds the conversation still, and where it holds nothing."""
    held, gone = a_session(), a_session()
    turns = some_turns(2)
    put(held, other(alias), *turns)
    for session in (held, gone):
        store(alias).delete(session, turns[-1].answer.id)
    sweep()
    assert both(held) == [None, None]
    assert all(store(each).inspect(gone).tombstone == turns[-1].answer.id for each in ALIASES)


def test_a_deletion_while_a_store_is_out_reaches_it_when_it_is_back(redis_server: RedisServer) -> None:
    session, turns = a_session(), some_turns(2)
    put(session, REDIS, *turns)
    redis_server.kill()
    try:
        assert history.delete(session) is True
    finally:
        redis_server.start()
    assert session in store(MONGO).flags(10_000).sessions
    repair.conversation(session)
    assert both(session) == [None, None]
    assert history.read(session).found is False


def test_a_deletion_wins_over_a_clock_that_is_an_hour_fast() -> None:
    from datetime import timedelta

    from conversations.clock import now

    session, ahead = a_session(), a_turn(at=now() + timedelta(hours=1))
    put(session, REDIS, ahead)
    history.delete(session)
    reading = history.read(session)
    assert reading.found is False
    written = history.append(session, a_turn(at=now()), reading)
    assert written.stored_in == (REDIS,)
    assert written.turn.id > ahead.answer.id
    assert store(REDIS).load(session) == History.of([written.turn])


def test_a_switch_is_followed_and_given_to_the_store_that_missed_it(redis_server: RedisServer) -> None:
    environment_says = switching.environment()
    try:
        watcher._tick()
        redis_server.kill()
        _, taken = switching.record(type(environment_says)(MONGO, True), "a test", "because")
        assert taken == (MONGO,)
        redis_server.start()
        eventually(lambda: pings.look()[REDIS].up, "Redis is not seen")
        watcher._follow()
        assert state.state().routing == type(environment_says)(MONGO, True)
        assert switching.read()[REDIS] == switching.read()[MONGO]
    finally:
        if not redis_server.answers():
            redis_server.start()
        for alias in (REDIS, MONGO):
            store(alias).write_note(switching.NOTE, "")


def test_a_switch_is_kept_through_an_outage_of_both_stores() -> None:
    """Silence is not "no switch": what was seen counts until something newer is."""
    known = state.state()
    switched = Switch(Routing(MONGO, True), switching.environment(), time.time())
    try:
        switching.write(switched)
        watcher._follow()
        environment.REDIS.kill()
        environment.MONGO.kill()
        watcher._follow()
        assert known.routing == switched.routing
    finally:
        environment.REDIS.start()
        environment.MONGO.start()
        for alias in (REDIS, MONGO):
            eventually(lambda alias=alias: answers(alias), f"{alias} does not answer")  # type: ignore[misc]
            store(alias).write_note(switching.NOTE, "")


def answers(alias: str) -> bool:
    try:
        store(alias).ping()
    except StoreUnavailable:
        return False
    return True


def test_a_tombstone_is_later_than_all_that_is_there() -> None:
    turn = a_turn()
    assert tombstone_for(turn.answer.id) >= turn.answer.id
    assert MESSAGE_ID.fullmatch(tombstone_for())


def test_repair_goes_on_while_there_is_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a second's batch it takes a breath, not a rest."""
    for _ in range(3):
        put(a_session(), MONGO, a_turn(), flag=True)
    monkeypatch.setattr(repair, "BATCH_SECONDS", 0.0)
    eventually(lambda: (watcher._tick(), watcher._repair())[1], "it does not begin")  # a process killed has the lease
    monkeypatch.setattr(repair, "BATCH_SECONDS", 30.0)
    assert watcher._repair() is False
    assert store(MONGO).flags(10_000).sessions == frozenset()


def test_turns_in_flight_in_a_killed_process_are_repaired_without_a_request() -> None:
    """Killed between the two writes of a dual write, it flagged nothing; half a name does no harm."""
    session, turn = a_session(), a_turn()
    put(session, REDIS, turn)
    page = Path(settings.VAR_DIR) / "run" / "underway" / "1-gone"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_bytes(session.encode().ljust(264, b"\0") + b"tenant:".ljust(264, b"\0"))
    eventually(lambda: (watcher._tick(), watcher._repair(), all(both(session)))[2], "it is not repaired")
    assert both(session) == [History.of([turn])] * 2
    assert not page.exists()
