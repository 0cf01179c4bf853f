"""BulkReader: what is read of a store beyond one turn; these docstrings are the specification.

Everything works by batches of bounded size, with deadlines of its own: a slow store makes a command slow, never
wrong. A store that cannot be used raises StoreUnavailable; nothing here reads an outage as emptiness.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from itertools import chain
from typing import ClassVar

from conversations import merge
from conversations.clock import now
from conversations.errors import CorruptHistory
from conversations.stores.base import Contents, HistoryStore
from conversations.stores.batches import PATIENCE, Deadline, batches, retried
from conversations.stores.sessions import is_of
from conversations.turns import SESSION, History, Limits

Found = Contents | CorruptHistory


@dataclass(frozen=True, slots=True)
class Entry:
    """What a store has of one conversation: all that a backup has of it."""

    session: str
    history: History
    """Empty where there is none, or no history."""
    lines: bytes
    """The history as JSON lines."""
    expires_at: datetime | None
    """None where there is no history, or it would never expire."""
    tombstone: str | None
    corrupt: bool = False
    """Whether something there is no session's, no history or no tombstone."""


@dataclass(frozen=True, slots=True)
class Memory:
    """How full a store's memory is, in bytes."""

    used: int
    limit: int
    """0 where there is none."""


@dataclass(frozen=True, slots=True)
class UsersPage:
    """A part of a walk over a store."""

    looked: int
    """How many conversations it had."""
    sessions: frozenset[str]
    """Those of the user among them."""
    quarantined: bool = False
    """Whether these are copies that are no histories."""


class BulkReader(ABC):
    """One store, read in bulk; nothing is changed. What is not abstract works with any HistoryStore, one conversation
    after another; a store overrides it where it knows a faster way. Where sessions are asked for by name, each must be
    one's name."""

    supports_memory: ClassVar[bool] = False
    """Whether the store keeps conversations in a memory that can be full: then it has `memory` and `sizes`."""

    def __init__(self, store: HistoryStore) -> None:
        self.store = store

    @property
    def alias(self) -> str:
        return self.store.alias

    @property
    def limits(self) -> Limits:
        return self.store.limits

    def sessions(self, size: int) -> Iterator[tuple[str, ...]]:
        """Yield the name of every conversation that holds turns, in batches of about so many; each that is there
        throughout at least once. What another program has put there may be named too, even where it is no session's
        name."""
        cursor = ""
        while True:
            page = retried(partial(self.store.scan, cursor, size, tenant=None))
            yield page.sessions
            if not page.cursor:
                return
            cursor = page.cursor

    def present(self, sessions: Collection[str]) -> set[str]:
        """Return those of the sessions that `sessions` would name."""
        return {session for session, found in self.contents(sessions).items() if _holds(found)}

    def contents(self, sessions: Collection[str]) -> dict[str, Found]:
        """Return what the store holds of each session; the CorruptHistory that reading it would raise where that is
        no history. Nothing is quarantined."""
        return {session: self._inspect(session) for session in sessions}

    def digests(self, sessions: Collection[str]) -> dict[str, bytes]:
        """Return the digest of each session that holds turns or a tombstone; none of what is no history, as far as the
        ids of its turns show that."""
        found = self.contents(sessions)
        return {
            session: digest
            for session, one in found.items()
            if not isinstance(one, CorruptHistory) and (digest := merge.digest(one.history, one.tombstone))
        }

    def last_ids(self, sessions: Collection[str]) -> dict[str, str]:
        """Return the last message's id of those sessions that hold a history, as far as that shows without reading it
        whole."""
        return {session: history.last_id or "" for session, history in self.histories(sessions).items()}

    def histories(self, sessions: Collection[str]) -> dict[str, History]:
        """Return the histories of those sessions that hold one."""
        found = self.contents(sessions)
        return {
            session: one.history
            for session, one in found.items()
            if not isinstance(one, CorruptHistory) and one.history
        }

    def all_last_ids(self, size: int) -> Iterator[dict[str, str]]:
        """Yield the last id of every session that holds a history, by batches as `sessions` does."""
        for names in self.sessions(size):
            yield self.last_ids(list(filter(SESSION.fullmatch, names)))

    def all_histories(self, size: int) -> Iterator[dict[str, History]]:
        """Yield every history, by batches as `sessions` does."""
        for names in self.sessions(size):
            yield self.histories(list(filter(SESSION.fullmatch, names)))

    def all_sizes(self, size: int) -> Iterator[dict[str, int]]:
        """Yield how many bytes of messages each session has stored, by batches as `sessions` does; what is no session's
        may be named too."""
        for found in self.all_histories(size):
            yield {session: len(history.lines()) for session, history in found.items()}

    def ttls(self, sessions: Collection[str]) -> dict[str, int]:
        """Return how many seconds those that hold turns have left; one TTL where something would never expire."""
        found = {session: self.store.ttl(session) for session in sessions}
        return {session: seconds for session, seconds in found.items() if seconds is not None}

    def of_user(self, user: str, tenant: str, size: int) -> Iterator[UsersPage]:
        """Look at all that the store holds, quarantined copies too, and at no list of it; yield which of the tenant's
        conversations have a question of that user, by batches as `sessions` does. A tenant of "" is none."""
        for names in self.sessions(size):
            valid = [session for session in filter(SESSION.fullmatch, names) if is_of(session, tenant)]
            found = (session for session, history in self.histories(valid).items() if user in _users_in(history))
            yield UsersPage(len(names), frozenset(found))

    @abstractmethod
    def tombstones(self, size: int) -> Iterator[dict[str, str]]:
        """Yield the tombstones of all deleted sessions, by batches as `sessions` does, of which many may be empty; one
        that is no id is not there."""

    def entries(self, size: int) -> Iterator[list[Entry]]:
        """Yield all that the store has, each conversation and each tombstone once, in lists of about so many."""
        seen: set[str] = set()
        for names in self.sessions(size):
            new = set(names) - seen
            seen |= new
            valid = set(filter(SESSION.fullmatch, new))
            ttls = self.ttls(valid)
            found = [_entry(session, one, ttls.get(session)) for session, one in self.contents(valid).items()]
            yield found + [Entry(name, History(), b"", None, None, corrupt=True) for name in new - valid]
        every = chain.from_iterable(page.items() for page in self.tombstones(size))
        deleted = {session: tombstone for session, tombstone in every if session not in seen}
        for page in batches(deleted.items(), size):
            yield [Entry(session, History(), b"", None, tombstone) for session, tombstone in page]

    def estimate(self, seconds: float = PATIENCE) -> int:
        """Return about how many conversations there are, without looking at each where that can be. Raise
        StoreUnavailable where counting takes longer than that."""
        deadline = Deadline(self.alias, seconds)
        number = 0
        for names in self.sessions(1000):
            deadline.check()
            number += len(names)
        return number

    @abstractmethod
    def flagged(self, size: int) -> Iterator[list[str]]:
        """Yield the sessions that have an unsynced flag, in lists of at most so many: each that has one throughout at
        least once, and all of them in a time that grows linearly."""

    def memory(self) -> Memory:
        """Return how full the memory is; only where `supports_memory`."""
        raise NotImplementedError

    def sizes(self, sessions: Collection[str]) -> dict[str, int]:
        """Return how many bytes of memory each of them takes, 0 for one that is gone; only where
        `supports_memory`."""
        raise NotImplementedError

    def _inspect(self, session: str) -> Found:
        try:
            return self.store.inspect(session)
        except CorruptHistory as error:
            return error


def _users_in(history: History) -> set[str | None]:
    return {message.user for message in history}


def _holds(found: Found) -> bool:
    return isinstance(found, CorruptHistory) or bool(found.history)


def _entry(session: str, found: Found, ttl: int | None) -> Entry:
    if isinstance(found, CorruptHistory):
        return Entry(session, History(), b"", None, None, corrupt=True)
    history = found.history or History()
    expiry = None if ttl is None else now() + timedelta(seconds=ttl)
    return Entry(session, history, history.lines(), expiry, found.tombstone)
