"""ControlStore: what processes agree on through a store, beside its conversations; the specification of it.

Unsynced flags name conversations that the other store is missing turns of. They are set with the turn, so setting
them belongs to HistoryStore. Notes, leases and the store's identity have nothing to do with any conversation.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Flags:
    """The sessions that have an unsynced flag in a store, up to the limit of the call."""

    sessions: frozenset[str] = frozenset()
    complete: bool = True


class ControlStore(ABC):
    """The same store, and mostly the same object, as a HistoryStore. Every method raises StoreUnavailable when the
    store cannot be used or did not answer in time."""

    alias: str

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

    @abstractmethod
    def identity(self) -> str:
        """Return what changes when the server restarts or another one takes its place."""
