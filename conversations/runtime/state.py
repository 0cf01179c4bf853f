"""What this process knows of the stores: their breakers, their marks, and where traffic goes.

The watcher and every call add to it; history.py reads it. Nothing in it is waited for.
"""

import mmap
import os
import struct
import time
from dataclasses import dataclass, field
from pathlib import Path

from django.conf import settings

from conversations.breaker import Breaker
from conversations.policy import Inputs, Routing, Switch
from conversations.runtime.journal import Journal
from conversations.stores import ALIASES, MONGO, REDIS
from conversations.stores.base import Marks
from telemetry import metrics


def _breaker(alias: str, patience: int = 1) -> Breaker:
    # A call counts as slow once it takes most of what it may take: a busy store is not an absent one.
    most = {REDIS: settings.REDIS_SOCKET_TIMEOUT_MS, MONGO: settings.MONGO_TIMEOUT_MS}[alias]
    return Breaker(slow=0.75 * patience * most / 1000)


@dataclass
class StoreState:
    """What is known of one store."""

    reads: Breaker
    writes: Breaker
    marks: Marks | None = None
    marks_at: float = 0.0
    """When the marks were asked for, on the monotonic clock."""


class SharedFlags:
    """A page of memory that the processes of this machine share, and that outlives them.

    It says of each store when a turn was last stored there with a mark: a mark is learned from its store
    within a second, and this closes that second between neighbours. And it says whether the store had marks
    when it was last seen: a process that starts while it is out does not take its silence for "none".
    """

    _LAYOUT = struct.Struct("d?7x")  # lit at, flag: one of these a store

    def __init__(self, path: Path) -> None:
        size = self._LAYOUT.size * len(ALIASES)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
            file.truncate(size)
            self._page = mmap.mmap(file.fileno(), size)

    def record(self, alias: str) -> None:
        """Say that this store has been given a mark just now."""
        struct.pack_into("d", self._page, self._place(alias), time.monotonic())
        self.set_had_flags(alias, True)

    def recorded_at(self, alias: str) -> float:
        """Return when it was last lit for the store, on the monotonic clock, which all processes share."""
        lit: float = self._LAYOUT.unpack_from(self._page, self._place(alias))[0]
        return lit if lit <= time.monotonic() else 0.0  # from before the machine was started again

    def set_had_flags(self, alias: str, marked: bool) -> None:
        struct.pack_into("?", self._page, self._place(alias) + 8, marked)

    def had_flags(self, alias: str) -> bool:
        """Return whether the store had marks when it was last seen."""
        return bool(self._LAYOUT.unpack_from(self._page, self._place(alias))[1])

    def _place(self, alias: str) -> int:
        return self._LAYOUT.size * ALIASES.index(alias)


@dataclass
class ProcessState:
    """One a process."""

    stores: dict[str, StoreState]
    shared_flags: SharedFlags
    journal: Journal
    routing: Routing
    switch: Switch | None = None
    """The newest recorded switch that was ever seen: stores that are out, or empty, do not make it unsaid."""
    suspect: bool = False
    """Whether Redis came back with other data than it had, and has not been compared since."""
    pending_flags: set[tuple[str, str]] = field(default_factory=set)
    """Marks that could not be set: (the store that has the turn, session)."""

    def inputs(self, session: str) -> Inputs:
        """Return what the policy needs to know for a turn of this session."""
        return Inputs(
            self.routing,
            frozenset(alias for alias, known in self.stores.items() if known.reads.allows()),
            frozenset(alias for alias, known in self.stores.items() if known.writes.allows()),
            may_have_more=frozenset(alias for alias in self.stores if self._may_have_more(alias, session)),
            recovering=self.suspect
            or any(known.reads.recovering or known.writes.recovering for known in self.stores.values()),
            unknown_flags=frozenset(
                alias
                for alias, known in self.stores.items()
                if known.marks is None and self.shared_flags.had_flags(alias)
            ),
        )

    def _may_have_more(self, alias: str, session: str) -> bool:
        """Return whether the store has marked the session, or may have since we last asked."""
        known = self.stores[alias]
        seen = known.marks and (session in known.marks.sessions or not known.marks.complete)
        return (
            bool(seen)
            or (alias, session) in self.pending_flags
            or known.marks_at < self.shared_flags.recorded_at(alias)
        )

    def remember_flags(self, alias: str, marks: Marks, asked_at: float) -> None:
        self.stores[alias].marks = marks
        self.stores[alias].marks_at = asked_at
        self.shared_flags.set_had_flags(alias, bool(marks.sessions))
        metrics.unsynced.labels(store=alias).set(len(marks.sessions))


_state: ProcessState | None = None


def state() -> ProcessState:
    """Return what this process knows."""
    global _state
    if _state is None:
        _state = ProcessState(
            {alias: StoreState(_breaker(alias), _breaker(alias, patience=2)) for alias in ALIASES},
            SharedFlags(Path(settings.VAR_DIR) / "run" / "beacon"),
            Journal(Path(settings.VAR_DIR) / "run" / "underway"),
            Routing(settings.CONV_STORE_PRIMARY, settings.CONV_DUAL_WRITE),
        )
    return _state


def forget() -> None:
    """Begin anew, knowing nothing, as a process does that has just started."""
    global _state
    if _state:
        _state.journal.close()
    _state = None
