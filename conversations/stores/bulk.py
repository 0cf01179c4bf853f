"""BulkStore: what operators' commands need of a store beyond one turn; these docstrings are the specification.

Everything works by batches of bounded size, with deadlines of its own: a slow store makes a command slow, never
wrong. A store that cannot be used raises StoreUnavailable; nothing here reads an outage as emptiness.
"""

import operator
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from datetime import datetime, timedelta
from functools import partial
from itertools import chain
from typing import ClassVar

from conversations import merge
from conversations.clock import now
from conversations.errors import CorruptHistory, StoreUnavailable
from conversations.stores.base import Contents, HistoryStore
from conversations.stores.batches import PATIENCE, Deadline, batches, retried
from conversations.turns import SESSION, History, Limits, Turn
from conversations.used_keys import Keys

Found = Contents | CorruptHistory

_ATTEMPTS = 5  # to put a conversation that others change meanwhile


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
class Share:
    """What a store is to hold of one conversation; what its tombstone covers is left out."""

    session: str
    turns: tuple[Turn, ...]
    ttl: int
    """Seconds."""
    tombstone: str = ""


@dataclass(frozen=True, slots=True)
class Put:
    """What became of the conversations of one `put`; one of which tombstones left nothing is in none of these."""

    created: int = 0
    """Those of which there was no turn."""
    merged: int = 0
    """Those of which there were turns, whether or not any was missing."""
    replaced: int = 0
    corrupt: int = 0
    """Those in whose place something else was; it was quarantined."""

    def __add__(self, other: "Put") -> "Put":
        return Put(*map(operator.add, astuple(self), astuple(other)))


@dataclass
class Attempt:
    """How far one attempt to put conversations came."""

    counts: Counter[str] = field(default_factory=Counter)
    """Of a Put."""
    corrupt: list[Share] = field(default_factory=list)
    """Those in whose place something else is."""
    contended: list[Share] = field(default_factory=list)
    """Those that another writer changed meanwhile."""

    def count(self, given: int, before: int, replace: bool) -> None:
        """Count one that is done, of which so many turns were given that no tombstone covers, and so
        many were there."""
        if given:
            self.counts["replaced" if replace else "merged" if before else "created"] += 1


@dataclass(frozen=True, slots=True)
class Removal:
    """What became of the conversations of one `remove`; one that was not there is in neither."""

    removed: frozenset[str] = frozenset()
    kept: frozenset[str] = frozenset()
    """Those that have later messages, or are no histories."""


@dataclass(frozen=True, slots=True)
class Memory:
    """How full a store's memory is, in bytes."""

    used: int
    limit: int
    """0 where there is none."""


class BulkStore(ABC):
    """One store in bulk. Each conversation is one atomic change, which can be repeated. What is not abstract works
    with any HistoryStore, one conversation after another; a store overrides it where it knows a faster way. Where
    sessions are asked for by name, each must be one's name."""

    supports_memory: ClassVar[bool] = False
    """Whether the store keeps conversations in a memory that can be full: then it has `memory` and `sizes`."""
    expired_name: ClassVar[str] = "expired"
    """What `expire` counts, as reports name it."""

    def __init__(self, store: HistoryStore) -> None:
        self.store = store

    @property
    def alias(self) -> str:
        return self.store.alias

    @property
    def limits(self) -> Limits:
        return self.store.limits

    # --- Reading ---------------------------------------------------------------------------------------

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
        """Return the last message's id of those sessions that hold a history, without reading it whole."""
        return self.store.last_ids(sessions)

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

    def ttls(self, sessions: Collection[str]) -> dict[str, int]:
        """Return how many seconds those that hold turns have left; one TTL where something would never expire."""
        found = {session: self.store.ttl(session) for session in sessions}
        return {session: seconds for session, seconds in found.items() if seconds is not None}

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

    # --- Changing --------------------------------------------------------------------------------------

    def put(self, shares: Collection[Share], *, replace: bool = False) -> Put:
        """Have each conversation hold what `merge.stored` makes of the turns that it has and those of its share. With
        `replace` it loses the turns that its share does not have, unless tombstones leave none of that share.

        The later of the tombstones that is there and the share's counts; the share's does what `delete` does where it
        is the later one, for as long. A conversation that was given turns keeps at least the longer of both TTLs; of
        two turns with one id the one that is there stays. What is no history is quarantined. No two shares are of one
        session.
        """
        left, counts = [share for share in shares if share.turns or share.tombstone], Counter[str]()
        for _ in range(_ATTEMPTS):
            if not left:
                break
            attempt = self._put(left, replace)
            counts += attempt.counts
            counts["corrupt"] += sum(self.store.quarantine(share.session) for share in attempt.corrupt)
            left = attempt.corrupt + attempt.contended
        if left:
            raise StoreUnavailable(self.alias, "contended")
        return Put(**counts)

    @abstractmethod
    def _put(self, shares: Sequence[Share], replace: bool) -> Attempt:
        """Do what `put` promises, as far as no other writer and nothing corrupt is in the way."""

    def keep_keys(self, keys: Mapping[str, Keys]) -> None:
        """Keep each session's Idempotency-Keys, as HistoryStore.keep_keys does."""
        for session, each in keys.items():
            self.store.keep_keys(session, each)

    @abstractmethod
    def remove(self, last_ids: Mapping[str, str], *, tombstones: bool) -> Removal:
        """Remove conversations unless they have gone on since their last message had this id. With `tombstones`
        each that went leaves its id as a tombstone, as `delete` does."""

    @abstractmethod
    def trim(self, ends: Mapping[str, str], *, tombstones: bool) -> None:
        """Remove the turns up to these ids, and nothing that is later; what is no history stays as it is, and a
        conversation's TTL is left alone. With `tombstones` as for `remove`; but a store that keeps the tombstone with
        the conversation keeps it as long as that, and both for `tombstone_ttl` only where the TTL was longer before:
        else no copy outlives the conversation."""

    @abstractmethod
    def expire(self, *, apply: bool) -> int:
        """Remove what has expired and give a TTL to what has none; return how many there were of both. Without
        `apply` only count them. A document without an expiry has expired: it is not known how old it is."""

    # --- Unsynced flags --------------------------------------------------------------------------------

    @abstractmethod
    def flagged(self, size: int) -> Iterator[list[str]]:
        """Yield the sessions that have an unsynced flag, in lists of at most so many: each that has one throughout at
        least once, and all of them in a time that grows linearly."""

    @abstractmethod
    def clear_flags(self, values: Mapping[str, str]) -> None:
        """Clear each session's flag, unless it has been set again since: then it has another value."""

    # --- Memory ----------------------------------------------------------------------------------------

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


def _holds(found: Found) -> bool:
    return isinstance(found, CorruptHistory) or bool(found.history)


def _entry(session: str, found: Found, ttl: int | None) -> Entry:
    if isinstance(found, CorruptHistory):
        return Entry(session, History(), b"", None, None, corrupt=True)
    history = found.history or History()
    expiry = None if ttl is None else now() + timedelta(seconds=ttl)
    return Entry(session, history, history.lines(), expiry, found.tombstone)
