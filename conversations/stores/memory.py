"""Histories in this process: for tests and tools, held to the same contract as the real stores."""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

from conversations import merge
from conversations.errors import CorruptHistory
from conversations.stores.base import CORRUPT, NO_TIME, Contents, HistoryStore, Newest, Page, Place, Receipt, Summary
from conversations.stores.memory_control import MemoryControl
from conversations.stores.sessions import is_of, make_key
from conversations.turns import History, Limits, Turn
from conversations.used_keys import Keys, of_turns, unite


class MemoryStore(MemoryControl, HistoryStore):
    """Dicts of histories, and of what is kept beside each."""

    cheap_reads = True

    def __init__(self, alias: str, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        MemoryControl.__init__(self, alias, clock)
        HistoryStore.__init__(self, alias, limits)
        self.values: dict[str, Any] = {}
        self.quarantined: dict[str, list[Any]] = {}
        self._expiry: dict[str, float] = {}
        self._tombstones: dict[str, tuple[str, float]] = {}
        self._keys: dict[str, dict[str, int]] = {}

    def load(self, session: str) -> History | None:
        with self._usable():
            return self._read(session)

    def inspect(self, session: str) -> Contents:
        with self._usable():
            keys = unite(self._keys.get(session, {}))
            return Contents(self._read(session), self._tombstone(session), self._flags.get(session), keys)

    def _append(self, session: str, turn: Turn | None, missing: Sequence[Turn], flag: bool) -> Receipt:
        with self._usable():
            before = self._read(session)
            if flag:
                self._set_flag(session)
            tombstone = self._tombstone(session) or ""
            there = before.turns() if before else ()
            ids = {one.id for one in there}
            new = [one for one in missing if one.id not in ids]
            there_too = bool(turn and before and before.knows(turn))
            expired = None if there_too or not turn else self._used_at(session, turn)
            stored = bool(turn and turn.id > tombstone and not there_too and expired is None)
            if turn and stored:
                new.append(turn)
            self._keep(session, of_turns(new))
            if after := merge.stored([*there, *new], self.limits, tombstone):
                self.values[session] = after
                self._expiry[session] = self._clock() + self.limits.ttl
            return Receipt(stored, before is None, tombstone if turn and turn.id <= tombstone else None, expired)

    def keep_keys(self, session: str, keys: Keys) -> None:
        with self._usable():
            self._keep(session, keys)

    def delete(self, session: str, upto: str, *, flag: bool = False) -> bool:
        with self._usable():
            self._expire(session)
            if flag:
                self._set_flag(session)
            value = self.values.pop(session, None)
            quarantined = self.quarantined.pop(session, None)
            if isinstance(value, History) and (rest := value.after(upto)):
                self.values[session] = rest
            self._leave_tombstone(session, upto)
            gone = value is not None and self.values.get(session) != value
            return gone or quarantined is not None

    def ttl(self, session: str) -> int | None:
        with self._usable():
            self._expire(session)
            if session not in self.values or session not in self._expiry:
                return None
            return round(self._expiry[session] - self._clock())

    def _scan(self, cursor: str, limit: int, tenant: str | None) -> Page:
        with self._usable():
            rest = sorted(session for session in self._living(tenant) if session > cursor)
        page = tuple(rest[:limit])
        return Page(page, page[-1] if len(rest) > limit else "")

    def _newest(
        self, tenant: str | None, before: Place | None, limit: int, since: str, contains: str, user: str
    ) -> Newest:
        with self._usable():
            every = [
                self._place(session)
                for session in self._living(tenant)
                if contains in session and (not user or user in self._users(session))
            ]
        rest = sorted((place for place in every if place.at >= since and (not before or place < before)), reverse=True)
        page = tuple(rest[:limit])
        return Newest(page, page[-1] if len(rest) > limit else None)

    def count(self, tenant: str | None, since: str = NO_TIME, until: str = "") -> int | None:
        with self._usable():
            times = [self._place(session).at for session in self._living(tenant)]
        return sum(since <= at and (not until or at < until) for at in times)

    def summaries(self, sessions: Collection[str], preview: int = 0) -> dict[str, Summary]:
        with self._usable():
            return {session: summary for session in sessions if (summary := self._summary(session, preview))}

    def quarantine(self, session: str) -> bool:
        with self._usable():
            if session not in self.values:
                return False
            self.quarantined.setdefault(session, []).append(self.values.pop(session))
            return True

    def ping(self) -> None:
        with self._usable():
            pass

    def _read(self, session: str) -> History | None:
        make_key(session)  # refuses what is no session
        self._expire(session)
        value = self.values.get(session)
        if value is not None and not isinstance(value, History):
            raise CorruptHistory(self.alias, "not a History")
        return value

    def _used_at(self, session: str, turn: Turn) -> int | None:
        return unite(self._keys.get(session, {})).get(turn.question.key or "")

    def _keep(self, session: str, keys: Keys) -> None:
        self._keys[session] = unite(self._keys.get(session, {}), keys)

    def _summary(self, session: str, preview: int) -> Summary | None:
        try:
            history = self._read(session)
        except CorruptHistory:
            return replace(CORRUPT, place=NO_TIME)
        if not history:
            return None
        question = history[-2].content[:preview] if preview else None
        size = len(history.lines())
        return replace(Summary.of(history), place=history[-1].at, bytes=size, question=question)

    def _living(self, tenant: str | None) -> list[str]:
        for session in list(self.values):
            self._expire(session)
        return [session for session in self.values if is_of(session, tenant)]

    def _users(self, session: str) -> set[str | None]:
        value = self.values[session]
        return {message.user for message in value} if isinstance(value, History) else set()

    def _place(self, session: str) -> Place:
        value = self.values[session]
        return Place(value[-1].at if isinstance(value, History) and value else NO_TIME, session)

    def _tombstone(self, session: str) -> str | None:
        upto, until = self._tombstones.get(session, ("", 0.0))
        return upto if upto and until > self._clock() else None

    def _leave_tombstone(self, session: str, upto: str) -> None:
        """Leave a tombstone that covers all up to the id, unless there is a later one; no tombstone lives shorter."""
        until = max(self._clock() + self.tombstone_ttl, self._tombstones.get(session, ("", 0.0))[1])
        self._tombstones[session] = max(upto, self._tombstone(session) or ""), until

    def _expire(self, session: str) -> None:
        if self._expiry.get(session, self._clock() + 1) <= self._clock():
            self.values.pop(session, None)
            self._expiry.pop(session, None)
