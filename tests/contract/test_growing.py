"""Turn after turn into Redis: what readers see is exactly what the limits allow, however it is stored."""

from datetime import timedelta
from itertools import accumulate
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.exceptions import NoPermissionError, ResponseError

from conversations import merge
from conversations.clock import now
from conversations.errors import CorruptHistory
from conversations.stores.base import HistoryStore, Receipt, Summary
from conversations.stores.redis.bulk import RedisBulk
from conversations.stores.redis.client import histories
from conversations.stores.redis.room import IN_PLACE, WHOLE, Step, beyond, step
from conversations.stores.redis.turns import CacheStore
from conversations.stores.sessions import make_key
from conversations.turns import History, Limits, Turn
from tests import environment
from tests.builders import a_session, a_turn, some_turns
from tests.round_trips import to_redis

LIMITS = Limits(1000, 4, 20_000)


def a_store(limits: Limits = LIMITS) -> CacheStore:
    return CacheStore("redis", limits)


def add(store: HistoryStore, session: str, turn: Turn, *, flag: bool = False) -> Receipt:
    """Add the turn as its writer does: it has read the conversation."""
    return store.append_after(session, store.load(session) or History(), turn, flag=flag)


def stored(session: str) -> bytes:
    with environment.REDIS.client() as client:
        return client.get(make_key(session)) or b""


@pytest.mark.parametrize("most", [1, 2, 3, 4])
def test_every_reader_sees_what_the_limits_allow(most: int) -> None:
    limits = Limits(1000, most, 20_000)
    store, session, turns = a_store(limits), a_session(), some_turns(40)
    bulk = RedisBulk(store)
    for number, turn in enumerate(turns, start=1):
        assert add(store, session, turn) == Receipt(stored=True, created=number == 1)
        wanted = History.of(turns[max(number - most, 0) : number])
        assert store.load(session) == wanted
        assert store.inspect(session).history == wanted
        assert store.summaries([session]) == {session: Summary.of(wanted)}
        assert bulk.histories([session]) == {session: wanted}
        assert bulk.contents([session])[session].history == wanted  # type: ignore[union-attr]
        assert bulk.digests([session]) == {session: merge.digest(wanted, None)}
        assert stored(session).count(b"\n") <= 2 * (most + beyond(limits))


@pytest.mark.parametrize(
    "error",
    [
        ResponseError("The user executing the script can't run this command or subcommand script: 1f."),
        NoPermissionError("ACL failure in script: User app has no permissions to run the 'append' command"),
    ],
    ids=["7.0", "7.2"],
)
def test_each_version_of_redis_refuses_append_in_its_own_words(
    error: ResponseError, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, session = a_store(), a_session()
    store.append(session, a_turn())
    client, run = store._client, store._client.run

    def refusing(name: str, *arguments: Any) -> Any:
        if name == "append_after":
            raise error
        return run(name, *arguments)

    monkeypatch.setattr(client, "run", refusing)
    assert add(store, session, a_turn()) == Receipt(stored=True, created=False)


@given(st.lists(st.integers(0, 9_000), min_size=1, max_size=12))
@settings(max_examples=15, deadline=None)
def test_turns_of_any_sizes_are_kept_as_the_limits_say(sizes: list[int]) -> None:
    store, session = a_store(), a_session()
    turns: list[Turn] = []
    for size in sizes:
        turns.append(a_turn(answer="a" * size))
        add(store, session, turns[-1])
        assert store.load(session) == merge.stored(turns, LIMITS)
        assert len(stored(session)) <= LIMITS.max_bytes


def test_a_turn_is_one_round_trip() -> None:
    store, session = a_store(), a_session()
    for turn in some_turns(8):
        add(store, session, turn)
    seen = store.load(session)
    assert seen is not None
    with to_redis() as sent:
        store.append_after(session, seen, a_turn())
    assert sent == ["EVALSHA"]


def test_what_another_wrote_since_stays() -> None:
    store, session, (first, second, third) = a_store(), a_session(), some_turns(3)
    store.append(session, first)
    seen = store.load(session)
    assert seen is not None
    store.append(session, second)
    assert store.append_after(session, seen, third) == Receipt(stored=True, created=False)
    assert store.load(session) == History.of([first, second, third])


@pytest.mark.parametrize("sizes", [(50, 50, 50, 50, 50, 50), (10, 300, 10, 300, 10, 300), (300, 10, 10, 10, 10, 10)])
def test_a_turn_in_the_middle_since_then_does_no_harm_where_older_turns_go(sizes: tuple[int, ...]) -> None:
    """Repair has added a turn before the last one, and dropped the first: as many bytes as before, in other places."""
    store, session = a_store(), a_session()
    turns = [a_turn(answer="a" * size) for size in sizes]
    late = a_turn(answer="b" * sizes[0])
    last, new = some_turns(2)
    for turn in (*turns[:5], last):
        add(store, session, turn)
    seen = store.load(session)
    assert seen is not None
    now_there = b"".join(turn.lines() for turn in (*turns[1:5], late, last))
    with environment.REDIS.client() as client:
        client.set(make_key(session), now_there)
    assert store.append_after(session, seen, new) == Receipt(stored=True, created=False)
    assert store.load(session) == History.of([turns[4], late, last, new])
    assert store.inspect(session).validated()


def test_an_earlier_turn_goes_to_its_place() -> None:
    store, session, (first, second, third) = a_store(), a_session(), some_turns(3)
    store.append(session, None, [first, third])
    assert add(store, session, second).stored
    assert store.load(session) == History.of([first, second, third])


def test_a_deletion_since_keeps_the_turn_out() -> None:
    store, session, (first, second) = a_store(), a_session(), some_turns(2)
    store.append(session, first)
    seen = store.load(session)
    assert seen is not None
    store.delete(session, second.id)
    assert store.append_after(session, seen, second) == Receipt(False, True, tombstone=second.id)
    assert store.load(session) is None


def test_after_a_deletion_a_conversation_goes_on() -> None:
    store, session, (first, second, third) = a_store(), a_session(), some_turns(3)
    store.append(session, first)
    store.delete(session, first.id)
    assert add(store, session, second).stored
    assert add(store, session, third).stored
    assert store.load(session) == History.of([second, third])


def test_the_flag_is_set_with_the_turn() -> None:
    store, session, (first, second) = a_store(), a_session(), some_turns(2)
    store.append(session, first)
    assert store.inspect(session).flag is None
    add(store, session, second, flag=True)
    assert store.inspect(session).flag


def test_no_turn_is_stored_where_its_flag_cannot_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    store, session, (first, second) = a_store(), a_session(), some_turns(2)
    store.append(session, first)
    seen = store.load(session)
    assert seen is not None
    no_hash = f"flags:{{{make_key(session)}}}"  # in the slot of the conversation, as the flags are
    monkeypatch.setattr(histories().client.flags, "key_to_set", lambda key: no_hash)
    with environment.REDIS.client() as client:
        client.set(no_hash, "no hash", ex=60)
    with pytest.raises(CorruptHistory):
        store.append_after(session, seen, second, flag=True)
    assert store.load(session) == History.of([first])


@pytest.mark.parametrize("between", range(1, 9))
def test_a_key_names_one_turn_however_many_came_after(between: int) -> None:
    """A turn that readers do not see any more, though it is stored, counts as gone: its key is kept for a day."""
    store, session, start = a_store(), a_session(), now()
    keyed = a_turn(at=start, key="k-1")
    add(store, session, a_turn())
    add(store, session, keyed)
    for number in range(between):
        add(store, session, a_turn(at=start + timedelta(seconds=1 + number)))
    receipt = add(store, session, a_turn(at=start + timedelta(minutes=1), key="k-1"))
    assert not receipt.stored
    history = store.load(session)
    assert history is not None
    assert (receipt.expired is None) == history.knows(keyed)


def test_a_missing_turn_does_not_bring_back_what_readers_do_not_see() -> None:
    store, session, turns = a_store(), a_session(), some_turns(7)
    add(store, session, turns[0])
    for turn in (*turns[1:5], turns[6]):
        add(store, session, turn)
    store.append(session, None, [turns[5]])
    assert store.load(session) == History.of(turns[3:])


def test_sixteen_turns_take_no_more_memory_than_written_whole() -> None:
    store, session, whole = a_store(Limits(1000, 16, 262_144)), a_session(), a_session()
    turns = [a_turn("q" * 95, "a" * 90) for _ in range(16)]
    for turn in turns:
        add(store, session, turn)
    store.append(whole, None, turns)
    sizes = RedisBulk(store).sizes([session, whole])
    assert sizes[session] <= 1.05 * sizes[whole]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda line: line.replace(b'"content":"', b'"content":', 1),
        lambda line: line.replace(b'"role":"assistant"', b'"role":"user"', 1),
        lambda line: line.replace(b'"content"', b'"contents"', 1),
        lambda line: line.replace(b'"id":"', b'"id":"7', 1),
    ],
    ids=["no JSON", "role", "field", "order"],
)
def test_a_fault_in_the_middle_shows_when_messages_are_wanted(spoil: object) -> None:
    store, session = a_store(), a_session()
    store.append(session, None, some_turns(3))
    lines = stored(session).splitlines(keepends=True)
    lines[1] = spoil(lines[1])  # type: ignore[operator]
    with environment.REDIS.client() as client:
        client.set(make_key(session), b"".join(lines))
    history = store.load(session)
    assert history is not None
    assert len(history) == 6
    with pytest.raises(CorruptHistory):
        history.messages  # noqa: B018
    with pytest.raises(CorruptHistory):
        store.inspect(session).validated()


def test_room_is_used_where_there_is_some() -> None:
    """What `step` says for turns of one size, from the first on."""
    limits = Limits(1000, 20, 262_144)
    steps = [step(size, turns, 394, limits) for turns, size in enumerate(accumulate([394] * 25), start=1)]
    assert IN_PLACE in steps[:19]
    assert set(steps[:19]) <= {IN_PLACE, WHOLE}
    assert steps[19] == Step(half=13 * 394)  # room for the six turns that may follow
    assert steps[20:] == [IN_PLACE] * 5
    assert step(26 * 394, 26, 394, limits) == Step(dropped=6, half=13 * 394)
    assert step(262_000, 5, 394, limits) is None


def test_a_conversation_beyond_its_limit_takes_little_more_memory() -> None:
    store, session, whole = a_store(Limits(1000, 16, 262_144)), a_session(), a_session()
    turns = [a_turn("q" * 95, "a" * 90) for _ in range(60)]
    sizes = []
    for turn in turns:
        add(store, session, turn)
        sizes.append(RedisBulk(store).sizes([session])[session])
    store.append(whole, None, turns[:16])
    assert max(sizes) <= 1.6 * RedisBulk(store).sizes([whole])[whole]


@pytest.mark.parametrize("most", [4, 7, 20, 500])
def test_a_full_conversation_is_written_anew_once_for_all_turns_that_it_has_room_for(most: int) -> None:
    limits, turns, anew, cycles = Limits(1000, most, 10**9), most, 0, 10
    for _ in range(cycles * beyond(limits)):
        how = step(turns * 400, turns, 400, limits)
        assert how
        assert how != WHOLE  # it gets room
        anew += how != IN_PLACE
        turns += 1 - how.dropped
        assert most < turns <= most + beyond(limits)
    assert anew == cycles
