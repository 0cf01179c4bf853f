"""Repairing many conversations: together, all of them, and none held up by another."""

import time
from collections.abc import Iterator

import pytest

from conversations.errors import StoreUnavailable
from conversations.history import pauses, repair, walk
from conversations.history.pauses import Pauses
from conversations.history.sweep import Sweep
from conversations.stores import ALIASES, MONGO, REDIS, bulk, other, store
from conversations.stores.bulk import Share
from conversations.turns import History
from tests import environment
from tests.builders import a_session, a_turn, some_turns


@pytest.fixture(autouse=True)
def _nothing_flagged(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Begin and end without flags, which other tests may have left."""
    monkeypatch.setattr(repair, "_pauses", Pauses())
    clear()
    yield
    clear()


def clear() -> None:
    for alias in ALIASES:
        for names in bulk(alias).flagged(1000):
            bulk(alias).clear_flags({name: store(alias).inspect(name).flag or "" for name in names})


def flag(alias: str, number: int) -> list[str]:
    """Return so many new sessions with a turn that only this store has, flagged there."""
    sessions = [a_session() for _ in range(number)]
    for session in sessions:
        store(alias).append(session, a_turn(), flag=True)
    return sessions


def flags(alias: str) -> set[str]:
    return {name for names in bulk(alias).flagged(1000) for name in names}


def in_step(session: str) -> bool:
    ours, theirs = (store(alias).inspect(session) for alias in ALIASES)
    return ours == theirs and ours.flag is None


def repair_all() -> int:
    return repair.Flagged().step(time.monotonic() + 60)


@pytest.mark.parametrize("alias", ALIASES)
def test_all_that_are_flagged_are_repaired(alias: str) -> None:
    sessions = flag(alias, 250)
    assert repair_all() >= 250
    assert all(map(in_step, sessions))
    assert flags(alias) == set()


def test_a_step_goes_on_where_the_last_one_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Listing the flags anew for each batch of a long repair would take longer than repairing them."""
    flag(REDIS, 3 * repair.BATCH)
    listed = []
    listing = bulk(REDIS).flagged
    monkeypatch.setattr(bulk(REDIS), "flagged", lambda size: (listed.append(size), listing(size))[1])
    flagged, past = repair.Flagged(), time.monotonic()
    while flags(MONGO) | {name for names in listing(1000) for name in names}:
        assert flagged.step(past) <= repair.BATCH
    assert len(listed) == 1


def test_what_is_flagged_while_a_list_is_repaired_is_on_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    flag(REDIS, 2 * repair.BATCH)
    flagged = repair.Flagged()
    flagged.step(time.monotonic())
    later = flag(MONGO, 1) + flag(REDIS, 1)
    for _ in range(3):
        flagged.step(time.monotonic() + 60)
    assert all(map(in_step, later))


@pytest.mark.parametrize("alias", ALIASES)
def test_what_differs_in_any_way_is_repaired_together(alias: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Turns missing in the middle, a deletion, a deletion with later turns, and a flag for nothing."""
    (one, two, three), sessions = some_turns(3), [a_session() for _ in range(4)]
    middle, deleted, reborn, same = sessions
    for session in sessions:
        store(other(alias)).append(session, None, [one, three] if session == middle else [one, two, three])
        store(alias).append(session, None, [one, two, three])
    store(alias).delete(deleted, three.answer.id, flag=True)
    store(alias).delete(reborn, two.answer.id, flag=True)
    for session in (middle, same):
        store(alias).append(session, None, flag=True)
    monkeypatch.setattr(repair, "conversation", alone)
    repair_all()
    assert all(map(in_step, sessions))
    expected = [History.of([one, two, three]), None, History.of([three]), History.of([one, two, three])]
    assert [store(alias).load(session) for session in sessions] == expected


def alone(session: str) -> bool:
    raise AssertionError("it is repaired alone")


def test_a_flag_set_meanwhile_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    (session,), late = flag(MONGO, 1), a_turn()
    put = bulk(REDIS).put

    def put_and_be_overtaken(shares: list[Share]) -> object:
        store(MONGO).append(session, late, flag=True)
        return put(shares)

    monkeypatch.setattr(bulk(REDIS), "put", put_and_be_overtaken)
    repair_all()
    monkeypatch.undo()
    assert flags(MONGO) == {session}
    repair_all()
    assert in_step(session)
    assert (store(REDIS).load(session) or History()).last_id == late.answer.id


def test_what_is_no_history_is_quarantined_and_repaired() -> None:
    corrupt, *others = flag(MONGO, 3)
    with environment.REDIS.client() as client:
        client.set(f"conv:{corrupt}", "no history", ex=60)
    repair_all()
    assert all(map(in_step, [corrupt, *others]))


def failing(monkeypatch: pytest.MonkeyPatch, session: str, error: Exception) -> list[str]:
    """Let the repair of this conversation fail, in whatever way it is tried; return the tries."""
    tries: list[str] = []
    conversation, put = repair.conversation, bulk(REDIS).put

    def fail(one: str) -> bool:
        if one == session:
            tries.append(one)
            raise error
        return conversation(one)

    def fail_all(shares: list[Share]) -> object:
        if session in {share.session for share in shares}:
            raise error
        return put(shares)

    monkeypatch.setattr(repair, "conversation", fail)
    monkeypatch.setattr(bulk(REDIS), "put", fail_all)
    return tries


@pytest.mark.parametrize("error", [ValueError("never seen"), StoreUnavailable("redis", "timeout")])
def test_one_that_always_fails_holds_up_no_other(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Its pauses grow; the others are repaired in the same pass."""
    sessions = flag(MONGO, 5)
    poisoned = sessions[2]
    tries = failing(monkeypatch, poisoned, error)
    monkeypatch.setattr(pauses, "FIRST", 600.0)  # longer than this test takes
    repair_all()
    assert all(in_step(session) for session in sessions if session != poisoned)
    assert (flags(MONGO), tries) == ({poisoned}, [poisoned])
    late = flag(MONGO, 1)
    repair_all()
    assert in_step(late[0])
    assert tries == [poisoned], "it waits"
    assert repair.waits(poisoned)


def test_a_store_that_is_out_ends_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """And is no fault of a conversation: none has to wait when it is back."""
    (session,) = flag(MONGO, 1)
    environment.REDIS.kill()
    try:
        with pytest.raises(StoreUnavailable):
            repair_all()
    finally:
        environment.REDIS.start()
    assert not repair.waits(session)
    repair_all()
    assert in_step(session)


def test_a_sweep_flags_what_failed_though_its_pause_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of the page may take longer than that."""
    sessions, turn = [a_session() for _ in range(3)], a_turn()
    for session in sessions:
        store(MONGO).append(session, turn)
    failing(monkeypatch, sessions[0], ValueError("never seen"))
    monkeypatch.setattr(Pauses, "holds", lambda self, session: False)
    sweep = Sweep()
    while not sweep.step():
        pass
    assert sessions[0] in store(MONGO).flags(10_000).sessions


def test_a_step_of_a_sweep_ends_where_nothing_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second store's names are known from the first; looking through them takes time."""
    for _ in range(3):
        session, turn = a_session(), a_turn()
        for alias in ALIASES:
            store(alias).append(session, turn)
    monkeypatch.setattr(walk, "PAGE", 1)
    monkeypatch.setattr(walk, "LOOK_SECONDS", 0.0)
    one, steps = walk.Walk(), 0
    while (page := one.page()) is not None:
        steps += not page
    assert steps > 3


def test_a_sweep_flags_what_it_cannot_repair(monkeypatch: pytest.MonkeyPatch) -> None:
    """So it can end: what is missing has a flag, and is tried again."""
    session, turn = a_session(), a_turn()
    store(MONGO).append(session, turn)
    failing(monkeypatch, session, ValueError("never seen"))
    sweep = Sweep()
    while not sweep.step():
        pass
    assert session in flags(MONGO)
    monkeypatch.undo()
    monkeypatch.setattr(repair, "_pauses", Pauses())
    repair_all()
    assert in_step(session)


def test_a_sweep_compares_what_both_stores_have_once(monkeypatch: pytest.MonkeyPatch) -> None:
    session, turn = a_session(), a_turn()
    for alias in ALIASES:
        store(alias).append(session, turn)
    asked: list[str] = []
    digests = bulk(MONGO).digests
    monkeypatch.setattr(bulk(MONGO), "digests", lambda page: asked.extend(page) or digests(page))
    sweep = Sweep()
    while not sweep.step():
        pass
    assert asked.count(session) == 1
    assert sweep.compared == len(asked) == len(set(asked))
