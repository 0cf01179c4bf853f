"""The promises that every bulk store keeps, run once a store: see conversations/stores/bulk_reader.py and bulk.py."""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from bson import ObjectId
from msgspec.structs import replace

from conversations import merge
from conversations.clock import now
from conversations.errors import CorruptHistory, StoreUnavailable
from conversations.stores.base import Contents, HistoryStore
from conversations.stores.bulk import BulkStore, Put, Removal, Share
from conversations.stores.bulk_reader import Entry
from conversations.stores.memory_bulk import MemoryBulk
from conversations.stores.mongo import flags, put
from conversations.stores.mongo.bulk import MongoBulk
from conversations.stores.redis.bulk import RedisBulk
from conversations.stores.redis.keys import tombstone_key
from conversations.stores.sessions import make_key
from conversations.turns import SESSION, History, Turn
from conversations.used_keys import asked_at
from tests import environment
from tests.builders import a_session, a_turn, some_turns
from tests.contract import test_stores
from tests.servers import eventually


def share(*turns: Turn, session: str = "", ttl: int = 5000, tombstone: str = "") -> Share:
    return Share(session or a_session(), turns, ttl, tombstone)


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

    def of_user(self, bulk: BulkStore, user: str, tenant: str = "") -> set[str]:
        return {session for page in bulk.of_user(user, tenant, 10) for session in page.sessions}

    def test_all_of_a_user_are_found_without_a_list(self, bulk: BulkStore) -> None:
        tenant, user = a_session(), f"{a_session()}@example.org"
        theirs = {f"{tenant}:{a_session()}" for _ in range(30)}
        for number, session in enumerate(theirs):
            bulk.store.append(session, None, (a_turn(user=user), *some_turns(number % 3)))
            bulk.store.append(a_session(), a_turn("," + f'"user":"{user}"', user=f"{user}x"))
        bulk.store.append(bare := a_session(), a_turn(user=user))
        bulk.drop_list_of(user, tenant)
        assert self.of_user(bulk, user, tenant) == theirs
        assert self.of_user(bulk, user) == {bare}
        assert self.of_user(bulk, f"{user}y", tenant) == set()

    def test_what_is_put_is_in_the_list_of_its_user(self, bulk: BulkStore) -> None:
        tenant, user = a_session(), a_session()
        session = f"{tenant}:{a_session()}"
        bulk.put([share(a_turn(user=user), session=session)])
        assert [place.session for place in bulk.store.newest(tenant, user=user).places] == [session]
        bulk.drop_list_of(user, tenant)
        for _ in bulk.list_all():
            pass
        assert [place.session for place in bulk.store.newest(tenant, user=user).places] == [session]

    def test_a_user_is_found_in_no_store_that_is_out(self, bulk: BulkStore, outage: None) -> None:
        with pytest.raises(StoreUnavailable):
            self.of_user(bulk, "ada")

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

    def test_the_size_of_every_session_is_that_of_its_messages(self, bulk: BulkStore) -> None:
        turns = some_turns(2, 100)
        gone, session = self.expired(bulk), self.hold(bulk, *turns)
        found = {name: size for page in bulk.all_sizes(2) for name, size in page.items()}
        assert found[session] == len(History.of(turns).lines())
        assert not found.get(gone)

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
        bulk.store.append(flagged, a_turn(at=now(), key="k1"), flag=True)
        bulk.store.delete(deleted, some_turns(1)[0].answer.id)
        sessions = [plain, flagged, deleted, unknown]
        assert bulk.contents(sessions) == {session: bulk.store.inspect(session) for session in sessions}
        assert bulk.contents([unknown]) == {unknown: Contents(None, None, None)}

    def test_keys_are_kept_in_each_conversation(self, bulk: BulkStore) -> None:
        at = asked_at(a_turn(at=now()))
        keys = {self.hold(bulk): {"k1": at, "k2": at + 1}, self.hold(bulk): {"k1": at + 2}}
        bulk.keep_keys(keys)
        bulk.keep_keys({})
        assert {session: one.keys for session, one in bulk.contents(list(keys)).items()} == keys

    def test_what_is_no_history_is_an_error_in_its_place(self, bulk: BulkStore) -> None:
        there, corrupt = self.hold(bulk), self.corrupt(bulk)
        found = bulk.contents([there, corrupt])
        assert isinstance(found[corrupt], CorruptHistory)
        assert isinstance(found[there], Contents)
        assert self.one.quarantined_copies(bulk.store, corrupt) == 0

    def test_the_digests_are_those_of_the_contents(self, bulk: BulkStore) -> None:
        """Of what holds turns, a tombstone, or both; none of what is gone, or no history."""
        gone, plain, deleted, both = self.expired(bulk), self.hold(bulk), a_session(), a_session()
        turns = some_turns(3)
        long = self.hold(bulk, a_turn('"id":"', '","at":"\n}' * 100), *some_turns(3, 1000))
        bulk.store.append(both, None, turns)
        bulk.store.delete(both, turns[0].answer.id)
        bulk.store.delete(deleted, turns[0].answer.id)
        there = [plain, deleted, both, long]
        found = bulk.digests([*there, gone, self.corrupt(bulk), a_session()])
        held = {session: bulk.store.inspect(session) for session in there}
        assert found == {session: merge.digest(one.history, one.tombstone) for session, one in held.items()}

    def test_last_ids_and_histories_are_of_those_that_hold_one(self, bulk: BulkStore) -> None:
        gone, deleted, turns = self.expired(bulk), a_session(), some_turns(3)
        there = self.hold(bulk, *turns)
        bulk.store.append(deleted, turns[0])
        bulk.store.delete(deleted, turns[0].answer.id)
        sessions = [there, self.corrupt(bulk), gone, deleted, a_session()]
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
        found = {session: one for page in bulk.tombstones(2) for session, one in page.items()}
        assert {found[session] for session in deleted} == {turn.answer.id}
        assert there not in found

    def test_the_entries_are_all_that_the_store_has(self, bulk: BulkStore) -> None:
        turns, (deleted, both) = some_turns(3), (a_session(), a_session())
        plain, corrupt, expired = self.hold(bulk, *turns), self.corrupt(bulk), self.expired(bulk)
        self.shorten(bulk, plain, 5000)
        bulk.store.append(both, None, turns)
        for session in (deleted, both):
            bulk.store.delete(session, turns[0].answer.id)
        found = [entry for page in bulk.entries(3) for entry in page]
        entries = {entry.session: entry for entry in found}
        assert len(entries) == len(found), "each once"
        assert expired not in entries
        whole, rest = History.of(turns), History.of(turns[1:])
        assert (entries[plain].history, entries[plain].lines) == (whole, whole.lines())
        assert entries[plain].expires_at == pytest.approx(now() + timedelta(seconds=5000), abs=timedelta(seconds=5))
        assert (entries[both].history, entries[both].lines) == (rest, rest.lines())
        assert entries[both].tombstone == turns[0].answer.id
        assert entries[deleted] == Entry(deleted, History(), b"", None, turns[0].answer.id)
        assert entries[corrupt] == Entry(corrupt, History(), b"", None, None, corrupt=True)

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
        assert bulk.put([]) == bulk.put([share()]) == Put()
        assert bulk.remove({}, tombstones=True) == Removal()
        bulk.trim({}, tombstones=True)

    # --- Putting ---------------------------------------------------------------------------------------

    def test_new_conversations_are_created_with_their_ttl(self, bulk: BulkStore) -> None:
        shares = [share(*some_turns(3), ttl=5000) for _ in range(5)]
        assert bulk.put(shares) == Put(created=5)
        for one in shares:
            assert bulk.store.inspect(one.session) == Contents(History.of(one.turns), None, None)
            assert bulk.store.ttl(one.session) == pytest.approx(5000, abs=5)

    def test_only_missing_turns_are_added(self, bulk: BulkStore) -> None:
        turns = some_turns(5)
        there, whole = self.hold(bulk, turns[1], turns[4]), self.hold(bulk, *turns)
        shares = [share(*turns[:4], session=there), share(*turns[:2], session=whole)]
        assert bulk.put(shares) == Put(merged=2)
        assert bulk.store.load(there) == bulk.store.load(whole) == History.of(turns)

    def test_of_two_turns_with_one_id_the_one_that_is_there_stays(self, bulk: BulkStore) -> None:
        ours, later = some_turns(2)
        session = self.hold(bulk, ours)
        theirs = Turn(replace(ours.question, content="Other words?"), ours.answer)
        bulk.put([share(theirs, later, session=session)])
        assert bulk.store.load(session) == History.of([ours, later])

    def test_superseded_turns_are_kept(self, bulk: BulkStore) -> None:
        """As the stores keep them: each was acknowledged."""
        first, second, third = (a_turn(key="k-1") for _ in range(3))
        there, new = self.hold(bulk, second), a_session()
        assert bulk.put([share(first, third, session=there), share(first, second, session=new)]).corrupt == 0
        assert bulk.store.load(there) == History.of([first, second, third])
        assert bulk.store.load(new) == History.of([first, second])

    def test_the_newest_turns_within_the_limits_are_kept(self, bulk: BulkStore) -> None:
        turns, long = some_turns(20), some_turns(4, size=100_000)
        there, new, large = self.hold(bulk, *turns[:10]), a_session(), a_session()
        bulk.put([share(*turns[5:], session=there), share(*turns, session=new), share(*long, session=large)])
        assert bulk.store.load(there) == bulk.store.load(new) == History.of(turns[4:])
        assert bulk.store.load(large) == History.of(long[2:])

    def test_a_turn_over_the_limits_takes_the_older_ones_with_it(self, bulk: BulkStore) -> None:
        """With the turns that it is given, what is there would be within the limits; but one in between is not."""
        old, new = some_turns(2)
        middle = a_turn("question", "a" * 262_000, at=datetime.fromisoformat(old.answer.at) + timedelta(seconds=1))
        session = self.hold(bulk, old)
        bulk.put([share(middle, new, session=session)])
        assert bulk.store.load(session) == History.of([new])

    @pytest.mark.parametrize("replace", [True, False])
    def test_turns_that_a_tombstone_covers_need_no_room(self, bulk: BulkStore, replace: bool) -> None:
        """What is deleted is dropped before the limits are applied, as merge.stored does."""
        turns = some_turns(20)
        for held in (turns[:3], turns[18:]):
            session = self.hold(bulk, *held)
            bulk.put([share(*turns, session=session, tombstone=turns[9].answer.id)], replace=replace)
            assert bulk.store.inspect(session) == Contents(History.of(turns[10:]), turns[9].answer.id, None)

    @pytest.mark.parametrize("replace", [True, False])
    def test_a_tombstone_that_is_there_is_honoured(self, bulk: BulkStore, replace: bool) -> None:
        turns, (partly, wholly) = some_turns(4), (a_session(), a_session())
        bulk.store.delete(partly, turns[1].answer.id)
        bulk.store.delete(wholly, turns[3].answer.id)
        done = bulk.put([share(*turns, session=partly), share(*turns, session=wholly)], replace=replace)
        assert done == (Put(replaced=1) if replace else Put(created=1))
        assert bulk.store.inspect(partly) == Contents(History.of(turns[2:]), turns[1].answer.id, None)
        assert bulk.store.inspect(wholly) == Contents(None, turns[3].answer.id, None)

    @pytest.mark.parametrize("replace", [True, False])
    def test_a_tombstone_that_comes_with_the_share_deletes(self, bulk: BulkStore, replace: bool) -> None:
        turns, new = some_turns(4), a_session()
        there, later = self.hold(bulk, *turns[:2]), self.hold(bulk, *turns)
        upto = turns[1].answer.id
        shares = [share(session=session, tombstone=upto) for session in (there, later, new)]
        assert bulk.put(shares, replace=replace) == Put()
        assert bulk.store.inspect(there) == bulk.store.inspect(new) == Contents(None, upto, None)
        assert bulk.store.inspect(later) == Contents(History.of(turns[2:]), upto, None)
        assert bulk.store.ttl(later) == pytest.approx(bulk.limits.ttl, abs=5)

    def test_a_later_tombstone_stays(self, bulk: BulkStore) -> None:
        early, late, new = some_turns(3)
        session = a_session()
        bulk.store.delete(session, late.answer.id)
        bulk.put([share(early, late, new, session=session, tombstone=early.answer.id)])
        assert bulk.store.inspect(session) == Contents(History.of([new]), late.answer.id, None)

    @pytest.mark.parametrize("replace", [True, False])
    def test_a_new_deletion_takes_the_quarantined_copies(self, bulk: BulkStore, replace: bool) -> None:
        session, turns = self.corrupt(bulk), some_turns(2)
        bulk.store.quarantine(session)
        bulk.put([share(turns[1], session=session)])
        assert self.one.quarantined_copies(bulk.store, session) == 1
        bulk.put([share(turns[1], session=session, tombstone=turns[0].answer.id)], replace=replace)
        assert self.one.quarantined_copies(bulk.store, session) == 0

    @pytest.mark.parametrize("replace", [True, False])
    def test_the_longer_ttl_is_kept(self, bulk: BulkStore, replace: bool) -> None:
        turns = some_turns(2)
        short, long = self.hold(bulk, *turns), self.hold(bulk, *turns)
        self.shorten(bulk, short, 3000)
        self.shorten(bulk, long, 9000)
        bulk.put([share(*turns, session=one, ttl=6000) for one in (short, long)], replace=replace)
        assert bulk.ttls([short, long]) == {short: pytest.approx(6000, abs=5), long: pytest.approx(9000, abs=5)}

    def test_a_conversation_that_is_given_turns_does_not_live_shorter(self, bulk: BulkStore) -> None:
        session, new = self.hold(bulk), a_turn()
        self.shorten(bulk, session, 3000)
        bulk.put([share(new, session=session, ttl=1000)])
        assert (bulk.store.ttl(session) or 0) > 2900

    def test_it_does_not_where_the_ttl_was_longer(self, bulk: BulkStore) -> None:
        session = self.hold(bulk)
        bulk.store.limits = test_stores.SHORT
        bulk.put([share(a_turn(), session=session, ttl=50)])
        assert (bulk.store.ttl(session) or 0) > test_stores.LIMITS.ttl - 60

    def test_no_ttl_is_longer_than_the_limit(self, bulk: BulkStore) -> None:
        one = share(a_turn(), ttl=2**40)
        bulk.put([one])
        assert bulk.store.ttl(one.session) == pytest.approx(bulk.limits.ttl, abs=5)

    def test_replacing_takes_the_turns_that_the_share_does_not_have(self, bulk: BulkStore) -> None:
        turns = some_turns(5)
        session, other, new = self.hold(bulk, *turns), self.hold(bulk), a_session()
        bulk.store.append(session, None, flag=True)
        flag = bulk.store.inspect(session).flag
        done = bulk.put([share(*turns[:2], session=session), share(*turns, session=new)], replace=True)
        assert done == Put(replaced=2)
        assert bulk.store.inspect(session) == Contents(History.of(turns[:2]), None, flag)
        assert bulk.store.load(new) == History.of(turns)
        assert len(bulk.store.load(other) or ()) == 4
        assert bulk.store.append(session, turns[4]).stored

    def test_what_has_expired_is_created_anew(self, bulk: BulkStore) -> None:
        session, turns = self.expired(bulk), some_turns(2)
        bulk.put([share(*turns, session=session)])
        assert bulk.store.load(session) == History.of(turns)

    @pytest.mark.parametrize("replace", [True, False])
    def test_what_is_no_history_is_quarantined(self, bulk: BulkStore, replace: bool) -> None:
        corrupt, there, turns = self.corrupt(bulk), self.hold(bulk), some_turns(2)
        done = bulk.put([share(*turns, session=corrupt), share(*turns, session=there)], replace=replace)
        assert done == (Put(replaced=2, corrupt=1) if replace else Put(created=1, merged=1, corrupt=1))
        assert bulk.store.load(corrupt) == History.of(turns)
        assert self.one.quarantined_copies(bulk.store, corrupt) == 1

    def test_what_stays_corrupt_is_tried_a_bounded_number_of_times(
        self, bulk: BulkStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As where another program writes it again each time."""
        session, tries = self.corrupt(bulk), []
        monkeypatch.setattr(bulk.store, "quarantine", lambda one: bool(tries.append(one)))
        with pytest.raises(StoreUnavailable):
            bulk.put([share(a_turn(), session=session)])
        assert 1 < len(tries) < 20

    @pytest.mark.parametrize("replace", [True, False])
    def test_putting_twice_is_as_putting_once(self, bulk: BulkStore, replace: bool) -> None:
        turns = some_turns(4)
        there, corrupt, gone = self.hold(bulk, turns[2]), self.corrupt(bulk), self.hold(bulk, *turns)
        shares = [
            share(*turns[:2], session=there),
            share(*turns, session=corrupt),
            share(*turns, session=gone, tombstone=turns[2].answer.id),
            share(*turns),
        ]
        sessions = [one.session for one in shares]
        bulk.put(shares, replace=replace)
        before = bulk.contents(sessions)
        assert bulk.put(shares, replace=replace) == (Put(replaced=4) if replace else Put(merged=4))
        assert bulk.contents(sessions) == before
        assert self.one.quarantined_copies(bulk.store, corrupt) == 1

    def test_many_are_put_at_once(self, bulk: BulkStore) -> None:
        turns = some_turns(1)
        shares = [share(*turns) for _ in range(350)]
        self.hold(bulk)
        bulk.put(shares[::2])
        assert bulk.put(shares) == Put(created=175, merged=175)
        assert bulk.present([one.session for one in shares]) == {one.session for one in shares}

    def shorten(self, bulk: BulkStore, session: str, seconds: int) -> None:
        """Have a conversation expire after so many seconds."""
        raise NotImplementedError

    # --- Unsynced flags --------------------------------------------------------------------------------

    def flag(self, bulk: BulkStore, number: int) -> dict[str, str]:
        """Return so many new flagged sessions, with their flags."""
        sessions = [a_session() for _ in range(number)]
        for session in sessions:
            bulk.store.append(session, None, flag=True)
        return {session: one.flag or "" for session in sessions if (one := bulk.store.inspect(session))}

    def test_every_flagged_session_is_named(self, bulk: BulkStore) -> None:
        flags, plain = self.flag(bulk, 7), self.hold(bulk)
        batches = list(bulk.flagged(3))
        found = {session for batch in batches for session in batch}
        assert found >= flags.keys()
        assert plain not in found
        assert max(map(len, batches)) <= 3
        bulk.clear_flags(flags)

    def test_flags_that_were_seen_are_cleared_and_newer_ones_stay(self, bulk: BulkStore) -> None:
        seen = self.flag(bulk, 4)
        again = next(iter(seen))
        bulk.store.append(again, None, flag=True)
        bulk.clear_flags(seen | {a_session(): "none"})
        assert [session for session in seen if bulk.store.inspect(session).flag] == [again]
        bulk.clear_flags({again: bulk.store.inspect(again).flag or ""})
        assert not seen.keys() & {session for batch in bulk.flagged(100) for session in batch}
        bulk.clear_flags({})

    # --- Tombstones ------------------------------------------------------------------------------------

    @pytest.mark.parametrize("leave", ["put", "put on turns", "replace", "remove", "trim"])
    def test_a_tombstone_lives_as_long_as_copies_of_a_longer_ttl(self, leave: str) -> None:
        bulk, turns = self.make(self.one.make(test_stores.SHORT)), some_turns(3)
        session = a_session() if leave == "put" else self.hold(bulk, *turns)
        upto = turns[1].answer.id if leave == "trim" else turns[2].answer.id
        test_stores.ttl_was(test_stores.LONG)
        if leave == "remove":
            bulk.remove({session: upto}, tombstones=True)
        elif leave == "trim":
            bulk.trim({session: upto}, tombstones=True)
        else:
            bulk.put([share(a_turn(), session=session, tombstone=upto)], replace=leave == "replace")
        self.one.let_pass(bulk.store, session, test_stores.LONG - 100)
        assert bulk.store.append(session, turns[0]).tombstone == upto

    def test_turns_that_are_put_do_not_shorten_the_life_of_a_tombstone(self) -> None:
        bulk, (deleted, *later) = self.make(self.one.make(test_stores.SHORT)), some_turns(3)
        session = a_session()
        test_stores.ttl_was(test_stores.LONG)
        bulk.store.delete(session, deleted.answer.id)
        for turn in later:
            bulk.put([share(turn, session=session)])
        self.one.let_pass(bulk.store, session, test_stores.LONG - 100)
        assert bulk.store.append(session, deleted).tombstone == deleted.answer.id

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

    def test_what_has_outlived_its_ttl_or_has_none_is_counted_and_corrected(self, bulk: BulkStore) -> None:
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
            lambda: list(bulk.tombstones(10)),
            lambda: list(bulk.entries(10)),
            bulk.estimate,
            lambda: bulk.put([share(a_turn(), session=session)]),
            lambda: bulk.put([share(a_turn(), session=session)], replace=True),
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

    def shorten(self, bulk: BulkStore, session: str, seconds: int) -> None:
        bulk.store._expiry[session] = bulk.store._clock() + seconds  # type: ignore[attr-defined]

    @pytest.fixture
    def outage(self, bulk: BulkStore) -> Iterator[None]:
        bulk.store.down = True  # type: ignore[attr-defined]
        yield


class TestRedisBulk(Contract):
    one = test_stores.TestCacheStore()

    def make(self, store: HistoryStore) -> BulkStore:
        return RedisBulk(store)

    def shorten(self, bulk: BulkStore, session: str, seconds: int) -> None:
        with environment.REDIS.client() as client:
            client.expire(make_key(session), seconds)

    def outlive(self, bulk: BulkStore, session: str) -> None:
        with environment.REDIS.client() as client:
            client.persist(make_key(session))

    @pytest.fixture
    def outage(self, bulk: BulkStore) -> Iterator[None]:
        environment.REDIS.kill()
        yield
        environment.REDIS.start()

    def test_an_error_in_an_answer_raises_and_is_never_empty(self, bulk: BulkStore) -> None:
        session = self.hold(bulk)
        with test_stores.refused("get", "getrange"):
            for call in (bulk.last_ids, bulk.histories, bulk.digests, bulk.contents):
                with pytest.raises(StoreUnavailable):
                    call([session])

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

    @pytest.mark.parametrize("key", [b"conv:\xff", b"conv:not a name", b"tomb:{conv:not a name}"])
    def test_a_key_that_is_no_name_of_ours_is_a_corrupt_entry(self, bulk: BulkStore, key: bytes) -> None:
        """Also a tombstone: a backup that names no session could not be restored."""
        with environment.REDIS.client() as client:
            client.set(key, a_turn().answer.id)
            name = key.removeprefix(b"tomb:{").removesuffix(b"}").removeprefix(b"conv:").decode(errors="replace")
            found = [entry for page in bulk.entries(100) for entry in page if entry.session == name]
            client.delete(key)
        assert [(one.corrupt, one.tombstone, one.history) for one in found] == [(True, None, History())]

    @pytest.mark.parametrize("replace", [True, False])
    def test_a_key_of_another_type_is_quarantined(self, bulk: BulkStore, replace: bool) -> None:
        session, turns = a_session(), some_turns(2)
        with environment.REDIS.client() as client:
            client.rpush(make_key(session), "a")
            client.rpush(tombstone_key(make_key(session)), "a")
        assert bulk.put([share(*turns, session=session)], replace=replace).corrupt == 1
        assert bulk.store.inspect(session) == Contents(History.of(turns), None, None)
        assert self.one.quarantined_copies(bulk.store, session) == 1

    @pytest.mark.parametrize(
        "spoil",
        [
            lambda value: value[:-1],
            lambda value: value[1:],
            lambda value: value + value,
            lambda value: value + value.splitlines(keepends=True)[-1],
            lambda value: value.replace(b'"id":"0', b'"id":"z'),
            lambda value: b"\n" * 1000 + value,
        ],
        ids=["no end", "no beginning", "twice", "half a turn", "no id", "empty lines"],
    )
    def test_lines_that_are_no_turns_are_quarantined(self, bulk: BulkStore, spoil: Callable[[bytes], bytes]) -> None:
        session, new = self.hold(bulk), a_turn()
        with environment.REDIS.client() as client:
            client.set(make_key(session), spoil(client.get(make_key(session))))
        assert bulk.put([share(new, session=session)]) == Put(created=1, corrupt=1)
        assert bulk.store.load(session) == History.of([new])

    def test_a_key_without_ttl_that_is_given_only_a_tombstone_does_not_expire_at_once(self, bulk: BulkStore) -> None:
        turns = some_turns(3)
        session = self.hold(bulk, *turns)
        self.outlive(bulk, session)
        bulk.put([share(session=session, ttl=1, tombstone=turns[0].answer.id)])
        with environment.REDIS.client() as client:
            assert client.ttl(make_key(session)) == -1
        bulk.expire(apply=True)

    def test_a_tombstone_without_ttl_is_given_its_life(self) -> None:
        bulk, session = self.make(self.one.make(test_stores.SHORT)), a_session()
        test_stores.ttl_was(test_stores.LONG)
        with environment.REDIS.client() as client:
            client.set(tombstone_key(make_key(session)), a_turn().answer.id)
            bulk.expire(apply=True)
            assert client.ttl(tombstone_key(make_key(session))) == pytest.approx(test_stores.LONG, abs=5)

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

    def shorten(self, bulk: BulkStore, session: str, seconds: int) -> None:
        expiry = {"expires_at": now() + timedelta(seconds=seconds)}
        self.one.documents(bulk.store).update_one({"_id": make_key(session)}, {"$set": expiry})  # type: ignore[attr-defined]

    @pytest.fixture
    def outage(self, bulk: BulkStore) -> Iterator[None]:
        environment.MONGO.kill()
        assert not test_stores.answers(bulk.store)  # now the driver knows
        yield
        environment.MONGO.start()
        eventually(lambda: test_stores.answers(bulk.store), "the driver does not see that MongoDB is back")

    @pytest.mark.parametrize("replace", [True, False])
    @pytest.mark.parametrize("expiry", test_stores.WRONG_EXPIRIES)
    def test_without_a_valid_expiry_a_document_has_expired(
        self, bulk: BulkStore, expiry: object, replace: bool
    ) -> None:
        (old, *turns) = some_turns(3)
        session = self.hold(bulk, old)
        self.one.spoil_expiry(session, expiry)  # type: ignore[attr-defined]
        assert session not in {name for batch in bulk.sessions(100) for name in batch}
        assert session not in {entry.session for batch in bulk.entries(100) for entry in batch}
        assert bulk.contents([session]) == {session: Contents(None, None, None)}
        assert (bulk.ttls([session]), bulk.last_ids([session]), bulk.present([session])) == ({}, {}, set())
        bulk.put([share(*turns, session=session)], replace=replace)
        assert bulk.store.load(session) == History.of(turns)
        assert bulk.ttls([session])[session] == pytest.approx(5000, abs=5)

    @pytest.mark.parametrize("messages", [[1, "x"], [{"no": "id"}], None, {"id": "x"}, "text"])
    def test_a_document_that_is_no_history_has_no_last_id(self, bulk: BulkStore, messages: object) -> None:
        session = self.hold(bulk)
        self.one.documents(bulk.store).update_one({"_id": make_key(session)}, {"$set": {"messages": messages}})  # type: ignore[attr-defined]
        assert bulk.last_ids([session]) == {}

    def test_what_is_in_the_place_of_the_keys_is_replaced(self, bulk: BulkStore) -> None:
        sessions, keys = [self.hold(bulk), self.hold(bulk)], {"kept": asked_at(a_turn(at=now()))}
        where = {"_id": make_key(sessions[0])}
        self.one.documents(bulk.store).update_one(where, {"$set": {"keys": "x"}})  # type: ignore[attr-defined]
        bulk.keep_keys(dict.fromkeys(sessions, keys))
        assert [bulk.store.inspect(session).keys for session in sessions] == [keys, keys]

    @pytest.mark.parametrize("expiry", test_stores.WRONG_EXPIRIES)
    def test_what_has_no_valid_expiry_is_removed(self, bulk: BulkStore, expiry: object) -> None:
        documents = self.one.documents(bulk.store)  # type: ignore[attr-defined]
        documents.delete_many({})  # what tests before have left could expire meanwhile
        session = self.hold(bulk)
        documents.insert_one({"_id": (other := a_session())})  # another program's
        assert bulk.expire(apply=False) == 0
        self.one.spoil_expiry(session, expiry)  # type: ignore[attr-defined]
        assert bulk.expire(apply=False) == 1
        assert bulk.expire(apply=True) == 1
        assert [one["_id"] for one in documents.find({"_id": {"$in": [make_key(session), other]}})] == [other]
        documents.delete_one({"_id": other})

    @pytest.mark.parametrize("key", [ObjectId(), 5, {"conv:": 1}, "elsewhere", "conv:not a name"])
    def test_a_document_that_is_no_conversation_stops_nothing(self, bulk: BulkStore, key: object) -> None:
        session, turns = a_session(), some_turns(2)
        bulk.store.append(session, turns[1])
        bulk.store.delete(session, turns[0].answer.id)
        later = now() + timedelta(hours=1)
        other = {"messages": ["x"], "bytes": 5, "expires_at": later, "tombstone": turns[0].answer.id, "mark": "z"}
        documents = self.one.documents(bulk.store)  # type: ignore[attr-defined]
        documents.insert_one({"_id": key} | other)
        try:
            for read in (bulk.sessions, bulk.all_last_ids, bulk.all_histories, bulk.flagged):
                named = {name for batch in read(100) for name in batch}  # type: ignore[operator]
                assert all(map(SESSION.fullmatch, named))
            assert session in {name for batch in bulk.sessions(100) for name in batch}
            deleted = {name: tombstone for page in bulk.tombstones(100) for name, tombstone in page.items()}
            assert deleted[session] == turns[0].answer.id
            assert all(map(SESSION.fullmatch, deleted))
            assert session in {entry.session for batch in bulk.entries(100) for entry in batch}
            assert session in bulk.store.scan("", 1000, None).sessions
            assert all(map(SESSION.fullmatch, bulk.store.scan("", 1000, None).sessions))
        finally:
            documents.delete_one({"_id": key})

    @pytest.mark.parametrize("most", [1, 5, 100])
    def test_many_flags_are_listed_by_parts(self, bulk: BulkStore, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
        """Each part is a range of their values; the embedded MongoDB reads all that a condition selects."""
        monkeypatch.setattr(flags, "_MOST", most)
        seen = self.flag(bulk, 40)
        found = [session for batch in bulk.flagged(7) for session in batch]
        assert len(found) == len(set(found)) >= len(seen)
        assert seen.keys() <= set(found)
        bulk.clear_flags(seen)

    def test_many_flags_are_counted_by_a_part_of_them(self, bulk: BulkStore, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(flags, "_ENOUGH", 5)
        seen = self.flag(bulk, 300)
        found = self.one.make().flags(1000)
        assert found.complete is False
        assert len(found.sessions) < 300
        assert 80 <= found.number <= 1200
        bulk.clear_flags(seen)

    def test_flags_that_a_walk_has_repaired_half_of_are_counted_as_quickly(
        self, bulk: BulkStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Those with low values are gone then."""
        monkeypatch.setattr(flags, "_ENOUGH", 5)
        documents = self.one.documents(bulk.store)  # type: ignore[attr-defined]
        later = now() + timedelta(hours=1)
        values = [f"{value:04x}" for value in range(0x8000, 0x10000, 0x40)]
        documents.insert_many([{"_id": f"conv:half-{one}", "mark": one, "expires_at": later} for one in values])
        read, find = list[str](), flags._find
        monkeypatch.setattr(flags, "_find", lambda *given: read.extend(found := find(*given)) or found)
        try:
            _, number = flags.counted(documents, 1_000)
            assert 256 <= number <= 1024
            assert len(read) <= 64
        finally:
            documents.delete_many({"mark": {"$in": values}})

    def test_what_another_program_flagged_is_not_named(self, bulk: BulkStore) -> None:
        documents = self.one.documents(bulk.store)  # type: ignore[attr-defined]
        later = now() + timedelta(hours=1)
        others = [{"_id": _id, "mark": "z", "expires_at": later} for _id in (7, "other", "conv:a b")]
        documents.insert_many(others)
        found = {session for batch in bulk.flagged(100) for session in batch}
        assert not found & {"a b", "other", ""}
        documents.delete_many({"mark": "z"})

    @pytest.mark.parametrize("replace", [True, False])
    def test_a_deletion_in_the_middle_is_honoured(
        self, bulk: BulkStore, monkeypatch: pytest.MonkeyPatch, replace: bool
    ) -> None:
        """After it was found that the conversation is there, and what it holds."""
        turns = some_turns(4)
        session, find = self.hold(bulk, *turns[:2]), put.Putting._find

        def delete_then(self: put.Putting, shares: Sequence[Share]) -> dict[str, Any]:
            found = find(self, shares)
            bulk.store.delete(session, turns[2].answer.id)
            return found

        monkeypatch.setattr(put.Putting, "_find", delete_then)
        bulk.put([share(*turns, session=session)], replace=replace)
        assert bulk.store.inspect(session) == Contents(History.of(turns[3:]), turns[2].answer.id, None)

    def test_a_document_that_another_makes_in_the_middle_is_merged(
        self, bulk: BulkStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (early, *turns), session, find = some_turns(3), a_session(), put.Putting._find

        def make_then(self_: put.Putting, shares: Sequence[Share]) -> dict[str, Any]:
            found = find(self_, shares)
            bulk.store.append(session, early)
            return found

        monkeypatch.setattr(put.Putting, "_find", make_then)
        assert bulk.put([share(*turns, session=session)]) == Put(merged=1)
        assert bulk.store.load(session) == History.of([early, *turns])

    def test_what_was_merged_is_on_the_disk(self, bulk: BulkStore) -> None:
        """The single updates do not wait for it, but all together do."""
        sessions, late = [self.hold(bulk) for _ in range(30)], a_turn()
        bulk.put([share(late, session=session) for session in sessions])
        environment.MONGO.kill()
        environment.MONGO.start()
        eventually(lambda: test_stores.answers(bulk.store), "the driver does not see that MongoDB is back")
        assert set(bulk.last_ids(sessions).values()) == {late.answer.id}

    def test_a_conversation_that_cannot_take_its_turns_in_bulk_takes_them_alone(self, bulk: BulkStore) -> None:
        """Its document is as large as it may be: what is too old goes first."""
        other, long = self.hold(bulk), some_turns(3, size=100_000)
        full = self.hold(bulk, *long[:2])
        bulk.put([share(long[2], session=full), share(long[2], session=other)])
        assert bulk.store.load(full) == History.of(long[1:])
        assert (bulk.store.load(other) or History()).last_id == long[2].answer.id

    def test_the_bytes_of_a_trimmed_document_are_those_it_has(self, bulk: BulkStore) -> None:
        turns = some_turns(4)
        session = self.hold(bulk, *turns)
        bulk.trim({session: turns[1].answer.id}, tombstones=True)
        (document,) = self.one.documents(bulk.store).find({"_id": make_key(session)})  # type: ignore[attr-defined]
        assert document["bytes"] == sum(len(turn.lines()) for turn in turns[2:])
