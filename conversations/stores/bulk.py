"""BulkStore: what operators' commands, and repair, change in a store beyond one turn; these docstrings are the
specification. What they read is in bulk_reader.py.

Everything works by batches of bounded size, with deadlines of its own: a slow store makes a command slow, never
wrong. A store that cannot be used raises StoreUnavailable.
"""

import operator
from abc import abstractmethod
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from typing import ClassVar

from conversations.errors import StoreUnavailable
from conversations.stores.bulk_reader import BulkReader
from conversations.turns import Turn
from conversations.used_keys import Keys

_ATTEMPTS = 5  # to put a conversation that others change meanwhile


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


class BulkStore(BulkReader):
    """One store in bulk: what BulkReader reads, and all that changes something. Each conversation is one atomic change,
    which can be repeated."""

    expired_name: ClassVar[str] = "expired"
    """What `expire` counts, as reports name it."""

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

    def list_all(self) -> Iterator[int]:
        """Add every conversation that is missing there to the list of `newest`, by batches; yield how many each has.
        This can be repeated at any time. A store whose list is part of its conversations has nothing to do."""
        return iter(())

    def drop_list_of(self, user: str, tenant: str) -> None:  # noqa: B027
        """Remove the list of a user's conversations, whose name it has. What is stored meanwhile makes it anew. A store
        whose list is part of its conversations has nothing to do."""

    @abstractmethod
    def clear_flags(self, values: Mapping[str, str]) -> None:
        """Clear each session's flag, unless it has been set again since: then it has another value."""
