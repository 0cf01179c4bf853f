"""The promises that every bulk store keeps, run once a store: see conversations/stores/bulk.py."""

from collections.abc import Iterator

import pytest

from conversations.errors import CorruptHistory, StoreUnavailable
from conversations.stores.base import Contents, HistoryStore
from conversations.stores.bulk import BulkStore, Removal
from conversations.stores.memory import MemoryBulk
from conversations.stores.mongo.bulk import MongoBulk
from conversations.stores.redis.bulk import RedisBulk
from conversations.stores.sessions import make_key
from conversations.turns import History, Turn
from tests import environment
from tests.builders import a_session, a_turn, some_turns
from tests.contract import test_stores
from tests.servers import eventually


class Contract:
    """One suite; a subclass for each store defines how to make one, and names the suite of single conversations."""

    one: test_stores.Contract

    def make(self, store: HistoryStore) -> BulkStore:
        raise NotImplementedError

    def make_lasting(self, bulk: BulkStore, session: str) -> None:
        """Take away the TTL of a conversation."""
        raise NotImplementedError

    @pytest.fixture
    def outage(self, bulk: BulkStore) -> Iterator[None]:
        raise NotImplementedError

    @pytest.fixture
    def bulk(self) -> BulkStore:
        return self.make(self.one.make())

    def hold(self, bulk: BulkStore, *turns: Turn) -> str:
        session = a_session()
        bulk.store.append(session, None, turns or some_turns(2))
        return session

    def corrupt(self, bulk: BulkStore) -> str:
        session = a_session()
        self.one.spoil(bulk.store, session)
        return session

    def expired(self, bulk: BulkStore) -> str:
        session = self.hold(bulk)
        self.one.expire(bulk.store, session)
        return session

    # --- Reading ---------------------------------------------------------------------------------------

    def test_every_session_is_named(self, bulk: BulkStore) -> None:
        sessions = {self.hold(bulk) for _ in range(7)}
        found = [session for batch in bulk.sessions(2) for session in batch]
        assert sessions <= set(found)

    def test_what_has_expired_or_is_deleted_is_not_named(self, bulk: BulkStore) -> None:
        gone, deleted, turns = self.expired(bulk), a_session(), some_turns(1)
        bulk.store.append(deleted, turns[0])
        bulk.store.delete(deleted, turns[0].answer.id)
        there = self.hold(bulk)
        named = {session for batch in bulk.sessions(100) for session in batch}
        assert named & {deleted, there, gone} == {there}
        assert bulk.present([deleted, there, gone, a_session()]) == {there}

    def test_the_contents_are_what_inspecting_each_returns(self, bulk: BulkStore) -> None:
        plain, flagged, deleted, unknown = self.hold(bulk), self.hold(bulk), self.hold(bulk), a_session()
        bulk.store.append(flagged, None, flag=True)
        bulk.store.delete(deleted, some_turns(1)[0].answer.id)
        sessions = [plain, flagged, deleted, unknown]
        assert bulk.contents(sessions) == {session: bulk.store.inspect(session) for session in sessions}
        assert bulk.contents([unknown]) == {unknown: Contents(None, None, None)}

    def test_what_is_no_history_is_an_error_in_its_place(self, bulk: BulkStore) -> None:
        there, corrupt = self.hold(bulk), self.corrupt(bulk)
        found = bulk.contents([there, corrupt])
        assert isinstance(found[corrupt], CorruptHistory)
        assert isinstance(found[there], Contents)
        assert self.one.quarantined_copies(bulk.store, corrupt) == 0

    def test_last_ids_and_histories_are_of_those_that_hold_one(self, bulk: BulkStore) -> None:
        gone, turns = self.expired(bulk), some_turns(3)
        there = self.hold(bulk, *turns)
        sessions = [there, self.corrupt(bulk), gone, a_session()]
        assert bulk.last_ids(sessions) == {there: turns[-1].answer.id}
        assert bulk.histories(sessions) == {there: History.of(turns)}

    def test_all_last_ids_and_histories(self, bulk: BulkStore) -> None:
        left_out, turns = {self.expired(bulk), self.corrupt(bulk)}, some_turns(2)
        sessions = {self.hold(bulk, *turns) for _ in range(5)}
        last_ids = {name: last for batch in bulk.all_last_ids(2) for name, last in batch.items()}
        histories = {name: one for batch in bulk.all_histories(2) for name, one in batch.items()}
        assert {last_ids[session] for session in sessions} == {turns[-1].answer.id}
        assert {histories[session] for session in sessions} == {History.of(turns)}
        assert not left_out & {*last_ids, *histories}

    def test_the_time_that_is_left(self, bulk: BulkStore) -> None:
        there = self.hold(bulk)
        assert bulk.ttls([there, a_session()]) == {there: pytest.approx(bulk.limits.ttl, abs=2)}

    def test_every_tombstone_is_named(self, bulk: BulkStore) -> None:
        turn, there, deleted = a_turn(), self.hold(bulk), {a_session() for _ in range(5)}
        for session in deleted:
            bulk.store.delete(session, turn.answer.id)
        found = dict(bulk.tombstones())
        assert {found[session] for session in deleted} == {turn.answer.id}
        assert there not in found

    def test_the_estimate_is_about_right(self, bulk: BulkStore) -> None:
        for _ in range(3):
            self.hold(bulk)
        assert bulk.estimate() >= 3

    def test_an_estimate_that_takes_too_long_raises(self, bulk: BulkStore) -> None:
        self.hold(bulk)
        with pytest.raises(StoreUnavailable) as caught:
            bulk.estimate(1e-9)
        assert caught.value.store == bulk.alias

    def test_nothing_asked_is_nothing_done(self, bulk: BulkStore) -> None:
        assert (bulk.contents([]), bulk.last_ids([]), bulk.histories([]), bulk.ttls([])) == ({}, {}, {}, {})
        assert bulk.present([]) == set()
        assert bulk.remove({}, tombstones=True) == Removal()
        bulk.trim({}, tombstones=True)

    # --- Removing --------------------------------------------------------------------------------------

    @pytest.mark.parametrize("tombstones", [True, False])
    def test_removing_leaves_a_tombstone_only_where_it_is_wanted(self, bulk: BulkStore, tombstones: bool) -> None:
        turns = some_turns(2)
        session, last = self.hold(bulk, *turns), turns[-1].answer.id
        assert bulk.remove({session: last, a_session(): last}, tombstones=tombstones) == Removal(frozenset({session}))
        assert bulk.store.inspect(session) == Contents(None, last if tombstones else None, None)
        assert bulk.store.append(session, turns[0]).stored is not tombstones

    def test_what_has_gone_on_is_kept_whole(self, bulk: BulkStore) -> None:
        turns = some_turns(3)
        session = self.hold(bulk, *turns)
        assert bulk.remove({session: turns[1].answer.id}, tombstones=True) == Removal(kept=frozenset({session}))
        assert bulk.store.inspect(session) == Contents(History.of(turns), None, None)

    def test_removing_leaves_a_later_tombstone(self, bulk: BulkStore) -> None:
        early, late = a_turn(), a_turn()
        session = a_session()
        bulk.store.delete(session, late.answer.id)
        bulk.remove({session: early.answer.id}, tombstones=True)
        assert bulk.store.inspect(session).tombstone == late.answer.id

    def test_removing_what_is_no_history_changes_nothing(self, bulk: BulkStore) -> None:
        session = self.corrupt(bulk)
        assert bulk.remove({session: a_turn().answer.id}, tombstones=False).removed == frozenset()
        with pytest.raises(CorruptHistory):
            bulk.store.load(session)

    # --- Trimming --------------------------------------------------------------------------------------

    @pytest.mark.parametrize("tombstones", [True, False])
    def test_trimming_keeps_what_is_later_and_the_ttl(self, bulk: BulkStore, tombstones: bool) -> None:
        turns = some_turns(5)
        session, end = self.hold(bulk, *turns), turns[2].answer.id
        ttl = bulk.store.ttl(session)
        bulk.trim({session: end, a_session(): end}, tombstones=tombstones)
        assert bulk.store.inspect(session) == Contents(History.of(turns[3:]), end if tombstones else None, None)
        assert bulk.store.ttl(session) == pytest.approx(ttl, abs=2)
        assert bulk.store.append(session, turns[0]).stored is not tombstones

    def test_a_trimmed_conversation_takes_turns_as_before(self, bulk: BulkStore) -> None:
        turns, later = some_turns(4), a_turn()
        session = self.hold(bulk, *turns)
        bulk.trim({session: turns[1].answer.id}, tombstones=True)
        assert bulk.store.append(session, later).stored
        assert bulk.store.load(session) == History.of((*turns[2:], later))

    def test_trimming_up_to_the_end_leaves_no_conversation(self, bulk: BulkStore) -> None:
        turns = some_turns(2)
        session = self.hold(bulk, *turns)
        bulk.trim({session: turns[-1].answer.id}, tombstones=True)
        assert bulk.store.load(session) is None
        assert bulk.present([session]) == set()

    def test_trimming_where_nothing_is_earlier_changes_nothing(self, bulk: BulkStore) -> None:
        end, turns = a_turn().answer.id, some_turns(2)
        session, corrupt = self.hold(bulk, *turns), self.corrupt(bulk)
        bulk.trim({session: end, corrupt: end}, tombstones=True)
        assert bulk.store.inspect(session) == Contents(History.of(turns), None, None)
        with pytest.raises(CorruptHistory):
            bulk.store.load(corrupt)

    # --- Expiring --------------------------------------------------------------------------------------

    def test_what_has_outlived_its_ttl_or_has_none_is_counted_and_mended(self, bulk: BulkStore) -> None:
        bulk.expire(apply=True)
        session = self.hold(bulk)
        self.outlive(bulk, session)
        assert [bulk.expire(apply=False), bulk.expire(apply=True), bulk.expire(apply=True)] == [1, 1, 0]

    def outlive(self, bulk: BulkStore, session: str) -> None:
        """Have what the store itself would never remove, or has not removed yet."""
        self.one.expire(bulk.store, session)

    # --- Outages ---------------------------------------------------------------------------------------

    def test_an_outage_raises_and_is_never_empty(self, bulk: BulkStore, outage: None) -> None:
        session, last = a_session(), a_turn().answer.id
        for call in (
            lambda: list(bulk.sessions(10)),
            lambda: bulk.present([session]),
            lambda: bulk.contents([session]),
            lambda: bulk.last_ids([session]),
            lambda: bulk.histories([session]),
            lambda: list(bulk.all_last_ids(10)),
            lambda: list(bulk.all_histories(10)),
            lambda: bulk.ttls([session]),
            lambda: list(bulk.tombstones()),
            bulk.estimate,
            lambda: bulk.remove({session: last}, tombstones=True),
            lambda: bulk.trim({session: last}, tombstones=True),
            lambda: bulk.expire(apply=True),
        ):
            with pytest.raises(StoreUnavailable) as caught:
                call()
            assert caught.value.store == bulk.alias

    # --- Memory ----------------------------------------------------------------------------------------

    def test_memory_is_reported_only_where_it_is_supported(self, bulk: BulkStore) -> None:
        long, short = self.hold(bulk, a_turn("q", "a" * 5000)), self.hold(bulk, a_turn())
        if not bulk.supports_memory:
            with pytest.raises(NotImplementedError):
                bulk.memory()
            return
        sizes = bulk.sizes([long, short, unknown := a_session()])
        assert bulk.memory().used > sizes[long] > 5000 > sizes[short] > sizes[unknown] == 0


class TestMemoryBulk(Contract):
    one = test_stores.TestMemoryStore()

    def make(self, store: HistoryStore) -> BulkStore:
        return MemoryBulk(store)

    @pytest.fixture
    def outage(self, bulk: BulkStore) -> Iterator[None]:
        bulk.store.down = True  # type: ignore[attr-defined]
        yield


class TestRedisBulk(Contract):
    one = test_stores.TestCacheStore()

    def make(self, store: HistoryStore) -> BulkStore:
        return RedisBulk(store)

    def outlive(self, bulk: BulkStore, session: str) -> None:
        with environment.REDIS.client() as client:
            client.persist(make_key(session))

    @pytest.fixture
    def outage(self, bulk: BulkStore) -> Iterator[None]:
        environment.REDIS.kill()
        yield
        environment.REDIS.start()

    def test_a_key_of_another_type_is_corrupt_and_stays(self, bulk: BulkStore) -> None:
        session, last = a_session(), a_turn().answer.id
        with environment.REDIS.client() as client:
            client.rpush(make_key(session), "a")
        assert isinstance(bulk.contents([session])[session], CorruptHistory)
        assert (bulk.last_ids([session]), bulk.histories([session])) == ({}, {})
        assert bulk.remove({session: last}, tombstones=True) == Removal(kept=frozenset({session}))
        bulk.trim({session: last}, tombstones=True)
        assert bulk.present([session]) == {session}

    @pytest.mark.parametrize("wrong", ["zzz", ["a list"]])
    def test_a_tombstone_that_is_no_id_is_replaced(self, bulk: BulkStore, wrong: object) -> None:
        turns = some_turns(2)
        last = turns[1].answer.id
        removed, trimmed = self.hold(bulk, *turns), self.hold(bulk, *turns)
        for session in (removed, trimmed):
            self.one.write_tombstone(bulk.store, session, wrong)
        assert bulk.remove({removed: last}, tombstones=True).removed == {removed}
        bulk.trim({trimmed: last}, tombstones=True)
        assert [bulk.store.inspect(one).tombstone for one in (removed, trimmed)] == [last, last]

    def test_a_key_that_is_no_session_does_not_stop_a_scan(self, bulk: BulkStore) -> None:
        session = self.hold(bulk)
        with environment.REDIS.client() as client:
            client.set("conv:not a name", "x")
            assert session in {name for batch in bulk.all_last_ids(100) for name in batch}
            bulk.expire(apply=True)
            assert client.ttl("conv:not a name") == -1
            client.delete("conv:not a name")


class TestMongoBulk(Contract):
    one = test_stores.TestDocumentStore()

    def make(self, store: HistoryStore) -> BulkStore:
        return MongoBulk(store)

    @pytest.fixture
    def outage(self, bulk: BulkStore) -> Iterator[None]:
        environment.MONGO.kill()
        assert not test_stores.answers(bulk.store)  # now the driver knows
        yield
        environment.MONGO.start()
        eventually(lambda: test_stores.answers(bulk.store), "the driver does not see that MongoDB is back")

    def test_the_bytes_of_a_trimmed_document_are_those_it_has(self, bulk: BulkStore) -> None:
        turns = some_turns(4)
        session = self.hold(bulk, *turns)
        bulk.trim({session: turns[1].answer.id}, tombstones=True)
        (document,) = self.one.documents(bulk.store).find({"_id": make_key(session)})  # type: ignore[attr-defined]
        assert document["bytes"] == sum(len(turn.lines()) for turn in turns[2:])
