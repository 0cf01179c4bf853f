"""What processes agree on through every store, run once a store: see conversations/stores/control.py."""

from collections.abc import Iterator

import pytest

from conversations.datasets import Dataset
from conversations.errors import StoreUnavailable
from conversations.ids import tombstone_for
from conversations.stores.base import Contents
from conversations.stores.memory import MemoryStore
from conversations.stores.mongo.patient import documents
from conversations.stores.mongo.turns import DocumentStore
from conversations.stores.redis.bulk import RedisBulk
from conversations.stores.redis.client import histories
from conversations.stores.redis.keys import DATASET, FLAGS, HEARTBEATS, note_key
from conversations.stores.redis.turns import CacheStore
from conversations.turns import SESSION, History, Limits
from tests import round_trips
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
            eventually(lambda: store.inspect(session).flag, "the flag is not set")
            store.clear_flag(session, store.inspect(session).flag or "")

        with round_trips.between_commands(repair):
            if change == "append":
                store.append(session, a_turn(), flag=True)
            else:
                store.delete(session, tombstone_for(), flag=True)
        assert store.inspect(session).flag is not None

    @pytest.mark.parametrize("field", ["no session!", b"\xff\xfe", "a:b:c", ""])
    def test_a_flag_of_no_session_is_not_counted(self, store: CacheStore, field: str | bytes) -> None:
        client = histories().client.get_client(write=True)
        client.hset(FLAGS, field, "x")
        try:
            found = store.flags(10_000)
        finally:
            client.hdel(FLAGS, field)
        assert all(map(SESSION.fullmatch, found.sessions))
        assert found.complete and found.number == len(found.sessions)

    @pytest.mark.parametrize("together", [False, True])
    def test_a_flag_that_is_no_utf_8_is_cleared(self, store: CacheStore, together: bool) -> None:
        session = a_session()
        histories().client.get_client(write=True).hset(FLAGS, session, b"\xff")
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
