"""BulkStore: what operators' commands need of a store beyond one turn; these docstrings are the specification.

Everything works by batches of bounded size, with deadlines of its own: a slow store makes a command slow, never
wrong. A store that cannot be used raises StoreUnavailable; nothing here reads an outage as emptiness.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from conversations.errors import CorruptHistory
from conversations.stores.base import Contents
from conversations.turns import Turn

Found = Contents | CorruptHistory


@dataclass(frozen=True, slots=True)
class Share:
    """What a store is to hold of one conversation: nothing that its tombstone covers."""

    session: str
    turns: tuple[Turn, ...]
    ttl: int
    """Seconds."""
    tombstone: str = ""


@dataclass(frozen=True, slots=True)
class Put:
    """What became of the conversations of one `put`."""

    created: int = 0
    merged: int = 0
    replaced: int = 0
    corrupt: int = 0
    """Those in whose place something else was; it was quarantined."""


class BulkStore(ABC):
    """One store in bulk. Each conversation is one atomic change, which can be repeated."""

    alias: str

    @abstractmethod
    def sessions(self, size: int) -> Iterator[tuple[str, ...]]:
        """Yield the name of every conversation that holds turns, in batches of about so many; each that is there
        throughout at least once."""

    @abstractmethod
    def contents(self, sessions: Collection[str]) -> dict[str, Found]:
        """Return what the store holds of each session; the CorruptHistory that reading it would raise where that is
        no history. Nothing is quarantined."""

    @abstractmethod
    def last_ids(self, sessions: Collection[str]) -> dict[str, str]:
        """Return the last message's id of those sessions that hold a history, without reading it whole."""

    @abstractmethod
    def tombstones(self) -> Iterator[tuple[str, str]]:
        """Yield every deleted session with its tombstone."""

    @abstractmethod
    def put(self, shares: Collection[Share], *, replace: bool = False) -> Put:
        """Add what is missing, within the limits, or with `replace` make each conversation what its share has. A
        conversation keeps the longer of both TTLs; a tombstone that is there already is honoured."""

    @abstractmethod
    def remove(self, last_ids: Mapping[str, str], *, tombstones: bool) -> Collection[str]:
        """Remove conversations unless they have gone on since their last message had this id; return those that are
        gone. With `tombstones` each leaves one for a TTL."""

    @abstractmethod
    def trim(self, ends: Mapping[str, str], *, tombstones: bool) -> None:
        """Remove the turns up to these ids, and nothing that came since."""

    @abstractmethod
    def expire(self, *, apply: bool) -> int:
        """Remove what has expired and give a TTL to what has none; return how many there were of both. Without
        `apply` only count them."""

    @abstractmethod
    def estimate(self) -> int:
        """Return about how many conversations there are, without looking at each."""
