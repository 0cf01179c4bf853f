"""The scrub finds what differs without a flag, counts and repairs it, and nothing that is only under way."""

import logging
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from conversations import clock
from conversations.background import scrub, watcher
from conversations.clock import now
from conversations.datasets import Coverage, Scrubbed
from conversations.errors import StoreUnavailable
from conversations.history import repair, trimmed
from conversations.history import scrub as scrubbing
from conversations.history.pauses import Pauses
from conversations.history.scrub import Scrub
from conversations.policy import Routing
from conversations.runtime import datasets, state
from conversations.stores import ALIASES, MONGO, REDIS, bulk, control, other, store
from conversations.stores.control import OPERATORS, Flags
from conversations.turns import History, Turn
from telemetry import metrics
from telemetry.logs import hashed
from tests.builders import a_session, a_turn
from tests.servers import MongoServer, RedisServer, eventually


@pytest.fixture(autouse=True)
def _both_empty_and_complete(
    settings: Any, redis_server: RedisServer, mongo_server: MongoServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """A process with dual write whose last scrub and sweep were long ago."""
    with redis_server.client() as redis, mongo_server.client() as mongo:
        redis.flushdb()
        for name in ("conversations_conversation", "onesource_notes"):
            mongo.get_default_database()[name].delete_many({})
    settings.CONV_DUAL_WRITE = True
    monkeypatch.setattr(repair, "_pauses", Pauses())
    monkeypatch.setattr(scrub, "_scrubbing", None)
    monkeypatch.setattr(scrub, "PAUSE", 0.0)
    state.forget()
    yield
    state.forget()


def recent_turns(number: int) -> tuple[Turn, ...]:
    return tuple(a_turn(f"question {n}", at=now() - timedelta(minutes=number - n)) for n in range(number))


def put(session: str, alias: str, *turns: Turn, flag: bool = False) -> None:
    store(alias).append(session, None, turns, flag=flag)


def scrub_all() -> int:
    """Compare everything once; return how many were out of step."""
    done = Scrub()
    eventually(lambda: done.step("me"), "the scrub does not end")
    return done.out_of_step


def counted(alias: str) -> float:
    return float(metrics.out_of_step.labels(store=alias)._value.get())


# --- What is found ---------------------------------------------------------------------------------


@pytest.mark.parametrize("alias", ALIASES)
def test_a_turn_that_is_missing_is_counted_logged_and_repaired(alias: str, caplog: pytest.LogCaptureFixture) -> None:
    session, turns, before = a_session(), recent_turns(3), counted(alias)
    put(session, alias, turns[0], turns[2])
    put(session, other(alias), *turns)
    with caplog.at_level(logging.WARNING, logger=scrubbing.__name__):
        assert scrub_all() == 1
    (record,) = [one for one in caplog.records if one.getMessage() == "out_of_step"]
    assert (vars(record)["store"], vars(record)["session"]) == (alias, hashed(session))
    assert counted(alias) == before + 1
    assert store(alias).load(session) == History.of(turns)
    assert scrub_all() == 0


@pytest.mark.parametrize("alias", ALIASES)
@pytest.mark.parametrize("held", [True, False])
def test_a_tombstone_that_is_missing_is_found(alias: str, held: bool) -> None:
    """Also where neither store has turns."""
    session, turns = a_session(), recent_turns(2)
    if held:
        put(session, alias, *turns)
    store(other(alias)).delete(session, turns[-1].answer.id)
    assert scrub_all() == 1
    found = store(alias).inspect(session)
    assert (found.history, found.tombstone) == (None, turns[-1].answer.id)


@pytest.mark.parametrize("alias", ALIASES)
def test_a_deletion_of_an_old_conversation_is_found(alias: str) -> None:
    """Its tombstone is as old as its last message."""
    session, turn = a_session(), a_turn(at=now() - timedelta(seconds=store(REDIS).limits.ttl + 3600))
    put(session, alias, turn)
    store(other(alias)).delete(session, turn.answer.id)
    assert scrub_all() == 1
    assert store(alias).load(session) is None


@pytest.mark.parametrize("alias", ALIASES)
def test_what_was_shortened_is_left_when_it_goes_on(alias: str) -> None:
    session, turns = a_session(), recent_turns(3)
    put(session, other(alias), *turns)
    put(session, alias, turns[2])
    trimmed.shortened(alias)
    more = a_turn(at=now() + timedelta(seconds=1))
    for each in ALIASES:
        put(session, each, more)
    assert scrub_all() == 0
    assert store(alias).load(session) == History.of([turns[2], more])


@pytest.mark.parametrize("alias", ALIASES)
def test_a_conversation_that_one_store_has_lost_is_found(alias: str) -> None:
    sessions, turns = [a_session() for _ in range(250)], recent_turns(1)
    for session in sessions:
        put(session, other(alias), *turns)
    assert scrub_all() == 250
    assert all(store(alias).load(session) == History.of(turns) for session in sessions)


def test_what_is_no_history_in_one_store_is_found(redis_server: RedisServer) -> None:
    session, turns, before = a_session(), recent_turns(1), counted(REDIS)
    put(session, MONGO, *turns)
    with redis_server.client() as client:
        client.set(f"conv:{session}", "no history", ex=60)
    assert scrub_all() == 1
    assert counted(REDIS) == before + 1
    assert store(REDIS).load(session) == History.of(turns)


def meanwhile(monkeypatch: pytest.MonkeyPatch, session: str, change: Callable[[], None]) -> None:
    """Change something right after each look at the conversation."""
    differing = scrubbing.differing

    def look(sessions: Collection[str]) -> Any:
        found = differing(sessions)
        if session in sessions:
            change()
        return found

    monkeypatch.setattr(scrubbing, "differing", look)


@pytest.mark.parametrize("alias", ALIASES)
def test_a_turn_under_way_is_not_counted(alias: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is in one store at the first look, and in both at the second."""
    session, turns = a_session(), recent_turns(2)
    put(session, other(alias), *turns)
    put(session, alias, turns[0])
    meanwhile(monkeypatch, session, lambda: put(session, alias, turns[1]))
    assert scrub_all() == 0


def test_what_differs_otherwise_at_the_second_look_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another turn is under way by then."""
    session = a_session()
    put(session, REDIS, *recent_turns(1))
    meanwhile(monkeypatch, session, lambda: put(session, REDIS, a_turn(at=now())))
    assert scrub_all() == 0


def test_a_turn_that_begins_after_the_second_look_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here of a conversation that differs for a good reason."""
    session, turns, contents = a_session(), recent_turns(1), bulk(MONGO).contents
    put(session, MONGO, *turns)
    trimmed.removed(REDIS, turns[0].answer.id)

    def read_late(sessions: Collection[str]) -> Any:
        put(session, MONGO, a_turn(at=now()))
        return contents(sessions)

    monkeypatch.setattr(bulk(MONGO), "contents", read_late)
    assert scrub_all() == 0


def test_what_has_a_flag_is_not_counted() -> None:
    session = a_session()
    put(session, MONGO, *recent_turns(1), flag=True)
    assert scrub_all() == 0
    assert store(MONGO).inspect(session).flag


def test_what_is_about_to_expire_is_not_counted() -> None:
    """It goes from one store before it goes from the other; a copy would live longer each time."""
    session = a_session()
    put(session, MONGO, a_turn())
    assert scrub_all() == 0
    assert store(REDIS).load(session) is None


@pytest.mark.parametrize("alias", ALIASES)
def test_what_an_operators_command_changes_is_looked_at_afterwards(alias: str) -> None:
    """It may hold its lease in one store alone: the other was out when it began."""
    session, turns = a_session(), recent_turns(1)
    put(session, MONGO, *turns)
    assert control(alias).lease(OPERATORS, "a restore", 60)
    done = Scrub()
    for _ in range(5):
        assert done.step("me") is False
    assert done.out_of_step == 0
    control(alias).release(OPERATORS, "a restore")
    eventually(lambda: done.step("me"), "the scrub does not end")
    assert done.out_of_step == 1
    assert store(REDIS).load(session) == History.of(turns)


# --- Failures --------------------------------------------------------------------------------------


def failing_once(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, at: Callable[..., bool]) -> list[Any]:
    """Let this call fail the first time that its arguments are such; return the failures."""
    failed: list[Any] = []
    call = getattr(owner, name)

    def fail(*arguments: Any, **options: Any) -> Any:
        if not failed and at(*arguments):
            failed.append(arguments)
            raise StoreUnavailable(MONGO, "timeout")
        return call(*arguments, **options)

    monkeypatch.setattr(owner, name, fail)
    return failed


def step_through_failures(done: Scrub) -> bool:
    try:
        return done.step("me")
    except StoreUnavailable:
        return False


@pytest.mark.parametrize(
    ("name", "held", "at"),
    [("digests", REDIS, bool), ("contents", REDIS, bool), ("put", REDIS, bool), ("sessions", MONGO, lambda size: True)],
)
def test_a_step_that_failed_is_done_again(
    name: str, held: str, at: Callable[..., bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is left out, and nothing is counted twice; a walk that left a page out begins anew."""
    session, turns = a_session(), recent_turns(1)
    put(session, held, *turns)
    failed = failing_once(monkeypatch, bulk(MONGO), name, at)
    done = Scrub()
    eventually(lambda: step_through_failures(done), "the scrub does not end")
    assert len(failed) == 1
    assert (done.compared, done.out_of_step) == (1, 1)
    assert store(other(held)).load(session) == History.of(turns)


def test_what_cannot_be_repaired_gets_a_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    session = a_session()
    put(session, MONGO, *recent_turns(1))

    def fail(*arguments: object) -> bool:
        raise ValueError("never seen")

    monkeypatch.setattr(repair, "conversation", fail)
    monkeypatch.setattr(bulk(REDIS), "put", fail)
    assert scrub_all() == 1
    assert session in store(MONGO).flags(1000).sessions


# --- When ------------------------------------------------------------------------------------------


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[Scrub]:
    """The steps of scrubs that do not end."""
    made: list[Scrub] = []
    monkeypatch.setattr(Scrub, "step", lambda self, holder: bool(made.append(self)))
    return made


def watched() -> state.ProcessState:
    """Return the process once it has read that there are no flags."""
    watcher._tick()
    return state.state()


def scrubbed(process: state.ProcessState) -> Scrubbed:
    """Return what the watcher's scrub found, once it has ended."""
    before = process.known.scrubbed.at
    eventually(lambda: (watcher._repair(), process.known.scrubbed.at > before)[1], "the scrub does not end")
    return process.known.scrubbed


def test_the_watcher_scrubs_once_a_day() -> None:
    session, turns = a_session(), recent_turns(1)
    put(session, MONGO, *turns)
    process = watched()
    found = scrubbed(process)
    assert (found.compared, found.out_of_step) == (1, 1)
    assert store(REDIS).load(session) == History.of(turns)
    assert not scrub.is_due(process)
    process.known.scrubbed = replace(found, at=found.at - scrub.EVERY)
    assert scrub.is_due(process)


@pytest.mark.parametrize("alias", ALIASES)
def test_a_process_that_starts_reads_when_the_last_scrub_ended(alias: str) -> None:
    """The newest note counts, in whichever store it is."""
    process = watched()
    assert scrub.is_due(process)
    ended = Scrubbed(clock.timestamp() - 3600, 7, 1)
    datasets.record_scrub(datasets.SCRUBBED, replace(ended, at=ended.at - scrub.EVERY))
    note = control(alias).note
    written = {one: control(one).note(datasets.SCRUBBED) for one in ALIASES}
    datasets.record_scrub(datasets.SCRUBBED, ended)
    control(other(alias)).write_note(datasets.SCRUBBED, written[other(alias)] or "")
    assert note(datasets.SCRUBBED) != written[alias]
    state.forget()
    process = watched()
    assert process.known.scrubbed == ended
    assert not scrub.is_due(process)


def test_how_far_a_scrub_is_is_noted(steps: list[Scrub]) -> None:
    process = watched()
    scrub.step(process)
    watcher._tick()
    assert process.known.scrubbing.at > process.known.scrubbed.at


def test_a_sweep_is_as_good_as_a_scrub() -> None:
    process = watched()
    process.known.coverage = replace(process.known.coverage, since=clock.timestamp() - scrub.EVERY + 60)
    assert not scrub.is_due(process)


@pytest.mark.usefixtures("steps")
def test_it_does_not_begin_while_coverage_is_missing() -> None:
    process = watched()
    assert scrub.is_due(process)
    process.known.coverage = Coverage(process.known.coverage.datasets, (REDIS,))
    assert not scrub.is_due(process)


def test_it_does_not_begin_while_one_store_alone_is_wanted() -> None:
    process = watched()
    process.routing = Routing(REDIS, False)
    assert not scrub.is_due(process)


def test_a_flag_that_stays_holds_up_no_scrub(steps: list[Scrub], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its conversation cannot be repaired, or waits."""
    process = watched()
    process.stores[MONGO].flags = Flags(frozenset({"s"}), True, 1)
    monkeypatch.setattr(repair.Flagged, "step", lambda self, deadline: 0)
    eventually(lambda: (watcher._repair(), steps)[1], "it does not begin")


def test_only_the_holder_of_the_lease_scrubs(steps: list[Scrub]) -> None:
    watched()
    assert control(REDIS).lease("healing", "another", 60)
    try:
        watcher._repair()
        assert not steps
    finally:
        control(REDIS).release("healing", "another")
    eventually(lambda: (watcher._repair(), steps)[1], "it does not begin")


def test_between_two_steps_there_is_a_pause(steps: list[Scrub], monkeypatch: pytest.MonkeyPatch) -> None:
    process = watched()
    monkeypatch.setattr(scrub, "PAUSE", 3600.0)
    scrub.step(process)
    scrub.step(process)
    assert len(steps) == 1


def test_it_is_abandoned_where_a_dataset_changes(steps: list[Scrub]) -> None:
    process = watched()
    scrub.step(process)
    scrub.step(process)
    process.known.datasets[MONGO] = replace(process.known.datasets[MONGO], id="another")
    assert not scrub.is_due(process)
    scrub.step(process)
    assert steps[0] is steps[1] is not steps[2]


def test_it_is_abandoned_where_the_routing_changes(steps: list[Scrub]) -> None:
    process = watched()
    scrub.step(process)
    process.routing = Routing(MONGO, True)
    assert scrub.is_due(process)
    scrub.step(process)
    assert steps[0] is not steps[1]


def test_it_is_abandoned_where_another_process_has_ended_one(steps: list[Scrub]) -> None:
    process = watched()
    scrub.step(process)
    before = process.known.scrubbed
    process.known.scrubbed = Scrubbed(clock.timestamp())
    assert not scrub.is_due(process)
    process.known.scrubbed = before
    scrub.step(process)
    assert steps[0] is not steps[1]


@pytest.mark.parametrize("error", [StoreUnavailable(MONGO, "timeout"), ValueError("never seen")])
def test_only_a_store_that_fails_lets_it_go_on(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    process = watched()

    def fail(self: Scrub, holder: str) -> bool:
        raise error

    monkeypatch.setattr(Scrub, "step", fail)
    with pytest.raises(type(error)):
        scrub.step(process)
    assert (scrub._scrubbing is not None) == isinstance(error, StoreUnavailable)
