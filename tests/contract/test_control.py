"""What processes agree on through every store, run once a store: see conversations/stores/control.py."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from conversations.datasets import Dataset
from conversations.errors import CorruptHistory, StoreUnavailable
from conversations.ids import tombstone_for
from conversations.stores.base import Contents
from conversations.stores.control import PermitRequest, Permits, Rate
from conversations.stores.memory import MemoryStore
from conversations.stores.mongo.patient import documents
from conversations.stores.mongo.turns import DocumentStore
from conversations.stores.redis.bulk import RedisBulk
from conversations.stores.redis.client import histories
from conversations.stores.redis.keys import DATASET, HEARTBEATS, note_key, rate_key
from conversations.stores.redis.turns import CacheStore
from conversations.stores.sessions import make_key
from conversations.turns import SESSION, History, Limits
from tests import environment, round_trips
from tests.builders import a_session, a_turn
from tests.contract import test_stores
from tests.contract.test_stores import LIMITS
from tests.servers import eventually

Store = MemoryStore | CacheStore | DocumentStore


class ControlContract:
    """One suite; a subclass for each store defines how to make one, let time pass, and take it down."""

    def make(self, limits: Limits = LIMITS) -> Store:
        raise NotImplementedError

    def pass_ttl(self, store: Store) -> None:
        raise NotImplementedError

    @pytest.fixture
    def outage(self, store: Store) -> Iterator[None]:
        raise NotImplementedError

    @pytest.fixture
    def store(self) -> Store:
        return self.make()

    @pytest.fixture
    def no_dataset(self, store: Store) -> Iterator[None]:
        self.forget_dataset(store)
        yield
        self.forget_dataset(store)

    def forget_dataset(self, store: Store) -> None:
        raise NotImplementedError

    def test_a_flag_is_set_with_the_turn_and_cleared_only_if_it_is_the_same(self, store: Store) -> None:
        session = a_session()
        store.append(session, a_turn(), flag=True)
        seen = store.inspect(session).flag
        assert seen
        assert session in store.flags(10_000).sessions
        store.append(session, a_turn(), flag=True)
        store.clear_flag(session, seen)
        again = store.inspect(session).flag
        assert again not in (None, seen)
        store.clear_flag(session, again)
        assert store.inspect(session).flag is None
        assert session not in store.flags(10_000).sessions

    def test_a_flag_alone_or_with_a_deletion(self, store: Store) -> None:
        flagged, deleted = a_session(), a_session()
        store.append(flagged, a_turn())
        store.append(flagged, None, flag=True)
        store.delete(deleted, tombstone_for(), flag=True)
        assert {flagged, deleted} <= store.flags(10_000).sessions

    def test_the_number_of_flags_returned_is_limited(self, store: Store) -> None:
        sessions = [a_session() for _ in range(4)]
        for session in sessions:
            store.append(session, a_turn(), flag=True)
        few = store.flags(1)
        assert few.number >= 4
        assert few.complete is (set(sessions) <= few.sessions)
        assert (every := store.flags(10_000)).number == len(every.sessions)
        for session in sessions:
            store.clear_flag(session, store.inspect(session).flag or "")

    def test_a_note_is_what_was_last_written(self, store: Store) -> None:
        name = a_session()
        assert store.note(name) is None
        store.write_note(name, "one")
        store.write_note(name, "two")
        assert store.note(name) == "two"

    def test_a_lease_has_one_holder_until_it_ends(self) -> None:
        store, name = self.make(Limits(1, 16, 262_144)), a_session()
        assert store.holder(name) is None
        assert store.lease(name, "a", 1) is True
        assert store.holder(name) == "a"
        assert store.lease(name, "b", 1) is False
        assert store.lease(name, "a", 1) is True
        self.pass_ttl(store)
        assert store.lease(name, "b", 1) is True

    def test_a_lease_is_released_at_once_by_its_holder_alone(self, store: Store) -> None:
        name = a_session()
        assert store.lease(name, "a", 60)
        store.release(name, "b")
        assert store.holder(name) == "a"
        store.release(name, "a")
        assert store.holder(name) is None
        assert store.lease(name, "b", 60)

    def test_a_dataset_is_counted_up_only_under_its_own_id(self, store: Store, no_dataset: None) -> None:
        assert store.report().dataset is None
        one, other = Dataset("one", 5, "1"), Dataset("other", 9, "2")
        assert store.identify(one, None) is True
        assert store.identify(other, None) is False
        assert [store.beat("p", one), store.beat("p", one), store.beat("p", other)] == [6, 7, None]
        assert store.report().dataset == Dataset("one", 7, "1")
        assert store.identify(other, one) is True
        assert store.report().dataset == other

    def test_a_heartbeat_has_an_age_until_its_process_removes_it(self, store: Store, no_dataset: None) -> None:
        store.identify(Dataset("one", 1), None)
        store.beat("here", Dataset("one", 1))
        store.beat("gone", Dataset("one", 1))
        store.remove_heartbeat("gone")
        heartbeats = store.report().heartbeats
        assert 0 <= heartbeats["here"] < 30
        assert "gone" not in heartbeats
        store.remove_heartbeat("here")

    def test_a_report_has_the_notes_that_there_are(self, store: Store) -> None:
        name = a_session()
        store.write_note(name, "one")
        report = store.report([name, a_session()])
        assert report.notes == {name: "one"}
        assert report.instance == store.report().instance != ""

    def test_a_report_has_the_clock_of_the_store(self, store: Store) -> None:
        before = store.report().time
        assert before <= store.report().time

    def test_a_store_can_be_prepared_again(self, store: Store) -> None:
        store.append(session := a_session(), turn := a_turn())
        store.prepare()
        store.prepare()
        assert store.load(session) == History.of([turn])

    def test_an_outage_raises_and_is_never_empty(self, store: Store, outage: None) -> None:
        for call in (
            lambda: store.flags(1),
            lambda: store.clear_flag(a_session(), ""),
            lambda: store.note("switch"),
            lambda: store.lease("test", "me", 1),
            lambda: store.release("test", "me"),
            lambda: store.holder("test"),
            store.report,
            lambda: store.beat("me", Dataset("", 0)),
            lambda: store.identify(Dataset("", 0), None),
            lambda: store.remove_heartbeat("me"),
            lambda: store.write_note("test", ""),
        ):
            with pytest.raises(StoreUnavailable) as caught:
                call()
            assert caught.value.store == store.alias


class TestMemoryControl(ControlContract):
    make = test_stores.TestMemoryStore.make
    pass_ttl = test_stores.TestMemoryStore.pass_ttl
    outage = test_stores.TestMemoryStore.outage

    def forget_dataset(self, store: Store) -> None:
        pass


class TestRedisControl(ControlContract):
    make = test_stores.TestCacheStore.make
    pass_ttl = test_stores.TestCacheStore.pass_ttl
    outage = test_stores.TestCacheStore.outage

    def forget_dataset(self, store: Store) -> None:
        histories().client.get_client(write=True).delete(DATASET)

    @pytest.mark.parametrize("change", ["append", "delete"])
    def test_a_flag_cannot_be_cleared_before_its_change_is_made(self, store: CacheStore, change: str) -> None:
        """Whatever the network splits: a repair in between would find nothing to do, and clear the flag."""
        session = a_session()

        def repair() -> None:
            if flag := store.inspect(session).flag:
                store.clear_flag(session, flag)

        with round_trips.between_commands(repair):
            if change == "append":
                store.append(session, a_turn(), flag=True)
            else:
                store.delete(session, tombstone_for(), flag=True)
        assert store.inspect(session).flag is not None

    @pytest.mark.parametrize("field", ["no session!", b"\xff\xfe", "a:b:c", ""])
    def test_a_flag_of_no_session_is_not_counted(self, store: CacheStore, field: str | bytes) -> None:
        client, key = histories().client.get_client(write=True), histories().client.flags.key_to_set("conv:x")
        client.hset(key, field, "x")
        try:
            found = store.flags(10_000)
        finally:
            client.hdel(key, field)
        assert all(map(SESSION.fullmatch, found.sessions))
        assert found.complete and found.number == len(found.sessions)

    @pytest.mark.parametrize("together", [False, True])
    def test_a_flag_that_is_no_utf_8_is_cleared(self, store: CacheStore, together: bool) -> None:
        session = a_session()
        client = histories().client
        client.get_client(write=True).hset(client.flags.key_to_set(make_key(session)), session, b"\xff")
        contents = RedisBulk(store).contents([session])[session] if together else store.inspect(session)
        assert isinstance(contents, Contents) and contents.flag
        if together:
            RedisBulk(store).clear_flags({session: contents.flag})
        else:
            store.clear_flag(session, contents.flag)
        assert session not in store.flags(10_000).sessions

    @pytest.mark.parametrize(("name", "at"), [("x", "soon"), (b"\xff", "5"), ("x", ""), ("x", b"\xff")])
    def test_what_is_no_heartbeat_is_ignored_and_removed(
        self, store: CacheStore, no_dataset: None, name: str | bytes, at: str | bytes
    ) -> None:
        client = histories().client.get_client(write=True)
        client.hset(HEARTBEATS, name, at)
        store.identify(Dataset("one", 1), None)
        assert "x" not in store.report().heartbeats
        assert store.beat("here", Dataset("one", 1)) == 2
        assert not client.hgetall(HEARTBEATS).keys() & {b"x", b"\xff"}
        assert "here" in store.report().heartbeats
        store.remove_heartbeat("here")

    def test_a_note_that_is_no_utf_8_is_a_text(self, store: CacheStore) -> None:
        name = a_session()
        histories().client.get_client(write=True).set(note_key(name), b"\xff")
        assert store.report([name]).notes == {name: "\N{REPLACEMENT CHARACTER}"}
        assert store.note(name) == "\N{REPLACEMENT CHARACTER}"

    def test_no_more_permits_are_given_than_the_limit(self, store: CacheStore) -> None:
        """Whoever asks, and however many at once."""
        request = PermitRequest(a_session(), Rate(100, 60))

        def take_all() -> int:
            taken = 0
            while given := store.permits([request])[0].number:
                taken += given
            return taken

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(lambda _: take_all(), range(8))) == 100
        assert 60 < store.permits([request])[0].wait <= 64

    def test_of_few_permits_that_are_left_each_gets_few(self, store: CacheStore) -> None:
        request = PermitRequest(a_session(), Rate(16, 60))
        assert [store.permits([request])[0].number for _ in range(4)] == [2, 2, 2, 2]
        assert [store.permits([request])[0].number for _ in range(8)] == [1] * 8

    def test_permits_that_come_back_are_given_again(self, store: CacheStore) -> None:
        request = PermitRequest(a_session(), Rate(8, 60))
        given = store.permits([request] * 8)
        assert [one.number for one in given] == [1] * 8
        assert given[-1].wait > 0
        back = replace(request, unused=3, period=given[0].period, more=False)
        assert store.permits([back]) == [Permits(0, given[0].period, 0.0)]
        assert [one.number for one in store.permits([request] * 4)] == [1, 1, 1, 0]

    def test_what_comes_back_of_another_period_gives_nothing(self, store: CacheStore) -> None:
        request = PermitRequest(a_session(), Rate(1, 60))
        assert store.permits([request])[0].number == 1
        assert store.permits([replace(request, unused=5, period=7)])[0].number == 0

    def test_asks_are_counted_over_the_limit(self, store: CacheStore) -> None:
        request = PermitRequest(a_session(), Rate(2, 60), asked=5)
        assert store.permits([request])[0].number == 0

    def test_what_was_asked_is_forgotten_after_the_time_of_the_rate(self, store: CacheStore) -> None:
        request = PermitRequest(a_session(), Rate(1, 1))
        begun = time.monotonic()
        assert store.permits([request])[0].number == 1
        eventually(lambda: store.permits([request])[0].number, "no permit is given")
        assert time.monotonic() - begun >= 1.0

    def test_clients_and_rates_are_counted_apart(self, store: CacheStore) -> None:
        name = a_session()
        requests = [PermitRequest(one, rate) for one in (name, name + "é\udcff") for rate in (Rate(1, 1), Rate(1, 60))]
        assert [one.number for one in store.permits(requests)] == [1, 1, 1, 1]

    def test_what_is_counted_is_no_conversation_and_expires(self, store: CacheStore) -> None:
        request = PermitRequest(a_session(), Rate(1, 60))
        store.permits([request])
        key = rate_key(request.name, request.rate)
        assert not key.startswith("conv:")
        assert 60 < histories().client.get_client(write=True).ttl(key) <= 66

    def test_the_script_is_sent_where_the_server_has_lost_it(self, store: CacheStore) -> None:
        request = PermitRequest(a_session(), Rate(2, 60))
        with environment.REDIS.client() as client:
            client.script_flush()
        assert [one.number for one in store.permits([request] * 3)] == [1, 1, 0]

    @pytest.mark.parametrize("fields", [{"x": "y"}, {"1": "99"}, {"9" * 15: "99"}, {"1": "x"}])
    def test_what_another_program_has_counted_there_is_removed(self, store: CacheStore, fields: dict[str, str]) -> None:
        request = PermitRequest(a_session(), Rate(1, 60))
        client = histories().client.get_client(write=True)
        client.hset(rate_key(request.name, request.rate), mapping=fields)
        assert store.permits([request])[0].number == 1
        assert len(client.hgetall(rate_key(request.name, request.rate))) == 1

    def test_what_is_no_count_is_corrupt(self, store: CacheStore) -> None:
        request = PermitRequest(a_session(), Rate(1, 60))
        histories().client.get_client(write=True).set(rate_key(request.name, request.rate), "x", ex=60)
        with pytest.raises(CorruptHistory):
            store.permits([request])

    def test_permits_of_many_clients_are_one_round_trip(self, store: CacheStore) -> None:
        store.permits([PermitRequest(a_session(), Rate(1, 60))])
        with round_trips.to_redis() as sent:
            assert len(store.permits([PermitRequest(a_session(), Rate(1, 60)) for _ in range(50)])) == 50
        assert sent == ["EVALSHA"] * len(environment.REDIS.masters)

    def test_no_permits_in_an_outage(self, store: CacheStore, outage: None) -> None:
        with pytest.raises(StoreUnavailable):
            store.permits([PermitRequest(a_session(), Rate(1, 60))])


class TestMongoControl(ControlContract):
    make = test_stores.TestDocumentStore.make
    pass_ttl = test_stores.TestDocumentStore.pass_ttl
    outage = test_stores.TestDocumentStore.outage

    def forget_dataset(self, store: Store) -> None:
        documents("onesource_notes").delete_one({"_id": "dataset"})

    def test_a_flag_of_no_session_is_not_counted(self, store: DocumentStore) -> None:
        documents().insert_one({"_id": "conv:no session!", "mark": "0123"})
        try:
            found = store.flags(10_000)
        finally:
            documents().delete_one({"_id": "conv:no session!"})
        assert all(map(SESSION.fullmatch, found.sessions))
        assert found.number == len(found.sessions)

    def test_it_is_not_prepared_in_an_outage(self, store: Store, outage: None) -> None:
        with pytest.raises(StoreUnavailable):
            store.prepare()
