"""ControlStore: what processes agree on through a store, beside its conversations; the specification of it.

Unsynced flags name conversations that the other store is missing turns of. They are set with the turn, so setting
them belongs to HistoryStore. Notes, leases and the store's identity have nothing to do with any conversation.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import ClassVar

from conversations.datasets import Dataset

LISTED = "listed"
"""The name of the note that every conversation is in the store's list, with the Unix time when that was made."""
OPERATORS = "operator"
"""The name of the lease that an operator's command holds while it changes anything."""


@dataclass(frozen=True, slots=True)
class Flags:
    """The sessions that have an unsynced flag in a store, up to the limit of the call."""

    sessions: frozenset[str] = frozenset()
    complete: bool = True
    number: int = 0
    """About how many there are; exact where these are all."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a store holds beside conversations, at one moment."""

    dataset: Dataset | None
    """None where it has no identity: it is new, or was emptied."""
    instance: str
    """Changes when the server starts again or another one takes its place; "" where it does not tell."""
    time: float
    """Its clock, as Unix time."""
    heartbeats: Mapping[str, float] = field(default_factory=dict)
    """For each process that has not removed its heartbeat, how many seconds old that is."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """Those of the notes asked for that there are."""


@dataclass(frozen=True, slots=True)
class Rate:
    """So many asks in any so many seconds."""

    limit: int
    seconds: int

    @property
    def part(self) -> float:
        """For how many seconds a permit may be kept until it is used."""
        return self.seconds / 30


@dataclass(frozen=True, slots=True)
class PermitRequest:
    """What a process has to report of a client's asks, and whether it wants permits for more."""

    name: str
    """The client's, and of what it asks; any text."""
    rate: Rate
    asked: int = 0
    """How many asks were let through that no permit was for."""
    unused: int = 0
    """How many permits come back."""
    period: int = 0
    """The period that these were of."""
    more: bool = True
    """Whether permits are wanted."""


@dataclass(frozen=True, slots=True)
class Permits:
    """For how many asks a process needs not report again."""

    number: int
    period: int
    """The period that they are counted in."""
    wait: float
    """Seconds until a further one can be given; 0.0 where some are left."""


class ControlStore(ABC):
    """The same store, and mostly the same object, as a HistoryStore. Every method raises StoreUnavailable when the
    store cannot be used or did not answer in time."""

    alias: str
    gives_permits: ClassVar[bool] = False
    """Whether it counts the asks of clients, for all processes together."""

    @property
    def connections(self) -> int:
        """How many connections this process has made to the store: after a new one another server may answer."""
        return 0

    @abstractmethod
    def report(self, notes: Collection[str] = ()) -> Report:
        """Return what a process must know of the store: its dataset, clock, heartbeats, and these notes."""

    @abstractmethod
    def beat(self, process: str, dataset: Dataset) -> int | None:
        """Record by the store's clock that the process is here, and count the epoch up; return the new epoch. Where
        the dataset has another id, change nothing and return None: one atomic step."""

    @abstractmethod
    def identify(self, dataset: Dataset, before: Dataset | None) -> bool:
        """Give the store this identity, unless it has another by now than before: one atomic step. Return whether it
        was given."""

    def prepare(self) -> None:  # noqa: B027
        """Create what the store needs beside its data, as indexes, and has not; what is there is left. This has a
        timeout of its own, which is long."""

    @abstractmethod
    def remove_heartbeat(self, process: str) -> None:
        """Remove the heartbeat of a process that ends, or has ended."""

    @abstractmethod
    def flags(self, limit: int) -> Flags:
        """Return flagged sessions, at most about `limit` of them."""

    @abstractmethod
    def clear_flag(self, session: str, flag: str) -> None:
        """Clear the flag, unless it has been set again since: then it has another value."""

    @abstractmethod
    def note(self, name: str) -> str | None:
        """Return what was last written under this name."""

    @abstractmethod
    def write_note(self, name: str, text: str) -> None:
        """Write down what all processes should know; it does not expire."""

    @abstractmethod
    def lease(self, name: str, holder: str, seconds: float) -> bool:
        """Take the lease for so long, or renew it; return whether the holder has it: one atomic step."""

    def permits(self, requests: Sequence[PermitRequest], seconds: float = inf) -> list[Permits]:
        """Return for each request permits, some of those that are left: each is one atomic step, and all are one round
        trip, of at most so many seconds within a request. Asks and permits are counted for the rate's time from their
        use on, if that is within the rate's `part`, and no longer than a tenth more. Asks are counted over the limit
        too. Only where `gives_permits`."""
        raise NotImplementedError

    @abstractmethod
    def release(self, name: str, holder: str) -> None:
        """End the lease at once, if the holder has it: one atomic step."""

    @abstractmethod
    def holder(self, name: str) -> str | None:
        """Return who has the lease now, None where nobody has."""
