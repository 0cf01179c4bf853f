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
from conversations.failover import Facts, Routing
from conversations.stores import ALIASES, MONGO, REDIS
from conversations.stores.base import Marks
from ops import metrics


def _breaker(alias: str) -> Breaker:
    # A call counts as slow once it takes half of what it may take at the most.
    most = {REDIS: settings.REDIS_SOCKET_TIMEOUT_MS, MONGO: settings.MONGO_TIMEOUT_MS}[alias]
    return Breaker(slow=most / 2000)


@dataclass
class StoreKnowledge:
    """What is known of one store."""

    reads: Breaker
    writes: Breaker
    marks: Marks | None = None
    marks_at: float = 0.0
    """When the marks were asked for, on the monotonic clock."""


class Beacon:
    """A page of memory that the processes of this machine share, and that outlives them.

    It says when a turn was last stored with a mark: a mark is learned from its store within a second, and
    this closes that second between neighbours. And it says which stores had marks when they were last seen:
    a process that starts while such a store is out does not take its silence for "none".
    """

    _LAYOUT = struct.Struct("d??")  # lit at, then a flag a store

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
            file.truncate(self._LAYOUT.size)
            self._page = mmap.mmap(file.fileno(), self._LAYOUT.size)

    def light(self) -> None:
        struct.pack_into("d", self._page, 0, time.monotonic())

    def lit_at(self) -> float:
        """Return when it was last lit, on the monotonic clock, which all processes share."""
        lit: float = self._LAYOUT.unpack_from(self._page)[0]
        return lit if lit <= time.monotonic() else 0.0  # from before the machine was started again

    def flag(self, alias: str, marked: bool) -> None:
        struct.pack_into("?", self._page, 8 + ALIASES.index(alias), marked)

    def flagged(self, alias: str) -> bool:
        """Return whether the store had marks when it was last seen."""
        return bool(self._LAYOUT.unpack_from(self._page)[1 + ALIASES.index(alias)])


@dataclass
class Knowledge:
    """One a process."""

    stores: dict[str, StoreKnowledge]
    beacon: Beacon
    routing: Routing
    suspect: bool = False
    """Whether Redis came back with other data than it had, and has not been compared since."""
    unmarked: set[tuple[str, str]] = field(default_factory=set)
    """Marks that could not be set: (the store that has the turn, session)."""

    def facts(self, session: str) -> Facts:
        """Return what the policy needs to know for a turn of this session."""
        marked_in = frozenset(
            alias
            for alias, known in self.stores.items()
            if (known.marks and (session in known.marks.sessions or not known.marks.complete))
            or (alias, session) in self.unmarked
        )
        lit = self.beacon.lit_at()
        stale = any(known.marks_at < lit for known in self.stores.values())
        return Facts(
            self.routing,
            frozenset(alias for alias, known in self.stores.items() if known.reads.allows()),
            frozenset(alias for alias, known in self.stores.items() if known.writes.allows()),
            unsynced=bool(marked_in) or stale or self.suspect,
            marked_in=marked_in,
            unknown_marks=frozenset(
                alias for alias, known in self.stores.items() if known.marks is None and self.beacon.flagged(alias)
            ),
        )

    def remember_marks(self, alias: str, marks: Marks, asked_at: float) -> None:
        self.stores[alias].marks = marks
        self.stores[alias].marks_at = asked_at
        self.beacon.flag(alias, bool(marks.sessions))
        metrics.unsynced.labels(store=alias).set(len(marks.sessions))


_knowledge: Knowledge | None = None


def knowledge() -> Knowledge:
    """Return what this process knows."""
    global _knowledge
    if _knowledge is None:
        _knowledge = Knowledge(
            {alias: StoreKnowledge(_breaker(alias), _breaker(alias)) for alias in ALIASES},
            Beacon(Path(settings.VAR_DIR) / "run" / "beacon"),
            Routing(settings.CONV_STORE_PRIMARY, settings.CONV_DUAL_WRITE),
        )
    return _knowledge


def forget() -> None:
    """Begin anew, knowing nothing, as a process does that has just started."""
    global _knowledge
    _knowledge = None
