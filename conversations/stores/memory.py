"""Histories in this process: for tests and tools, held to the same contract as the real stores."""

import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from uuid import uuid4

from conversations import merge
from conversations.datasets import Dataset
from conversations.errors import CorruptHistory, StoreUnavailable
from conversations.stores.base import CORRUPT, Contents, HistoryStore, Page, Receipt, Summary
from conversations.stores.control import ControlStore, Flags, Report
from conversations.stores.sessions import is_of, make_key, part_of_name
from conversations.turns import SESSION, History, Limits, Turn
from conversations.used_keys import Keys, of_turns, unite


class MemoryStore(HistoryStore, ControlStore):
    """Dicts under a lock; `down` makes it an outage."""

    instance = "memory"

    cheap_reads = True

    def __init__(self, alias: str, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(alias, limits)
        self.down = False
        self.values: dict[str, Any] = {}
        self.quarantined: dict[str, list[Any]] = {}
        self._expiry: dict[str, float] = {}
        self._tombstones: dict[str, tuple[str, float]] = {}
        self._flags: dict[str, str] = {}
        self._keys: dict[str, dict[str, int]] = {}
        self._notes: dict[str, str] = {}
        self._leases: dict[str, tuple[str, float]] = {}
        self._dataset: Dataset | None = None
        self._heartbeats: dict[str, float] = {}
        self._clock = clock
        self._lock = threading.Lock()

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
                self._flags[session] = uuid4().hex
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
                self._flags[session] = uuid4().hex
            value = self.values.pop(session, None)
            quarantined = self.quarantined.pop(session, None)
            if isinstance(value, History) and (rest := value.after(upto)):
                self.values[session] = rest
            self._leave_tombstone(session, upto)
            gone = value is not None and self.values.get(session) != value
            return gone or quarantined is not None

    def flags(self, limit: int) -> Flags:
        with self._usable():
            sessions = list(self._flags)
            return Flags(frozenset(sessions[:limit]), len(sessions) <= limit, len(sessions))

    def clear_flag(self, session: str, flag: str) -> None:
        with self._usable():
            if self._flags.get(session) == flag:
                del self._flags[session]

    def ttl(self, session: str) -> int | None:
        with self._usable():
            self._expire(session)
            if session not in self.values or session not in self._expiry:
                return None
            return round(self._expiry[session] - self._clock())

    def _scan(self, cursor: str, limit: int, tenant: str | None, contains: str) -> Page:
        part_of_name(contains)
        with self._usable():
            for session in list(self.values):
                self._expire(session)
            rest = sorted(
                session
                for session in self.values
                if session > cursor and contains in session and is_of(session, tenant)
            )
        page = tuple(rest[:limit])
        return Page(page, page[-1] if len(rest) > limit else "")

    def is_cursor(self, cursor: str, tenant: str | None) -> bool:
        return SESSION.fullmatch(cursor) is not None and is_of(cursor, tenant)

    def last_ids(self, sessions: Collection[str]) -> dict[str, str]:
        with self._usable():
            for session in sessions:
                self._expire(session)
            return {
                session: value.last_id or ""
                for session in sessions
                if isinstance(value := self.values.get(session), History)
            }

    def summaries(self, sessions: Collection[str]) -> dict[str, Summary]:
        with self._usable():
            return {session: summary for session in sessions if (summary := self._summary(session))}

    def quarantine(self, session: str) -> bool:
        with self._usable():
            if session not in self.values:
                return False
            self.quarantined.setdefault(session, []).append(self.values.pop(session))
            return True

    def note(self, name: str) -> str | None:
        with self._usable():
            return self._notes.get(name)

    def write_note(self, name: str, text: str) -> None:
        with self._usable():
            self._notes[name] = text

    def lease(self, name: str, holder: str, seconds: float) -> bool:
        with self._usable():
            current, until = self._leases.get(name, (holder, 0.0))
            if current != holder and until > self._clock():
                return False
            self._leases[name] = (holder, self._clock() + seconds)
            return True

    def report(self, notes: Collection[str] = ()) -> Report:
        with self._usable():
            now = self._clock()
            return Report(
                self._dataset,
                self.instance,
                now,
                {name: now - at for name, at in self._heartbeats.items()},
                {name: self._notes[name] for name in notes if name in self._notes},
            )

    def beat(self, process: str, dataset: Dataset) -> int | None:
        with self._usable():
            if self._dataset is None or self._dataset.id != dataset.id:
                return None
            self._dataset = replace(self._dataset, epoch=self._dataset.epoch + 1)
            self._heartbeats[process] = self._clock()
            return self._dataset.epoch

    def identify(self, dataset: Dataset, before: Dataset | None) -> bool:
        with self._usable():
            if (self._dataset and self._dataset.id) != (before and before.id):
                return False
            self._dataset = dataset
            return True

    def farewell(self, process: str) -> None:
        with self._usable():
            self._heartbeats.pop(process, None)

    def ping(self) -> None:
        with self._usable():
            pass

    @contextmanager
    def _usable(self) -> Iterator[None]:
        with self._lock:
            if self.down:
                raise StoreUnavailable(self.alias, "down")
            yield

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

    def _summary(self, session: str) -> Summary | None:
        try:
            history = self._read(session)
        except CorruptHistory:
            return CORRUPT
        return Summary.of(history) if history else None

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
