"""Many conversations of a MemoryStore: for tests and tools, held to the same contract as the real stores."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from conversations import merge
from conversations.stores.batches import batches
from conversations.stores.bulk import Attempt, BulkStore, Removal, Share
from conversations.stores.memory import MemoryStore
from conversations.turns import History, Turn


class MemoryBulk(BulkStore):
    """What operators' commands need of a MemoryStore: the defaults, and what they cannot do."""

    store: MemoryStore

    def tombstones(self, size: int) -> Iterator[dict[str, str]]:
        with self.store._usable():
            found = {session: self.store._tombstone(session) for session in list(self.store._tombstones)}
        yield {session: tombstone for session, tombstone in found.items() if tombstone}

    def _put(self, shares: Sequence[Share], replace: bool) -> Attempt:
        attempt = Attempt()
        for share in shares:
            with self.store._usable():
                value = self._value(share.session)
                if value is None or isinstance(value, History):
                    self._put_one(share, (value or History()).turns(), replace, attempt)
                else:
                    attempt.corrupt.append(share)
        return attempt

    def _put_one(self, share: Share, held: Sequence[Turn], replace: bool, attempt: Attempt) -> None:
        there = self.store._tombstone(share.session) or ""
        if share.tombstone > there:
            self._cut(share.session, share.tombstone, tombstone=True)
            self.store.quarantined.pop(share.session, None)
        tombstone = max(share.tombstone, there)
        given = [turn for turn in share.turns if turn.id > tombstone]
        if given:
            own = [] if replace else [turn for turn in held if turn.id > tombstone]
            ids = {turn.id for turn in own}
            missing = [turn for turn in given if turn.id not in ids]
            self.store.values[share.session] = merge.stored([*own, *missing], self.limits)
            expiry = self.store._clock() + max(1, min(share.ttl, self.limits.ttl))
            self.store._expiry[share.session] = max(expiry, self.store._expiry.get(share.session, 0.0))
        attempt.count(len(given), len(held), replace)

    def remove(self, last_ids: Mapping[str, str], *, tombstones: bool) -> Removal:
        removed, kept = set(), set()
        with self.store._usable():
            for session, last in last_ids.items():
                value = self._value(session)
                if value is not None and not (isinstance(value, History) and (value.last_id or "") <= last):
                    kept.add(session)
                    continue
                removed |= {session} if value is not None else set()
                self._cut(session, last, tombstones)
        return Removal(frozenset(removed), frozenset(kept))

    def trim(self, ends: Mapping[str, str], *, tombstones: bool) -> None:
        with self.store._usable():
            for session, end in ends.items():
                value = self._value(session)
                if isinstance(value, History) and value.turns()[0].id <= end:
                    self._cut(session, end, tombstones)

    def expire(self, *, apply: bool) -> int:
        with self.store._usable():
            over = [session for session, until in self.store._expiry.items() if until <= self.store._clock()]
            lasting = [session for session in self.store.values if session not in self.store._expiry]
            if apply:
                for session in over:
                    self.store._expire(session)
                self.store._expiry |= dict.fromkeys(lasting, self.store._clock() + self.limits.ttl)
            return len(over) + len(lasting)

    def flagged(self, size: int) -> Iterator[list[str]]:
        with self.store._usable():
            found = list(self.store._flags)
        return batches(found, size)

    def clear_flags(self, values: Mapping[str, str]) -> None:
        for session, flag in values.items():
            self.store.clear_flag(session, flag)

    def _value(self, session: str) -> Any:
        self.store._expire(session)
        return self.store.values.get(session)

    def _cut(self, session: str, end: str, tombstone: bool) -> None:
        """Remove the turns up to an id, and leave a tombstone where one is wanted."""
        value = self.store.values.pop(session, None)
        if value is not None and (rest := value.after(end)):
            self.store.values[session] = rest
        if tombstone:
            self.store._leave_tombstone(session, end)
