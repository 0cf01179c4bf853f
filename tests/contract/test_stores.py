"""The promises every store keeps, run once a store: see conversations/stores/base.py."""

import itertools
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson import Timestamp
from django.db import connections
from msgspec.structs import replace
from pymongo.collection import Collection

from conversations import clock, expiry
from conversations.clock import now
from conversations.errors import CorruptHistory, InvalidSession, InvalidTurn, StoreUnavailable
from conversations.ids import milliseconds, stamp, tombstone_for
from conversations.stores import base
from conversations.stores.base import CORRUPT, NO_TIME, Contents, HistoryStore, Place, Receipt, Summary
from conversations.stores.control import LISTED
from conversations.stores.memory import MemoryStore
from conversations.stores.mongo import indexes, places
from conversations.stores.mongo.bulk import MongoBulk
from conversations.stores.mongo.patient import NOTES, documents
from conversations.stores.mongo.turns import DocumentStore
from conversations.stores.redis.bulk import RedisBulk
from conversations.stores.redis.keys import TENANTS, newest_key, note_key, tombstone_key
from conversations.stores.redis.turns import CacheStore
from conversations.stores.sessions import make_key
from conversations.turns import History, Limits, Turn
from conversations.used_keys import MOST, asked_at
from tests import environment
from tests.builders import a_session, a_turn, some_turns
from tests.round_trips import from_mongo, from_redis, to_mongo, to_redis
from tests.servers import RedisServer, eventually

LIMITS = Limits(ttl=2_592_000, max_turns=16, max_bytes=262_144)
SHORT = Limits(100, 16, 262_144)
LONG = 50_000  # seconds
WRONG_EXPIRIES = ("missing", None, "x", 5, True, [datetime(2126, 1, 1, tzinfo=UTC)], Timestamp(2**32 - 1, 1))


def long_ones(store: HistoryStore) -> list[str]:
    """Store ten conversations of 100 KB and return their sessions."""
    sessions = [a_session() for _ in range(10)]
    for session in sessions:
        store.append(session, a_turn(answer="x" * 100_000))
    return sessions


def ttl_was(seconds: int) -> None:
    """Let this process know that copies were written with this TTL."""
    expiry.learn(clock.timestamp() + seconds)


def answers(store: HistoryStore) -> bool:
    try:
        store.ping()
    except StoreUnavailable:
        return False
    return True


class Contract:
    """One suite; a subclass for each store defines how to make one, spoil a value, and take it down."""

    def make(self, limits: Limits = LIMITS) -> HistoryStore:
        raise NotImplementedError

    def spoil(self, store: HistoryStore, session: str) -> None:
        """Put something there that is no history."""
        raise NotImplementedError

    def quarantined_copies(self, store: HistoryStore, session: str) -> int:
        raise NotImplementedError

    def expire(self, store: HistoryStore, session: str) -> None:
        """Let the TTL of the conversation pass."""
        raise NotImplementedError

    @pytest.fixture
    def outage(self, store: HistoryStore) -> Iterator[None]:
        raise NotImplementedError

    @pytest.fixture
    def store(self) -> HistoryStore:
        return self.make()

    def test_an_unknown_session_is_none(self, store: HistoryStore) -> None:
        assert store.load(a_session()) is None
        assert store.ttl(a_session()) is None
        assert store.delete(a_session(), tombstone_for()) is False

    def test_what_is_appended_is_loaded(self, store: HistoryStore) -> None:
        session, turns = a_session(), some_turns(3)
        assert [store.append(session, turn).created for turn in turns] == [True, False, False]
        assert store.load(session) == History.of(turns)

    def test_many_turns_go_in_one_step(self, store: HistoryStore) -> None:
        session, turns = a_session(), some_turns(5)
        receipt = store.append(session, turns[-1], turns[:-1])
        assert (receipt.stored, receipt.created) == (True, True)
        assert store.load(session) == History.of(turns)

    def test_only_what_is_missing_is_added(self, store: HistoryStore) -> None:
        """A merge appends a whole history, most of which is there."""
        session, turns = a_session(), some_turns(5)
        store.append(session, turns[1])
        store.append(session, turns[3])
        assert store.append(session, turns[4], turns[:4]) == Receipt(stored=True, created=False)
        assert store.load(session) == History.of(turns)

    def test_a_turn_that_is_missing_too_is_stored_once(self, store: HistoryStore) -> None:
        """A replayed turn is among those that the store was found to be missing."""
        session, (first, second) = a_session(), some_turns(2)
        assert store.append(session, first, [first]).stored
        assert store.append(session, second, [first, second]).stored
        assert store.load(session) == History.of([first, second])

    def test_the_same_turn_twice_is_stored_once(self, store: HistoryStore) -> None:
        session, (first, second) = a_session(), some_turns(2)
        store.append(session, first)
        store.append(session, second)
        assert not store.append(session, first).stored
        assert not store.append(session, second).stored
        assert store.load(session) == History.of([first, second])

    def test_a_turn_asked_with_the_key_of_another_turns_id_is_stored_once(self, store: HistoryStore) -> None:
        session, first = a_session(), a_turn()
        duplicate, other = a_turn(key=first.key), a_turn(key=f"{first.key}0")
        store.append(session, first)
        assert not store.append(session, duplicate).stored
        assert store.append(session, other).stored
        assert store.load(session) == History.of([first, other])

    def test_a_turn_that_comes_after_its_duplicate_is_left_out(self, store: HistoryStore) -> None:
        """It was sent first, and arrives late. As a missing turn it is stored: it is in the other store too."""
        session, first = a_session(), a_turn()
        duplicate = a_turn(key=first.key)
        store.append(session, duplicate)
        assert not store.append(session, first).stored
        assert store.load(session) == History.of([duplicate])
        store.append(session, None, [first])
        assert store.load(session) == History.of([first, duplicate])

    def test_the_key_of_an_answers_id_names_no_turn(self, store: HistoryStore) -> None:
        session, first = a_session(), a_turn()
        store.append(session, first)
        assert store.append(session, a_turn(key=f"turn:{first.answer.id}")).stored

    def test_a_key_is_kept_when_its_turn_is_gone(self, store: HistoryStore) -> None:
        session, first = a_session(), a_turn(at=now(), key="k1")
        later, again = (a_turn(at=now() + timedelta(minutes=1), key=key) for key in (None, "k1"))
        store.append(session, first)
        store.append(session, None, [later])
        assert store.delete(session, first.answer.id)
        at = asked_at(first)
        assert store.append(session, again) == Receipt(stored=False, created=False, expired=at)
        contents = store.inspect(session)
        assert (contents.history, contents.keys) == (History.of([later]), {"k1": at})

    def test_a_trimmed_turn_is_not_stored_again(self) -> None:
        store, session = self.make(Limits(LIMITS.ttl, 1, LIMITS.max_bytes)), a_session()
        store.append(session, a_turn(at=now(), key="k1"))
        store.append(session, a_turn(at=now() + timedelta(seconds=1), key="k2"))
        assert store.append(session, a_turn(at=now() + timedelta(seconds=2), key="k1")).expired
        duplicate = store.append(session, a_turn(at=now() + timedelta(seconds=2), key="k2"))
        assert duplicate == Receipt(stored=False, created=False)

    def test_a_key_is_kept_for_a_day(self, store: HistoryStore) -> None:
        session, old = a_session(), now() - timedelta(hours=24, seconds=1)
        store.append(session, first := a_turn(at=old, key="k1"))
        store.delete(session, first.answer.id)
        assert store.append(session, a_turn(at=now(), key="k1")).stored

    def test_keys_of_missing_turns_are_kept(self, store: HistoryStore) -> None:
        session, turn = a_session(), a_turn(at=now(), key="k1")
        store.append(session, a_turn(at=now(), key="k2"), [turn])
        assert set(store.inspect(session).keys) == {"k1", "k2"}

    def test_keys_are_kept_without_turns(self, store: HistoryStore) -> None:
        """Repair gives a store those whose turns were trimmed in the other."""
        session, at = a_session(), asked_at(a_turn(at=now()))
        store.append(session, a_turn(at=now(), key="k2"))
        store.keep_keys(session, {"k1": at})
        assert store.append(session, a_turn(at=now(), key="k1")).expired == at

    def test_the_newest_keys_are_kept(self, store: HistoryStore) -> None:
        session, at = a_session(), asked_at(a_turn(at=now()))
        store.append(session, a_turn())
        store.keep_keys(session, {f"k{number}": at + number for number in range(MOST + 5)})
        kept = store.inspect(session).keys
        assert (len(kept), "k4" in kept, "k5" in kept) == (MOST, False, True)

    def test_the_same_key_twice_is_stored_once(self, store: HistoryStore) -> None:
        session, first, duplicate = a_session(), a_turn(key="k1"), a_turn(key="k1")
        store.append(session, first)
        assert not store.append(session, duplicate).stored
        assert store.load(session) == History.of([first])

    def test_a_late_turn_lands_in_its_place(self, store: HistoryStore) -> None:
        session, turns = a_session(), some_turns(4)
        for turn in (turns[3], turns[0], turns[2], turns[1]):
            store.append(session, turn)
        assert store.load(session) == History.of(turns)

    def test_the_oldest_whole_turns_go_first(self) -> None:
        store, session, turns = self.make(Limits(60, 3, 262_144)), a_session(), some_turns(5)
        for turn in turns:
            store.append(session, turn)
        assert store.load(session) == History.of(turns[-3:])

    def test_too_many_bytes_cost_whole_turns(self) -> None:
        turns = some_turns(12, size=900)
        limits = Limits(60, 16, 3 * len(turns[-1].lines()) + 10)
        store, session = self.make(limits), a_session()
        for turn in turns:
            store.append(session, turn)
        assert store.load(session) == History.of(turns[-3:])

    def test_the_newest_turn_stays_whatever_its_size(self) -> None:
        store, session = self.make(Limits(60, 16, 1024)), a_session()
        small, large, after = a_turn(), a_turn("q", "a" * 5000), a_turn()
        store.append(session, small)
        store.append(session, large)
        assert store.load(session) == History.of([large])
        store.append(session, after)
        assert store.load(session) == History.of([after])

    def test_a_long_conversation_keeps_its_order(self) -> None:
        store, session, turns = self.make(Limits(60, 1000, 10_000_000)), a_session(), some_turns(100)
        store.append(session, None, turns[:50])
        store.append(session, None, turns[50:])
        assert store.load(session) == History.of(turns)

    def test_every_turn_renews_the_ttl(self, store: HistoryStore) -> None:
        session = a_session()
        store.append(session, a_turn())
        assert store.ttl(session) in (LIMITS.ttl, LIMITS.ttl - 1)
        longer = self.with_ttl(store, LIMITS.ttl + 1000)
        longer.append(session, a_turn())
        assert longer.ttl(session) in (LIMITS.ttl + 1000, LIMITS.ttl + 999)

    def with_ttl(self, store: HistoryStore, ttl: int) -> HistoryStore:
        store.limits = Limits(ttl, store.limits.max_turns, store.limits.max_bytes)
        return store

    def test_an_expired_conversation_is_gone(self, store: HistoryStore) -> None:
        session, after = a_session(), a_turn()
        store.append(session, a_turn())
        self.expire(store, session)
        assert store.load(session) is None
        assert store.ttl(session) is None
        assert store.append(session, after).created
        assert store.load(session) == History.of([after])

    def test_a_deleted_conversation_is_gone(self, store: HistoryStore) -> None:
        session = a_session()
        store.append(session, a_turn())
        assert store.delete(session, tombstone_for()) is True
        assert store.load(session) is None
        assert store.ttl(session) is None
        assert store.delete(session, tombstone_for()) is False

    def test_tombstoned_turns_are_not_stored_again(self, store: HistoryStore) -> None:
        session, turns = a_session(), some_turns(4)
        store.append(session, None, turns[:2])
        store.delete(session, turns[1].answer.id)
        receipt = store.append(session, turns[1], turns[:1])
        assert (receipt.stored, receipt.tombstone) == (False, turns[1].answer.id)
        assert store.load(session) is None
        receipt = store.append(session, turns[2], turns[:2])
        assert (receipt.stored, receipt.created, receipt.tombstone) == (True, True, None)
        assert store.load(session) == History.of(turns[2:3])

    def test_deleting_up_to_an_id_keeps_what_is_later(self, store: HistoryStore) -> None:
        session, turns = a_session(), some_turns(4)
        store.append(session, None, turns)
        assert store.delete(session, turns[1].answer.id) is True
        assert store.load(session) == History.of(turns[2:])
        assert store.delete(session, turns[0].answer.id) is False
        assert store.inspect(session).tombstone == turns[1].answer.id
        assert store.ttl(session) in (LIMITS.ttl, LIMITS.ttl - 1)

    def test_a_tombstone_lives_for_one_ttl(self) -> None:
        store, session, turn = self.make(Limits(1, 16, 262_144)), a_session(), a_turn()
        store.delete(session, turn.answer.id)
        assert store.inspect(session).tombstone == turn.answer.id
        self.pass_ttl(store)
        assert store.inspect(session).tombstone is None
        assert store.append(session, turn).stored

    def pass_ttl(self, store: HistoryStore) -> None:
        time.sleep(store.limits.ttl + 0.05)  # the server's own clock

    def test_a_tombstone_lives_as_long_as_copies_of_a_longer_ttl(self) -> None:
        store, session, turn = self.make(SHORT), a_session(), a_turn()
        ttl_was(LONG)
        store.delete(session, turn.answer.id)
        self.let_pass(store, session, LONG - 100)
        assert store.append(session, turn).tombstone == turn.answer.id
        self.let_pass(store, session, 200)
        assert store.inspect(session).tombstone is None
        assert store.append(session, turn).stored

    def test_turns_do_not_shorten_the_life_of_a_tombstone(self) -> None:
        store, session, (deleted, *later) = self.make(SHORT), a_session(), some_turns(3)
        ttl_was(LONG)
        store.delete(session, deleted.answer.id)
        for turn in later:
            assert store.append(session, turn, flag=True).stored
        self.let_pass(store, session, LONG - 100)
        assert store.append(session, deleted).tombstone == deleted.answer.id

    def test_deleting_again_does_not_shorten_the_life_of_a_tombstone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The other process may not know how long copies live."""
        store, (earlier, first, later) = self.make(SHORT), some_turns(3)
        for again in (earlier, later):
            session = a_session()
            ttl_was(LONG)
            store.delete(session, first.answer.id)
            monkeypatch.setattr(expiry, "_latest", 0.0)
            store.delete(session, again.answer.id)
            self.let_pass(store, session, LONG - 100)
            assert store.inspect(session).tombstone == max(first.answer.id, again.answer.id)

    def test_deleting_again_renews_the_life_of_a_tombstone(self) -> None:
        store, session, (earlier, later) = self.make(SHORT), a_session(), some_turns(2)
        store.delete(session, later.answer.id)
        for turn in (later, earlier):
            self.let_pass(store, session, SHORT.ttl - 10)
            store.delete(session, turn.answer.id)
        self.let_pass(store, session, SHORT.ttl - 10)
        assert store.inspect(session).tombstone == later.answer.id

    def test_a_turn_renews_a_longer_ttl_too(self, store: HistoryStore) -> None:
        session, turns = a_session(), some_turns(3)
        ttl_was(LIMITS.ttl)
        store.append(session, turns[0])
        lower = self.with_ttl(store, SHORT.ttl)
        for turn in turns[1:]:
            assert lower.append(session, turn) == Receipt(stored=True, created=False)
            assert lower.ttl(session) in (SHORT.ttl, SHORT.ttl - 1)
        assert lower.load(session) == History.of(turns)

    def let_pass(self, store: HistoryStore, session: str, seconds: int) -> None:
        """Let so much time pass for what the store has of the session."""
        raise NotImplementedError

    @pytest.mark.parametrize(
        "text",
        ["", "żółć ☃ 𝄞 \U0001f9d1\u200d\U0001f680", "line\nline\r\n\u2028", 'a "quoted" \\ back', "\x00\x01\x7f",
         "a" * 65_536, '","id":"00000000-0000-7000-8000-000000000000","at":"', '"key":"k"', "é" * 32_768],
    )  # fmt: skip
    def test_any_text_comes_back_as_it_went_in(self, text: str) -> None:
        store = self.make(Limits(60, 16, 1_000_000))
        session, turns = a_session(), [a_turn(text, text), a_turn(text, text)]
        for turn in turns:
            store.append(session, turn)
        assert store.load(session) == History.of(turns)
        assert store.append(session, a_turn(key="k")).stored

    def test_a_corrupt_value_is_reported_quarantined_and_never_overwritten(self, store: HistoryStore) -> None:
        session, turn = a_session(), a_turn()
        for count in (1, 2):
            self.spoil(store, session)
            with pytest.raises(CorruptHistory):
                store.load(session)
            with pytest.raises(CorruptHistory):
                store.append(session, turn)
            assert store.quarantine(session) is True
            assert store.load(session) is None
            assert self.quarantined_copies(store, session) == count
        store.append(session, turn)
        assert store.load(session) == History.of([turn])

    def test_deleting_removes_quarantined_copies(self, store: HistoryStore) -> None:
        session = a_session()
        self.spoil(store, session)
        store.quarantine(session)
        assert store.delete(session, tombstone_for()) is True
        assert self.quarantined_copies(store, session) == 0

    @pytest.mark.parametrize(
        "changes",
        [{"id": "80000000-0000-7000-8000-000000000000"}, {"at": "9999-12-31T23:59:59.999Z"}, {"role": "system"},
         {"content": None}],
    )  # fmt: skip
    def test_a_turn_that_could_not_be_read_is_not_written(self, store: HistoryStore, changes: dict[str, Any]) -> None:
        """Else one bad turn would make the whole conversation corrupt."""
        session, (first, good, last) = a_session(), some_turns(3)
        bad = good._replace(question=replace(good.question, **changes))
        store.append(session, first)
        for turn, missing in ((bad, [last]), (last, [bad]), (None, [last, bad])):
            with pytest.raises(InvalidTurn):
                store.append(session, turn, missing, flag=True)
        assert store.load(session) == History.of([first])
        assert session not in store.flags(10_000).sessions

    def test_deleting_what_has_expired_finds_nothing(self, store: HistoryStore) -> None:
        session = a_session()
        store.append(session, a_turn(), flag=True)
        self.expire(store, session)
        assert store.delete(session, tombstone_for()) is False
        assert store.load(session) is None
        assert store.inspect(session).tombstone

    def test_deleting_takes_a_corrupt_value(self, store: HistoryStore) -> None:
        session, turn = a_session(), a_turn(at=datetime.now(UTC) + timedelta(hours=1))
        self.spoil(store, session)
        assert store.delete(session, tombstone_for()) is True
        assert store.append(session, turn).stored
        assert store.load(session) == History.of([turn])

    def test_quarantining_nothing_does_nothing(self, store: HistoryStore) -> None:
        session = a_session()
        assert store.quarantine(session) is False
        assert self.quarantined_copies(store, session) == 0

    def test_pages_hold_every_session_of_the_tenant(self, store: HistoryStore) -> None:
        tenant = a_session()
        mine = {f"{tenant}:{a_session()}" for _ in range(25)}
        for session in [*mine, a_session(), f"{tenant}x:{a_session()}"]:
            store.append(session, a_turn())
        found: list[str] = []
        cursor = None
        while cursor != "":
            page = store.scan(cursor or "", 10, tenant)
            found += page.sessions
            cursor = page.cursor
        assert set(found) == mine

    def test_a_page_is_bounded_whatever_is_asked(self, store: HistoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(base, "MOST_SCANNED", 5)
        tenant = a_session()
        for _ in range(50):
            store.append(f"{tenant}:{a_session()}", a_turn())
        for limit in (10**9, 1, 0, -1):
            page = store.scan("", limit, tenant)
            assert len(page.sessions) < 25
            assert page.cursor

    def test_without_a_tenant_only_those_without_one(self, store: HistoryStore) -> None:
        plain, owned = a_session(), f"acme:{a_session()}"
        store.append(plain, a_turn())
        store.append(owned, a_turn())
        found: set[str] = set()
        cursor = None
        while cursor != "":
            page = store.scan(cursor or "", 100)
            found |= set(page.sessions)
            cursor = page.cursor
        assert plain in found
        assert owned not in found

    def test_the_summaries_of_those_that_are_there(self, store: HistoryStore) -> None:
        there, gone, deleted, corrupt, turns = a_session(), a_session(), a_session(), a_session(), some_turns(3)
        store.append(there, None, turns)
        store.append(deleted, turns[0])
        store.delete(deleted, tombstone_for())
        self.spoil(store, corrupt)
        found = store.summaries([there, gone, deleted, corrupt])
        assert found == {there: Summary(6, turns[-1].answer.at), corrupt: CORRUPT}
        assert store.summaries([]) == {}

    def test_what_has_expired_has_no_summary(self, store: HistoryStore) -> None:
        session = a_session()
        store.append(session, a_turn())
        self.expire(store, session)
        assert store.summaries([session]) == {}

    @pytest.mark.parametrize(
        "question",
        [
            "Plain words?",
            'A "quote", a \\ and a\nnew line\t, \u0001',
            "größer 你好 🙂" * 30,
            "\\" * 90,
            "\u0001" * 200,
            "x" * 100_000,
        ],
    )
    def test_a_preview_is_the_beginning_of_the_newest_question(self, store: HistoryStore, question: str) -> None:
        session = a_session()
        store.append(session, a_turn("An older one?", "Yes."))
        store.append(session, a_turn(question, "answer " * 5_000))
        found = store.summaries([session, a_session()], preview=80)
        assert [one.question for one in found.values()] == [question[:80]]
        assert store.summaries([session])[session].question is None

    def test_a_summary_has_the_size(self, store: HistoryStore) -> None:
        session = a_session()
        store.append(session, None, some_turns(3))
        size = len((store.load(session) or History()).lines())
        assert size <= (store.summaries([session])[session].bytes or 0) < 2 * size

    def test_what_is_listed_is_counted(self, store: HistoryStore) -> None:
        tenant, day = a_session(), "2031-07-0{}T12:00:00.000Z"
        for number in range(1, 5):
            at = datetime.fromisoformat(day.format(number))
            store.append(f"{tenant}:{a_session()}", a_turn(at=at))
        store.write_list()
        assert store.count(tenant) == 4
        assert store.count(tenant, day.format(2), day.format(4)) == 2
        assert store.count(tenant, day.format(3)) == 2
        assert (store.count(None, day.format(2), day.format(4)) or 0) >= 2
        assert (store.count(None) or 0) >= 4
        assert store.count(a_session()) == 0

    def names(self, store: HistoryStore, tenant: str | None, limit: int = 7, **wanted: str) -> list[str]:
        """Return every session of the list that has a summary, part by part."""
        found: list[str] = []
        part = store.newest(tenant, None, limit, **wanted)
        found += [place.session for place in part.places]
        while part.end:
            part = store.newest(tenant, part.end, limit, **wanted)
            found += [place.session for place in part.places]
        there = store.summaries(found)
        return [session for session in found if session in there]

    def test_the_newest_come_first(self, store: HistoryStore) -> None:
        tenant = a_session()
        sessions = [f"{tenant}:{a_session()}" for _ in range(20)]
        for session in [*sessions, a_session(), f"{tenant}x:{a_session()}"]:
            store.append(session, a_turn())
        assert self.names(store, tenant) == sessions[::-1]
        assert self.names(store, tenant, 100) == sessions[::-1]
        assert self.names(store, a_session()) == []

    def test_a_part_of_the_list_has_places(self, store: HistoryStore) -> None:
        tenant, turn = a_session(), a_turn()
        session = f"{tenant}:{a_session()}"
        store.append(session, turn)
        part = store.newest(tenant)
        assert (part.places, part.end) == ((Place(turn.answer.at, session),), None)
        assert store.summaries([session])[session].place == turn.answer.at

    def test_what_goes_on_moves_to_the_front(self, store: HistoryStore) -> None:
        tenant = a_session()
        first, second = f"{tenant}:{a_session()}", f"{tenant}:{a_session()}"
        turns = some_turns(3)
        store.append(first, turns[0])
        store.append(second, turns[1])
        store.append_after(first, store.load(first) or History(), turns[2])
        assert self.names(store, tenant) == [first, second]

    def test_an_earlier_turn_moves_nothing(self, store: HistoryStore) -> None:
        """Repair gives a store turns that it is missing."""
        tenant, turns = a_session(), some_turns(3)
        first, second = f"{tenant}:{a_session()}", f"{tenant}:{a_session()}"
        store.append(first, turns[1])
        store.append(second, turns[2])
        store.append(second, None, [turns[0]])
        assert self.names(store, tenant) == [second, first]

    def test_conversations_of_one_time_are_all_in_the_list(self, store: HistoryStore) -> None:
        tenant, turn = a_session(), a_turn()
        sessions = {f"{tenant}:{a_session()}" for _ in range(20)}
        for session in sessions:
            store.append(session, turn)
        assert self.names(store, tenant, 3) == sorted(sessions, reverse=True)

    def test_what_is_deleted_or_expired_is_in_no_list(self, store: HistoryStore) -> None:
        tenant = a_session()
        there, deleted, expired = (f"{tenant}:{a_session()}" for _ in range(3))
        store.append(expired, a_turn())
        self.expire(store, expired)
        for session in (there, deleted):
            store.append(session, a_turn())
        store.delete(deleted, tombstone_for())
        assert self.names(store, tenant) == [there]
        store.write_list()
        assert [place.session for place in store.newest(tenant).places] == [there]

    def test_two_tenants_have_the_same_session(self, store: HistoryStore) -> None:
        one, other, session = a_session(), a_session(), a_session()
        for name in (f"{one}:{session}", f"{other}:{session}", session):
            store.append(name, a_turn())
        assert (self.names(store, one), self.names(store, other)) == ([f"{one}:{session}"], [f"{other}:{session}"])
        assert session in self.names(store, "")

    def test_the_list_of_a_user(self, store: HistoryStore) -> None:
        one, other, user = a_session(), a_session(), "ada@example.org:1+2"
        theirs = [f"{one}:{a_session()}" for _ in range(5)]
        for session in theirs:
            store.append(session, a_turn(user=user))
            store.append(f"{one}:{a_session()}", a_turn(user=f"x{user}"))
        store.append(f"{one}:{a_session()}", a_turn("A user? " + f'","user":"{user}"'))
        store.append(f"{other}:{a_session()}", a_turn(user=user))
        for limit in (1, 2, 100):
            assert self.names(store, one, limit, user=user) == theirs[::-1]
        assert len([name for name in self.names(store, None, user=user) if name.startswith((one, other))]) == 6
        assert self.names(store, one, user="ada@example.org") == []
        assert self.names(store, one, user=user, contains=theirs[2][-8:]) == [theirs[2]]
        assert {one.user for one in store.summaries(theirs).values()} == {user}

    def test_a_conversation_that_has_a_user_later_is_in_the_list_at_once(self, store: HistoryStore) -> None:
        tenant, turns = a_session(), (a_turn(), a_turn(user="ada"), a_turn(user="ada"))
        session = f"{tenant}:{a_session()}"
        for turn in turns:
            store.append_after(session, store.load(session) or History(), turn)
            assert self.names(store, tenant, user="ada") == [session] * bool(turn.question.user)
        assert (store.load(session) or History()).user == "ada"

    def test_what_was_deleted_is_in_no_list_of_a_user(self, store: HistoryStore) -> None:
        tenant, turn = a_session(), a_turn(user="ada")
        session = f"{tenant}:{a_session()}"
        store.append(session, turn)
        store.delete(session, turn.answer.id)
        assert store.newest(tenant, user="ada").places == ()
        store.append(session, a_turn(user="eve"))
        assert self.names(store, tenant, user="eve") == [session]
        assert self.names(store, tenant, user="ada") == []

    def test_the_user_is_that_of_the_newest_question_that_has_one(self, store: HistoryStore) -> None:
        session = a_session()
        store.append(session, None, (a_turn(user="ada", key="k"), a_turn(user="eve"), a_turn()))
        history = store.load(session) or History()
        assert (history.user, store.summaries([session])[session].user) == ("eve", "eve")
        assert [message.user for message in history] == ["ada", None, "eve", None, None, None]
        assert store.load(session) == history.validated()

    def test_the_list_of_all_tenants(self, store: HistoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("conversations.stores.redis.newest._TENANTS", 3)
        name, at = a_session(), now() + timedelta(days=365)
        sessions = [f"{a_session()}:{name}" for _ in range(10)] + [name, f"{a_session()}:{name}"]
        for number, session in enumerate(sessions):
            store.append(session, a_turn(at=at + timedelta(seconds=number // 2)))
        wanted = sorted(sessions, key=lambda session: (sessions.index(session) // 2, session), reverse=True)
        for limit in (1, 5, 100):
            found = self.names(store, None, limit, since=stamp(at - timedelta(days=1)))
            assert [session for session in found if session.endswith(name)] == wanted

    def test_the_list_of_a_time(self, store: HistoryStore) -> None:
        tenant, turns = a_session(), some_turns(6)
        sessions = [f"{tenant}:{a_session()}" for _ in turns]
        for session, turn in zip(sessions, turns, strict=True):
            store.append(session, turn)
        since, until = turns[1].answer.at, Place(turns[4].answer.at, "")
        assert self.names(store, tenant, since=since) == sessions[:0:-1]
        assert [place.session for place in store.newest(tenant, until, since=since).places] == sessions[3:0:-1]

    def test_a_session_is_found_by_a_part_of_its_name(self, store: HistoryStore) -> None:
        name = a_session()
        for session in (f"{name}.a-b", f"{name}xa-b", f"acme:{name}.a-c"):
            store.append(session, a_turn())
        assert self.names(store, None, contains=f"{name}.a") == [f"acme:{name}.a-c", f"{name}.a-b"]
        assert self.names(store, None, contains="acme:" + name) == [f"acme:{name}.a-c"]
        with pytest.raises(InvalidSession):
            store.newest(contains="*")

    def test_every_tenants_sessions(self, store: HistoryStore) -> None:
        plain, owned = a_session(), f"{a_session()}:{a_session()}"
        store.append(plain, a_turn())
        store.append(owned, a_turn())
        assert {plain, owned} <= self.found(store)

    def found(self, store: HistoryStore) -> set[str]:
        """Return every session of all tenants, by scans."""
        page = store.scan("", 100, None)
        found = set(page.sessions)
        while page.cursor:
            page = store.scan(page.cursor, 100, None)
            found |= set(page.sessions)
        return found

    @pytest.mark.parametrize("session", ["", "a\n", "a b", "a:b:c", "a/b", "é", "a" * 129, ":a", "a:", "*"])
    def test_what_is_no_session_is_refused(self, store: HistoryStore, session: str) -> None:
        with pytest.raises(InvalidSession):
            store.load(session)

    def test_an_outage_raises_and_is_never_empty(self, store: HistoryStore, outage: None) -> None:
        session, turn = a_session(), a_turn()
        for call in (
            lambda: store.load(session),
            lambda: store.append(session, turn),
            lambda: store.delete(session, tombstone_for()),
            lambda: store.inspect(session),
            lambda: store.ttl(session),
            lambda: store.scan(),
            lambda: store.newest(),
            lambda: store.summaries([session]),
            lambda: store.quarantine(session),
            store.ping,
        ):
            with pytest.raises(StoreUnavailable) as caught:
                call()
            assert caught.value.store == store.alias

    def test_writers_at_once_lose_and_double_nothing(self) -> None:
        store, session = self.make(Limits(60, 1000, 10_000_000)), a_session()
        moment = datetime(2026, 1, 1, tzinfo=UTC)
        work = [[a_turn(f"{w}.{n}", at=moment + timedelta(milliseconds=n)) for n in range(10)] for w in range(16)]

        def write(turns: list[Turn]) -> None:
            for turn in turns:
                store.append(session, turn)
            connections.close_all()

        with ThreadPoolExecutor(16) as pool:
            list(pool.map(write, work))
        every = sorted((turn for turns in work for turn in turns), key=lambda turn: turn.id)
        assert store.load(session) == History.of(every)


class TestMemoryStore(Contract):
    def make(self, limits: Limits = LIMITS) -> HistoryStore:
        self.time = 0.0
        return MemoryStore("redis", limits, clock=lambda: self.time)

    def spoil(self, store: HistoryStore, session: str) -> None:
        assert isinstance(store, MemoryStore)
        store.values[session] = "no history"

    def quarantined_copies(self, store: HistoryStore, session: str) -> int:
        assert isinstance(store, MemoryStore)
        return len(store.quarantined.get(session, []))

    def expire(self, store: HistoryStore, session: str) -> None:
        self.time += store.limits.ttl

    def pass_ttl(self, store: HistoryStore) -> None:
        self.time += store.limits.ttl

    def let_pass(self, store: HistoryStore, session: str, seconds: int) -> None:
        self.time += seconds

    @pytest.fixture
    def outage(self, store: HistoryStore) -> Iterator[None]:
        assert isinstance(store, MemoryStore)
        store.down = True
        yield


class TombstoneContract(Contract):
    """What a store of a server does where another program wrote a tombstone that is no id."""

    WRONG: tuple[Any, ...] = ()

    def write_tombstone(self, store: HistoryStore, session: str, value: Any) -> None:
        raise NotImplementedError

    def test_a_tombstone_that_is_no_id_covers_nothing(self, store: HistoryStore) -> None:
        """It does not show what was deleted, and a guess could lose other turns."""
        for wrong in self.WRONG:
            session, turns = a_session(), some_turns(3)
            store.append(session, turns[0])
            self.write_tombstone(store, session, wrong)
            assert store.append(session, turns[2], [turns[1]]) == Receipt(stored=True, created=False)
            assert store.inspect(session) == Contents(History.of(turns), None, None)

    def test_deleting_replaces_it(self, store: HistoryStore) -> None:
        for wrong in self.WRONG:
            session, turn = a_session(), a_turn()
            store.append(session, turn)
            self.write_tombstone(store, session, wrong)
            assert store.delete(session, turn.answer.id) is True
            assert store.inspect(session) == Contents(None, turn.answer.id, None)
            assert store.append(session, turn).tombstone == turn.answer.id


@contextmanager
def scans() -> Iterator[list[int]]:
    """Yield a list that holds, at the end, the COUNT of every SCAN that Redis was sent meanwhile."""
    counts: list[int] = []
    with ExitStack() as stack:
        clients = [stack.enter_context(one.client()) for one in environment.REDIS.masters]
        for client in clients:
            client.config_set("slowlog-max-len", 1000)
            client.config_set("slowlog-log-slower-than", 0)
            client.slowlog_reset()
        yield counts
        for client in clients:
            client.config_set("slowlog-log-slower-than", 10_000)
            commands = [entry["command"].split() for entry in client.slowlog_get(1000)]
            counts += [int(words[-1]) for words in commands if words[0].upper() == b"SCAN"]


@contextmanager
def refused(*commands: str) -> Iterator[None]:
    """Have Redis refuse the commands to the users that a store may be logged in as meanwhile; both may use them."""
    rights = [(one, f"-{command}", f"+{command}") for one in environment.REDIS.masters for command in commands]
    try:
        for server, without, _ in rights:
            _set_right(server, without)
        yield
    finally:
        for server, _, right in rights:
            _set_right(server, right)


def _set_right(server: RedisServer, right: str) -> None:
    with server.client() as client:
        for user in {"default", "onesource"} & set(client.acl_users()):
            client.execute_command("ACL", "SETUSER", user, right)


class TestCacheStore(TombstoneContract):
    WRONG = ("zzz", "", b"\xff", "7zzz", "019CB1A0-0000-7000-8000-000000000001", "8" * 36, "~" * 36, ["a list"])

    def write_tombstone(self, store: HistoryStore, session: str, value: Any) -> None:
        with environment.REDIS.client() as client:
            key = tombstone_key(make_key(session))
            client.rpush(key, *value) if isinstance(value, list) else client.set(key, value)

    def make(self, limits: Limits = LIMITS) -> HistoryStore:
        return CacheStore("redis", limits)

    def spoil(self, store: HistoryStore, session: str) -> None:
        with environment.REDIS.client() as client:
            client.set(make_key(session), "no history")

    def quarantined_copies(self, store: HistoryStore, session: str) -> int:
        with environment.REDIS.client() as client:
            return len(list(client.scan_iter(match=f"corrupt:{{{make_key(session)}}}:*", count=1000)))

    def expire(self, store: HistoryStore, session: str) -> None:
        with environment.REDIS.client() as client:
            client.pexpire(make_key(session), 0)

    def let_pass(self, store: HistoryStore, session: str, seconds: int) -> None:
        with environment.REDIS.client() as client:
            for key in (make_key(session), tombstone_key(make_key(session))):
                if (left := client.ttl(key)) >= 0:
                    client.expire(key, max(left - seconds, 0))

    @pytest.fixture
    def outage(self, store: HistoryStore) -> Iterator[None]:
        environment.REDIS.kill()
        yield
        environment.REDIS.start()

    @pytest.mark.parametrize(
        "value",
        ["no history", "[]\n", "{}\n{}\n", '{"role":"user"}\n', "\n", "\xff\xfe", "12345",
         json.dumps({"role": "user", "content": "x", "id": "1", "at": "2"}) + "\n"],
    )  # fmt: skip
    def test_nothing_but_a_history_is_read_as_one(self, store: HistoryStore, value: str) -> None:
        session = a_session()
        with environment.REDIS.client() as client:
            client.set(make_key(session), value)
            with pytest.raises(CorruptHistory):
                store.load(session)
            with pytest.raises(CorruptHistory):
                store.append(session, a_turn())
            assert client.get(make_key(session)) == value.encode()

    def test_what_another_program_has_put_there_is_listed_once_all_is_listed_anew(self, store: HistoryStore) -> None:
        """It must be visible."""
        tenant = a_session()
        good, wrong = f"{tenant}:{a_session()}", f"{tenant}:{a_session()}"
        store.append(good, a_turn())
        self.spoil(store, wrong)
        self.list_anew(store)
        assert self.names(store, tenant) == [good, wrong]

    def test_a_list_that_is_lost_is_made_anew(self, store: HistoryStore) -> None:
        tenant = a_session()
        sessions = [f"{tenant}:{a_session()}" for _ in range(5)]
        for session in sessions:
            store.append(session, a_turn())
        self.list_anew(store)
        assert store.newest(tenant).whole
        with environment.REDIS.client() as client:
            client.delete(newest_key(tenant), TENANTS, note_key(LISTED))
        assert not store.newest(tenant).whole
        self.list_anew(store)
        assert (self.names(store, tenant), store.newest(tenant).whole) == (sessions[::-1], True)
        assert set(sessions) <= set(self.names(store, None, contains=tenant))

    def list_anew(self, store: HistoryStore) -> None:
        for _ in RedisBulk(store).list_all():
            pass
        assert isinstance(store, CacheStore)
        store.write_note(LISTED, "0")

    def test_what_has_gone_on_is_written_within_a_second(self, store: HistoryStore) -> None:
        """Another process sees it then; a new conversation at once."""
        tenant, (first, second) = a_session(), some_turns(2)
        session = f"{tenant}:{a_session()}"
        store.append(session, first)
        key = (newest_key(tenant), session.partition(":")[2])
        with environment.REDIS.client() as client:
            assert client.zscore(*key) == milliseconds(first.answer.at)
            store.append_after(session, store.load(session) or History(), second)
            store.write_list()
            assert client.zscore(*key) == milliseconds(second.answer.at)

    def test_a_wrong_key_in_the_place_of_a_list_hinders_no_other(self, store: HistoryStore) -> None:
        wrong, tenant, (first, second) = a_session(), a_session(), some_turns(2)
        for session in (f"{wrong}:{a_session()}", f"{tenant}:{a_session()}"):
            with environment.REDIS.client() as client:
                client.set(newest_key(wrong), "x")
            assert store.append(session, first).created
            store.append_after(session, store.load(session) or History(), second)
        assert [place.at for place in store.newest(tenant).places] == [second.answer.at]
        with pytest.raises(StoreUnavailable):
            store.newest(wrong)
        with environment.REDIS.client() as client:
            client.delete(newest_key(wrong))
            client.zrem(TENANTS, wrong)

    def test_what_could_not_be_written_in_the_list_is_later(self, store: HistoryStore) -> None:
        tenant, (first, second) = a_session(), some_turns(2)
        session = f"{tenant}:{a_session()}"
        store.append(session, first)
        store.append_after(session, store.load(session) or History(), second)
        environment.REDIS.kill()
        try:
            with pytest.raises(StoreUnavailable):
                store.write_list()
        finally:
            environment.REDIS.start()
        assert store.newest(tenant).places == (Place(second.answer.at, session),)

    def test_a_turn_in_a_conversation_takes_no_command_more(self, store: HistoryStore) -> None:
        session, turns = a_session(), some_turns(3)
        store.append(session, turns[0])
        store.append_after(session, store.load(session) or History(), turns[1])  # Redis has the script from now on
        seen = store.load(session) or History()
        with to_redis() as sent:
            store.append_after(session, seen, turns[2])
        assert sent == ["EVALSHA"]

    def test_what_has_gone_leaves_the_list_once_it_was_looked_for(self, store: HistoryStore) -> None:
        tenant = a_session()
        gone, again = f"{tenant}:{a_session()}", f"{tenant}:{a_session()}"
        for session in (gone, again):
            store.append(session, a_turn())
            self.expire(store, session)
        assert store.summaries([gone, again]) == {}
        store.append(again, a_turn())
        store.write_list()
        assert [place.session for place in store.newest(tenant).places] == [again]

    def test_what_expired_long_ago_leaves_the_list(self, store: HistoryStore) -> None:
        tenant = a_session()
        session = f"{tenant}:{a_session()}"
        store.append(session, a_turn(at=now() - timedelta(days=200)))
        self.expire(store, session)
        self.list_anew(store)
        assert store.newest(tenant).places == ()

    def test_another_programs_entries_are_in_no_list(self, store: HistoryStore) -> None:
        tenant, turn = a_session(), a_turn()
        session = f"{tenant}:{a_session()}"
        store.append(session, turn)
        with environment.REDIS.client() as client:
            at = milliseconds(turn.answer.at)
            client.zadd(newest_key(tenant), {"no session": at, b"\xff": at, "x": float("inf"), "y": 1e300})
        for limit in (1, 2, 100):
            assert self.names(store, tenant, limit) == [session]

    def test_a_key_of_another_type_is_corrupt(self, store: HistoryStore) -> None:
        session = a_session()
        with environment.REDIS.client() as client:
            client.rpush(make_key(session), "a")
        with pytest.raises(CorruptHistory):
            store.load(session)
        with pytest.raises(CorruptHistory):
            store.append(session, a_turn())
        with pytest.raises(CorruptHistory):
            store.inspect(session)
        store.quarantine(session)
        assert store.load(session) is None

    def test_a_step_of_a_walk_is_bounded_whatever_is_asked(self, store: HistoryStore) -> None:
        """Redis does nothing else meanwhile: every other request would be timed out."""
        with scans() as counts:
            store.scan("", 10**9)
        assert 0 < max(counts) <= base.MOST_SCANNED

    def test_a_page_takes_few_steps_though_none_is_found(
        self, store: HistoryStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What a client of few conversations asks must not walk through all of the others' in one request."""
        monkeypatch.setattr("conversations.stores.redis.turns._STEPS", 3)
        monkeypatch.setattr("conversations.stores.redis.turns._STEP", 10)
        tenant = a_session()
        mine = {f"{tenant}:{a_session()}" for _ in range(5)}
        for session in [*mine, *(a_session() for _ in range(100))]:
            store.append(session, a_turn())
        found: set[str] = set()
        cursor = None
        while cursor != "":
            with scans() as counts:
                page = store.scan(cursor or "", 1, tenant)
            assert len(counts) <= 3
            assert max(counts) <= 10
            found |= set(page.sessions)
            cursor = page.cursor
        assert found == mine

    def test_a_key_of_another_type_has_a_summary(self, store: HistoryStore) -> None:
        wrong, good, turn = a_session(), a_session(), a_turn()
        store.append(good, turn)
        with environment.REDIS.client() as client:
            client.hset(make_key(wrong), "a", "b")
        assert store.summaries([wrong, good]) == {wrong: CORRUPT, good: Summary(2, turn.answer.at)}

    def test_all_summaries_are_one_round_trip(self, store: HistoryStore) -> None:
        sessions = [a_session() for _ in range(50)]
        for session in sessions:
            store.append(session, a_turn())
        store.summaries(sessions[:1])  # Redis has the script from now on
        with to_redis() as sent:
            assert len(store.summaries(sessions)) == 50
        assert sent == ["EVALSHA"] * len(environment.REDIS.masters)

    def test_a_server_that_lost_its_scripts_is_sent_them_again(self, store: HistoryStore) -> None:
        session, turn = a_session(), a_turn()
        store.append(session, turn)
        with environment.REDIS.client() as client:
            client.script_flush()
        assert store.summaries([session]) == {session: Summary(2, turn.answer.at)}

    def test_summaries_fetch_no_whole_conversations(self, store: HistoryStore) -> None:
        """A page of a hundred long ones would hold up every question meanwhile."""
        sessions = long_ones(store)
        with from_redis(environment.REDIS) as sizes:
            assert len(store.summaries(sessions)) == len(sessions)
        assert sum(sizes) < 20_000

    @pytest.mark.parametrize(
        "spoil",
        [
            lambda value: value[:-1],
            lambda value: value[1:],
            lambda value: value + value[:300],
            lambda value: value + value.splitlines(keepends=True)[-1],
            lambda value: value.replace(b'"at":"2', b'"at":"x'),
            lambda value: value.replace(b'"id":"0', b'"id":"z'),
            lambda value: b"\n" * 1000 + value,
            lambda value: b"",
        ],
        ids=["no end", "no beginning", "half a line", "half a turn", "no time", "no id", "empty lines", "nothing"],
    )
    def test_what_is_no_history_has_no_summary(self, store: HistoryStore, spoil: Callable[[bytes], bytes]) -> None:
        session = a_session()
        store.append(session, None, some_turns(3))
        with environment.REDIS.client() as client:
            client.set(make_key(session), spoil(client.get(make_key(session))))
        assert store.summaries([session]) == {session: CORRUPT}

    def test_an_error_in_an_answer_raises_and_is_never_empty(self, store: HistoryStore) -> None:
        """A server that loads its data, or whose user may not read, answers each command with an error."""
        session = a_session()
        store.append(session, a_turn())
        with refused("get", "getrange"), pytest.raises(StoreUnavailable):
            store.summaries([session])

    def test_a_turn_is_stored_by_a_user_without_append(self, store: HistoryStore) -> None:
        """The rights of Redis' users may be those of an older deployment."""
        session, turns = a_session(), some_turns(20)
        store.append(session, None, turns[:16])
        with refused("append"):
            for turn in turns[16:]:
                seen = store.load(session)
                assert seen
                assert store.append_after(session, seen, turn) == Receipt(stored=True, created=False)
        assert store.load(session) == History.of(turns[4:])

    def test_a_key_that_is_no_session_does_not_stop_a_scan(self, store: HistoryStore) -> None:
        session = a_session()
        store.append(session, a_turn())
        with environment.REDIS.client() as client:
            client.set(b"conv:\xff\xfe", "x")
            assert session in self.found(store)
            client.delete(b"conv:\xff\xfe")


class TestDocumentStore(TombstoneContract):
    WRONG = (
        "zzz",
        "",
        5,
        "019cb1a0-0000-7000-8000-000000000001\n",
        "7zzz",
        "019CB1A0-0000-7000-8000-000000000001",
        "8" * 36,
        "~" * 36,
        True,
    )

    def write_tombstone(self, store: HistoryStore, session: str, value: Any) -> None:
        self.documents(store).update_one({"_id": make_key(session)}, {"$set": {"tombstone": value}})

    def make(self, limits: Limits = LIMITS) -> HistoryStore:
        return DocumentStore("mongo", limits)

    def spoil(self, store: HistoryStore, session: str) -> None:
        assert isinstance(store, DocumentStore)
        later = datetime.now(UTC) + timedelta(days=1)
        self.documents(store).insert_one(
            {
                "_id": make_key(session),
                "messages": "no history",
                "bytes": 0,
                "expires_at": later,
                "updated_at": later,
            }
        )

    def test_documents_without_a_place_are_listed_once_they_have_one(self, store: HistoryStore) -> None:
        """An older version wrote them, or another program."""
        tenant, turns = a_session(), some_turns(3)
        sessions = [f"{tenant}:{a_session()}" for _ in range(3)]
        for session, turn in zip(sessions, turns, strict=True):
            store.append(session, turn)
        wrong = {"_id": make_key(f"{tenant}:{a_session()}"), "messages": "x", "bytes": 4}
        self.documents(store).insert_one(wrong | {"expires_at": now() + timedelta(days=1)})
        older = {"_id": {"$in": [make_key(session) for session in sessions[:2]]}}
        self.documents(store).update_many(older, {"$unset": {"place": ""}, "$set": {"updated_at": now()}})
        assert self.names(store, tenant) == [sessions[2]]
        for _ in MongoBulk(store).list_all():
            pass
        assert self.names(store, tenant) == [*sessions[::-1], wrong["_id"].removeprefix("conv:")]

    def test_the_list_is_whole_once_it_is_noted(self, store: HistoryStore) -> None:
        assert isinstance(store, DocumentStore)
        documents(NOTES).delete_one({"_id": LISTED})
        assert not store.newest().whole
        store.write_note(LISTED, "0")
        assert store.newest().whole

    def test_a_part_of_the_list_is_read_by_the_index(self, store: HistoryStore) -> None:
        """The embedded server would sort all documents."""
        tenant = a_session()
        store.append(f"{tenant}:{a_session()}", a_turn())
        indexes.create()
        for where, _ in itertools.islice(places._spans(tenant, Place(stamp(now()), a_session()), NO_TIME), 3):
            found = self.documents(store).find(where).sort([("place", -1), ("_id", -1)])
            assert "place_-1__id_-1" in str(found.explain()["queryPlanner"]["winningPlan"])

    def test_the_list_of_a_user_names_the_user_first(self, store: HistoryStore) -> None:
        """The embedded server takes the index of the first field: with `place` first it reads all of the tenant. What
        it explains of two fields is not what it does."""
        indexes.create()
        plan = self.documents(store).find({"messages.user": "ada"}).explain()["queryPlanner"]["winningPlan"]
        assert "messages.user_1" in str(plan)
        [(where, end)] = places._spans(a_session(), None, NO_TIME, at_once=True)
        assert (next(iter(places._narrowed(where, "x", "ada"))), end) == ("messages.user", None)

    def documents(self, store: HistoryStore):  # type: ignore[no-untyped-def]
        return connections["mongo"].get_collection("conversations_conversation")

    def quarantined_copies(self, store: HistoryStore, session: str) -> int:
        quarantine = connections["mongo"].get_collection("conversations_corruptconversation")
        return int(quarantine.count_documents({"key": make_key(session)}))

    def expire(self, store: HistoryStore, session: str) -> None:
        past = datetime.now(UTC) - timedelta(seconds=1)
        self.documents(store).update_one({"_id": make_key(session)}, {"$set": {"expires_at": past}})

    def let_pass(self, store: HistoryStore, session: str, seconds: int) -> None:
        where = {"_id": make_key(session)}
        (document,) = self.documents(store).find(where)
        expiry = document["expires_at"].replace(tzinfo=UTC) - timedelta(seconds=seconds)
        self.documents(store).update_one(where, {"$set": {"expires_at": expiry}})

    @pytest.fixture
    def outage(self, store: HistoryStore) -> Iterator[None]:
        environment.MONGO.kill()
        yield
        environment.MONGO.start()
        eventually(lambda: answers(store), "the driver does not see that MongoDB is back")

    def test_all_summaries_are_one_round_trip(self, store: HistoryStore) -> None:
        sessions = [a_session() for _ in range(50)]
        for session in sessions:
            store.append(session, a_turn())
        with to_mongo() as sent:
            assert len(store.summaries(sessions)) == 50
        assert sent == ["find"]

    def test_summaries_fetch_no_whole_conversations(self, store: HistoryStore) -> None:
        sessions = long_ones(store)
        with from_mongo() as sizes:
            assert len(store.summaries(sessions)) == len(sessions)
        assert 0 < sum(sizes) < 20_000

    @pytest.mark.parametrize("messages", [[1, "x"], [{"no": "id"}], None, {"id": "x"}, "text"])
    def test_a_document_that_is_no_history_does_not_stop_a_scan(self, store: HistoryStore, messages: object) -> None:
        session, later = a_session(), datetime.now(UTC) + timedelta(days=1)
        document = {"_id": make_key(session), "messages": messages, "bytes": 9, "expires_at": later}
        self.documents(store).insert_one(document)
        assert store.summaries([session]) == {session: CORRUPT}

    def test_a_turn_after_a_deletion_is_one_round_trip(self, store: HistoryStore) -> None:
        """Copies live for a TTL, and what is noted is later by the margin, as each process knows."""
        session, (deleted, *later) = a_session(), some_turns(3)
        expiry.latest(LIMITS.ttl)
        store.delete(session, deleted.answer.id)
        for turn in later:
            with to_mongo() as sent:
                store.append(session, turn)
            assert sent == ["update"]

    def test_a_deletion_between_read_and_append_keeps_its_tombstone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The append had read that there was none, and that the document may live shorter."""
        store, session, (deleted, *later) = self.make(), a_session(), some_turns(3)
        store.append(session, deleted)
        lower = self.with_ttl(store, SHORT.ttl)
        self.after_next_read(monkeypatch, lambda: lower.delete(session, deleted.answer.id))
        lower.append(session, later[0])
        self.let_pass(store, session, LIMITS.ttl - 100)
        assert lower.append(session, deleted, [later[1]]).tombstone == deleted.answer.id

    def test_a_deletion_is_two_round_trips(self, store: HistoryStore) -> None:
        """A conversation that is there, or never was, or is no history."""
        known, corrupt = a_session(), a_session()
        store.append(known, a_turn())
        self.spoil(store, corrupt)
        for session in (known, corrupt, a_session()):
            with to_mongo() as sent:
                store.delete(session, tombstone_for())
            assert sent == ["delete", "findAndModify"]

    @pytest.mark.parametrize("messages", [[1, "x"], [{"no": "id"}], [{"id": 5}], None, {"id": "x"}])
    def test_deleting_takes_what_has_no_ids(self, store: HistoryStore, messages: object) -> None:
        session, later = a_session(), datetime.now(UTC) + timedelta(days=1)
        document = {"_id": make_key(session), "messages": messages, "bytes": 9, "expires_at": later}
        self.documents(store).insert_one(document)
        assert store.delete(session, tombstone_for()) is True
        assert store.load(session) is None
        assert store.delete(session, tombstone_for()) is False

    def test_a_turn_appended_between_read_and_trim_is_kept(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The other append trims too, so that there are as many bytes as were read."""
        first, turn, other = some_turns(3)
        store, session = self.make(Limits(60, 16, len(first.lines()))), a_session()
        store.append(session, first)
        self.after_next_read(monkeypatch, lambda: store.append(session, other))
        store.append(session, turn)
        assert store.load(session) == History.of([other])

    def test_a_trim_after_another_append_and_trim_keeps_to_the_limit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        turns = some_turns(5)
        store, session = self.make(Limits(60, 16, 3 * len(turns[0].lines()))), a_session()
        store.append(session, None, turns[:3])
        self.after_next_read(monkeypatch, lambda: store.append(session, turns[4]))
        store.append(session, turns[3])
        assert store.load(session) == History.of(turns[2:])

    def after_next_read(self, monkeypatch: pytest.MonkeyPatch, call: Callable[[], object]) -> None:
        """Call it once, between the next read of a document and what follows."""
        find_one = Collection.find_one

        def read_and_call(collection: Any, *arguments: Any) -> Any:
            monkeypatch.setattr(Collection, "find_one", find_one)
            document = find_one(collection, *arguments)
            call()
            return document

        monkeypatch.setattr(Collection, "find_one", read_and_call)

    @pytest.mark.parametrize("expiry", WRONG_EXPIRIES)
    def test_without_a_valid_expiry_a_document_has_expired(self, store: HistoryStore, expiry: object) -> None:
        """MongoDB itself would keep it for ever."""
        session, (old, new) = a_session(), some_turns(2)
        store.append(session, old, flag=True)
        self.spoil_expiry(session, expiry)
        assert store.load(session) is None
        assert store.inspect(session) == Contents(None, None, None)
        assert store.ttl(session) is None
        assert store.summaries([session]) == {}
        assert session not in store.flags(10_000).sessions  # type: ignore[attr-defined]
        assert store.append(session, new) == Receipt(stored=True, created=True)
        assert store.load(session) == History.of([new])

    @pytest.mark.parametrize("expiry", WRONG_EXPIRIES)
    def test_deleting_replaces_what_has_no_valid_expiry(self, store: HistoryStore, expiry: object) -> None:
        session, turn = a_session(), a_turn()
        store.append(session, turn)
        self.spoil_expiry(session, expiry)
        assert store.delete(session, turn.answer.id) is False
        assert store.inspect(session) == Contents(None, turn.answer.id, None)

    @pytest.mark.parametrize("other", ["x", None, 5, {"key": "x"}])
    def test_what_is_in_the_place_of_the_keys_is_replaced(self, store: HistoryStore, other: object) -> None:
        turn = a_turn(at=now(), key="kept")
        for add in (
            lambda name: store.append(name, turn),
            lambda name: store.keep_keys(name, {"kept": asked_at(turn)}),
        ):
            store.append(session := a_session(), a_turn())
            self.documents(store).update_one({"_id": make_key(session)}, {"$set": {"keys": other}})
            add(session)
            assert store.inspect(session).keys == {"kept": asked_at(turn)}

    def test_what_is_in_the_place_of_the_keys_stays_where_there_is_no_history(self, store: HistoryStore) -> None:
        """Raising CorruptHistory changes nothing: the quarantined copy is to show what was there."""
        where = {"_id": make_key(session := a_session())}
        store.append(session, a_turn())
        self.documents(store).update_one(where, {"$set": {"keys": "x", "messages": "no history"}})
        with pytest.raises(CorruptHistory):
            store.append(session, a_turn(key="kept"))
        found = self.documents(store).find_one(where) or {}
        assert (found["keys"], found["messages"]) == ("x", "no history")

    @pytest.mark.parametrize("expiry", WRONG_EXPIRIES)
    def test_without_a_valid_expiry_it_is_not_listed(self, store: HistoryStore, expiry: object) -> None:
        store.append(session := a_session(), a_turn())
        assert [place.session for place in store.newest(None, contains=session).places] == [session]
        self.spoil_expiry(session, expiry)
        assert store.newest(None, contains=session).places == ()

    def spoil_expiry(self, session: str, expiry: object) -> None:
        change = {"$unset": {"expires_at": ""}} if expiry == "missing" else {"$set": {"expires_at": expiry}}
        assert self.documents(self.make()).update_one({"_id": make_key(session)}, change).modified_count == 1

    def test_mongo_deletes_what_has_expired(self) -> None:
        store = self.make()
        store.prepare()  # another test may have dropped the collection
        indexes = self.documents(store).index_information().values()
        assert {"key": [("expires_at", 1)], "expireAfterSeconds": 0}.items() <= next(
            index for index in indexes if index["key"] == [("expires_at", 1)]
        ).items()
