"""The state of this process: the stores' breakers and unsynced flags, and where traffic goes.

The watcher and every call to a store update it; history reads it. Reading it never waits for a store.
"""

import mmap
import os
import struct
import threading
import time
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

from django.conf import settings

from conversations import clock
from conversations.breaker import Breaker
from conversations.datasets import Known
from conversations.policy import Inputs, Routing, Switch
from conversations.runtime import deletions
from conversations.runtime.deletions import DeletionNotes
from conversations.runtime.journal import Journal
from conversations.stores import ALIASES, store
from conversations.stores.control import Flags
from telemetry import metrics

UNSURE = 0.5  # seconds that two processes may differ in the stores' time
FOLLOWED = 3.0  # seconds after a look at the recorded switches for which its result counts


@dataclass
class StoreState:
    """The state of one store, as this process sees it."""

    reads: Breaker
    writes: Breaker
    flags: Flags | None = None
    flags_at: float = 0.0
    """When the unsynced flags were read, on the monotonic clock."""

    @property
    def recovering(self) -> bool:
        """Whether it was unavailable so recently that another machine may still skip it."""
        return self.reads.recovering or self.writes.recovering

    def may_miss_flags(self, flagged: float) -> bool:
        """Return whether a flag that was set at that time, by the stores' clock, may be missing in what was read."""
        return self.flags is not None and flagged > clock.time_of(self.flags_at) - UNSURE


class SharedFlags:
    """A page of memory that the processes of this machine share, kept in a file.

    For each store it holds the time of the last unsynced flag that a process set there. The watcher reads flags
    once a second; until then the other processes of this machine learn from here that there is one. It also holds
    whether the store had flags when it was last read, for a process that starts while the store is unavailable, and a
    digest of the dataset's identity as a process last found it: behind Sentinel another may use the old primary still.
    """

    _LAYOUT = struct.Struct("d?7x")  # for each store: time of the last flag, whether it had flags

    _TIMES = struct.Struct("d8x" * len(ALIASES) + "Q" * len(ALIASES))

    def __init__(self, path: Path) -> None:
        size = self._TIMES.size
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
            file.truncate(size)
            self._page = mmap.mmap(file.fileno(), size)

    def record(self, alias: str) -> None:
        """Record that an unsynced flag has just been set in this store."""
        struct.pack_into("d", self._page, _OFFSETS[alias], time.monotonic())
        self.set_had_flags(alias, True)

    def recorded(self) -> tuple[float, ...]:
        """Return for each store when a flag was last set there, on the monotonic clock, and the digests of the
        datasets."""
        return self._TIMES.unpack_from(self._page)

    def recorded_at(self, alias: str) -> float:
        """Return when a flag was last set in the store, on the monotonic clock, which all processes share."""
        at: float = self._LAYOUT.unpack_from(self._page, _OFFSETS[alias])[0]
        return at if at <= time.monotonic() else 0.0  # later than now: written before the machine restarted

    def record_dataset(self, alias: str, identity: str) -> None:
        """Record the identity of the store's dataset, which this process has just found."""
        struct.pack_into("Q", self._page, _DATASETS[alias], _digest(identity))

    def knows_another(self, alias: str, identity: str) -> bool:
        """Return whether a process has found another identity since this one was recorded."""
        found: int = struct.unpack_from("Q", self._page, _DATASETS[alias])[0]
        return found not in (0, _digest(identity))

    def set_had_flags(self, alias: str, had: bool) -> None:
        struct.pack_into("?", self._page, _OFFSETS[alias] + 8, had)

    def had_flags(self, alias: str) -> bool:
        """Return whether the store had unsynced flags when it was last read."""
        return bool(self._LAYOUT.unpack_from(self._page, _OFFSETS[alias])[1])


_OFFSETS = {alias: SharedFlags._LAYOUT.size * number for number, alias in enumerate(ALIASES)}
_DATASETS = {alias: SharedFlags._LAYOUT.size * len(ALIASES) + 8 * number for number, alias in enumerate(ALIASES)}


def _digest(identity: str) -> int:
    return int.from_bytes(blake2b(identity.encode(), digest_size=8).digest(), "little")


@dataclass
class ProcessState:
    """There is one in each process; see state()."""

    stores: dict[str, StoreState]
    shared_flags: SharedFlags
    journal: Journal
    deletions: DeletionNotes
    routing: Routing
    switch: Switch | None = None
    """The newest recorded switch seen so far: kept even when the stores are unavailable or empty."""
    switch_seen_at: float | None = None
    """When another switch than before was last found, on the monotonic clock."""
    followed_at: float | None = None
    """When the last look at the recorded switches began, on the monotonic clock; None where nothing looks for them."""
    known: Known = field(default_factory=Known)
    """The datasets, and what is known of their coverage."""
    pending_flags: set[tuple[str, str]] = field(default_factory=set)
    """Unsynced flags that could not be set: (the store that has the turn, session)."""
    late_flags: dict[tuple[str, str], float] = field(default_factory=dict)
    """When those are set once more whose turn may arrive late, on the monotonic clock."""
    _kept: tuple[tuple[Any, ...], Inputs] = ((), Inputs(Routing("", dual_write=False)))
    """The inputs of every turn while nothing is out, and the circumstances that they are of."""

    def inputs(self, session: str) -> Inputs:
        """Return the policy's inputs for a turn of this session. While nothing changes they are not worked out anew:
        every turn asks twice."""
        if self.pending_flags or not self.follows:
            return self._inputs(session)
        found, (circumstances, inputs) = self._circumstances(), self._kept
        if found == circumstances:
            return inputs
        before = tuple(dict(one) if isinstance(one, dict) else one for one in found)
        inputs = self._inputs(session)
        # Another thread may have changed the circumstances meanwhile.
        if self._are_for_all(inputs) and self._circumstances() == before:
            self._kept = (before, inputs)
        return inputs

    def _circumstances(self) -> tuple[Any, ...]:
        """Return all that the inputs are worked out from while nothing is out, but for what time alone changes."""
        known = self.known
        seen = [(one.flags, one.flags_at, one.reads.opened, one.writes.opened) for one in self.stores.values()]
        noted = (known.coverage, known.datasets, known.trimmed, known.cut_off, known.flagged)
        return (self.routing, seen, *noted, clock.corrected(), self.shared_flags.recorded())

    def _inputs(self, session: str) -> Inputs:
        readable, writable, more, unknown, recovering = [], [], [], [], []
        for alias, one in self.stores.items():
            if one.reads.allows():
                readable.append(alias)
            if one.writes.allows():
                writable.append(alias)
            if self._may_have_more(alias, session):
                more.append(alias)
            if self._has_unknown_flags(alias):
                unknown.append(alias)
            if one.recovering:
                recovering.append(alias)
        known = self.known
        # What a switch has changed may not be known yet: nothing is left out then, and no store is complete.
        follows = self.follows
        return Inputs(
            self.routing if follows else Routing(self.routing.primary, dual_write=True),
            frozenset(readable),
            frozenset(writable),
            may_have_more=frozenset(more),
            recovering=frozenset(recovering),
            complete=known.complete - self._elsewhere() if follows else frozenset(),
            trimmed=known.trimmed_alone(settings.CONV_TTL_SECONDS) if any(known.trimmed.values()) else frozenset(),
            cut_off=frozenset(alias for alias, names in known.cut_off.items() if names),
            unknown_flags=frozenset(unknown),
        )

    def _are_for_all(self, inputs: Inputs) -> bool:
        """Return whether nothing is out, nor was lately, and no flag of any conversation is set or unread."""
        if any(self.known.trimmed.values()) or inputs != Inputs(self.routing, complete=inputs.complete):
            return False
        return all(one.flags and one.flags.complete and not one.flags.sessions for one in self.stores.values())

    def record_dataset(self, alias: str) -> None:
        """Let the other processes of this machine know which dataset the store has, as this one has just found it."""
        if found := self.known.datasets.get(alias):
            self.shared_flags.record_dataset(alias, found.id)

    def _elsewhere(self) -> frozenset[str]:
        """Return the stores in whose place another process of this machine has found another dataset."""
        found = self.known.datasets.items()
        return frozenset(alias for alias, one in found if self.shared_flags.knows_another(alias, one.id))

    @property
    def follows(self) -> bool:
        """Return whether this process would know of a switch: it may have been stopped, or cut off from both stores."""
        return self.followed_at is None or time.monotonic() - self.followed_at < FOLLOWED

    def _has_unknown_flags(self, alias: str) -> bool:
        """Return whether the store has, or had when it was last used, flags that were not read."""
        one, flagged = self.stores[alias], self.known.flagged.get(alias, 0.0)
        had = one.flags is None and self.shared_flags.had_flags(alias)
        return had or (flagged > 0 and one.may_miss_flags(flagged))

    def flagged_at(self, alias: str) -> float:
        """Return when a process of this machine last set a flag in the store, as Unix time by the stores' clock; 0.0
        for never."""
        at = self.shared_flags.recorded_at(alias)
        return clock.time_of(at) if at > 0 else 0.0

    def _may_have_more(self, alias: str, session: str) -> bool:
        """Return whether the session has an unsynced flag in the store, or may have one set since flags were read."""
        flags = self.stores[alias].flags
        flagged = flags and (session in flags.sessions or not flags.complete)
        return bool(flagged) or (alias, session) in self.pending_flags or self._has_newer_flags(alias)

    def may_have_flags(self, alias: str) -> bool:
        """Return whether the store may have had unsynced flags when it was last used."""
        flags = self.stores[alias].flags
        return flags is None or bool(flags.sessions) or self._has_newer_flags(alias)

    def _has_newer_flags(self, alias: str) -> bool:
        return self.stores[alias].flags_at < self.shared_flags.recorded_at(alias)

    def remember_flags(self, alias: str, flags: Flags, read_at: float) -> None:
        """Keep the flags that were read from the store; `read_at` is when the reading began."""
        self.stores[alias].flags = flags
        self.stores[alias].flags_at = read_at
        self.shared_flags.set_had_flags(alias, bool(flags.sessions))
        metrics.unsynced.labels(store=alias).set(flags.number)


_state: ProcessState | None = None


def state() -> ProcessState:
    """Return the state of this process; every thread gets the same one."""
    global _state
    if _state is None:
        with _making:
            if _state is None:
                _state = _make()
    return _state


_making = threading.Lock()


def _make() -> ProcessState:
    return ProcessState(
        {alias: StoreState(*store(alias).renew_breakers()) for alias in ALIASES},
        SharedFlags(Path(settings.VAR_DIR) / "run" / "beacon"),
        Journal(Path(settings.VAR_DIR) / "run" / "underway"),
        DeletionNotes(deletions.folder()),
        Routing(settings.CONV_STORE_PRIMARY, settings.CONV_DUAL_WRITE),
    )


def forget() -> None:
    """Discard the state, as if this process had just started."""
    global _state
    if _state:
        _state.journal.close()
    _state = None
