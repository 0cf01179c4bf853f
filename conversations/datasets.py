"""What a store holds now is its dataset, known by an identity and an epoch; decisions about it, without I/O.

A store that comes back empty, older or as another server would answer with turns missing, and nothing in the turns
themselves shows that. So each store carries an identity and an epoch, which the watchers count up, and the newest
that anybody saw is noted elsewhere: in the other store, on the machine, and in each process.
"""

import threading
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from conversations import expiry

STALE = 5.0  # seconds without a heartbeat after which a process may have been cut off
SILENT = 3600.0  # seconds after which it is taken for ended


changing = threading.Lock()
"""Held while a dataset changes together with the coverage, which would not be of the same one in between."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """What a store holds, for as long as it can be trusted to hold all that it acknowledged."""

    id: str
    epoch: int
    """Grows with every heartbeat, and over every change of the id."""
    instance: str = ""
    """Changes when the server starts again or another one takes its place; "" where the server does not tell."""


class Verdict(StrEnum):
    """What a comparison with what was noted elsewhere finds."""

    SAME = "same"
    NEW = "new"
    RESTARTED = "restarted"
    """The server started again: it may have lost what it had not yet put on disk."""
    WIPED = "wiped"
    ROLLED_BACK = "rolled_back"


def judge(found: Dataset | None, instance: str, noted: Iterable[Dataset]) -> Verdict:
    """Return what became of a store: `found` is what it has now, None where it has no identity, `instance` its
    server's, and `noted` what was seen of it before, by anyone."""
    newest = max(noted, key=lambda one: one.epoch, default=None)
    if found is None:
        return Verdict.WIPED if newest else Verdict.NEW
    if newest and found.epoch < newest.epoch:
        return Verdict.ROLLED_BACK
    # The instance is written with the id, so that one process finds a restart out for all.
    return Verdict.SAME if found.instance == instance else Verdict.RESTARTED


@dataclass(frozen=True, slots=True)
class Coverage:
    """Which stores hold every conversation, or have a flag for what they are missing; the newest record counts."""

    datasets: Mapping[str, str] = field(default_factory=dict)
    """The id of each store's dataset that it is of: coverage ends with either."""
    complete: tuple[str, ...] = ()
    since: float = 0.0
    """When the comparison began, as Unix time by the stores' clock."""
    at: float = 0.0
    """When it was recorded."""
    epochs: Mapping[str, int] = field(default_factory=dict)
    """An epoch that each of these datasets had."""

    def holds(self, known: Mapping[str, Dataset]) -> frozenset[str]:
        """Return the stores that are complete, if their datasets are still those that were compared."""
        same = self.datasets == {alias: dataset.id for alias, dataset in known.items()}
        return frozenset(self.complete) if same else frozenset()

    def survives(self, renewed: str, dataset: Dataset, now: float) -> "Coverage":
        """Return what is left when a store has a new dataset and had no unsynced flags before: the other one is
        missing nothing that was in it. Else the flags may be lost, and with them all coverage."""
        rest = self.only([alias for alias in self.complete if alias != renewed], now)
        ids, epochs = {**self.datasets, renewed: dataset.id}, {**self.epochs, renewed: dataset.epoch}
        return replace(rest, datasets=ids, epochs=epochs)

    def dated(self) -> dict[str, Dataset]:
        """Return its datasets, those whose epochs it has: an older version records none."""
        return {
            alias: Dataset(self.datasets[alias], self.epochs[alias]) for alias in self.datasets.keys() & self.epochs
        }

    def only(self, aliases: Collection[str], now: float) -> "Coverage":
        """Return a newer record, in which no other store than these is complete."""
        left = tuple(alias for alias in self.complete if alias in aliases)
        return replace(self, complete=left, at=max(now, self.at + 0.001))


@dataclass(frozen=True, slots=True)
class Scrubbed:
    """How far a scrub came; the newest record counts."""

    at: float = 0.0
    """When it ended, or was last under way, as Unix time by the stores' clock."""
    compared: int = 0
    """Conversations."""
    out_of_step: int = 0


@dataclass
class Known:
    """What a process knows of the datasets; a part of its state."""

    datasets: dict[str, Dataset] = field(default_factory=dict)
    """As last compared; kept while a store is out."""
    coverage: Coverage = field(default_factory=Coverage)
    connections: dict[str, int] = field(default_factory=dict)
    """How many connections had been made to each store when it was last compared."""
    offsets: dict[str, float] = field(default_factory=dict)
    """How many seconds each store's clock is ahead of the monotonic one."""
    flagged: dict[str, float] = field(default_factory=dict)
    """For each store when an unsynced flag was last set there, by any process, as the other store has it noted: Unix
    time by the stores' clock."""
    trimmed: dict[str, str] = field(default_factory=dict)
    """For each store the last id of what was removed from it alone, to make room: the other may have it still."""
    expiry: dict[str, float] = field(default_factory=dict)
    """For each store until when copies can live, as it has that noted."""
    scrubbed: Scrubbed = field(default_factory=Scrubbed)
    """The last scrub that has ended, by any process."""
    scrubbing: Scrubbed = field(default_factory=Scrubbed)
    """The last one that was under way."""
    cut_off: dict[str, frozenset[str]] = field(default_factory=dict)
    """For each store the processes whose heartbeats there have gone stale."""

    @property
    def complete(self) -> frozenset[str]:
        """The stores that hold every conversation, or have a flag for what they are missing."""
        with changing:
            return self.coverage.holds(self.datasets)

    def learn(self, coverage: Coverage, asked: str = "") -> None:
        """Know the coverage, and at once the datasets that it is of: a process which cannot ask a store that has a new
        one learns of it here, while the note of that dataset may not be written yet. But the store that was `asked`
        has told what it has. To be called with `changing` held."""
        self.coverage = coverage
        self.take_newer({alias: one for alias, one in coverage.dated().items() if alias != asked})

    def take_newer(self, found: Mapping[str, Dataset]) -> None:
        """Know these datasets from now on where they are newer. To be called with `changing` held."""
        for alias, one in found.items():
            if alias not in self.datasets or self.datasets[alias].epoch < one.epoch:
                self.datasets[alias] = one

    def trimmed_alone(self, ttl: int) -> frozenset[str]:
        """Return the stores from which conversations were removed that the other may still have."""
        return frozenset(alias for alias, last_id in self.trimmed.items() if expiry.can_live(last_id, ttl))


def newest_coverage(found: Iterable[Coverage | None]) -> Coverage:
    """Return the record that counts; an empty one where there is none."""
    return max(filter(None, found), key=lambda one: one.at, default=Coverage())


def cut_off(heartbeats: Mapping[str, float], me: str) -> frozenset[str]:
    """Return the processes that have gone without removing their heartbeat: what they store elsewhere cannot be known
    here. `heartbeats` has for each the seconds since its last one."""
    return frozenset(name for name, age in heartbeats.items() if name != me and STALE < age < SILENT)
