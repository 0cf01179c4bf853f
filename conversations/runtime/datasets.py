"""What this process knows of the two datasets: their identities and epochs, who else is there, coverage and scrubs.

Once a second the watcher compares what each store reports with the newest that anyone saw: this process, its machine,
and the other store, where it is noted. A read does the same after a new connection, before its answer is used. A store
that has restarted, was emptied or is older than it was is given a new identity: coverage ends with the old one, every
read merges both stores, and a sweep compares everything.
"""

import logging
import os
import socket
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson
from django.conf import settings

from conversations import clock, datasets, expiry
from conversations.datasets import Coverage, Dataset, Known, Scrubbed, Verdict
from conversations.errors import StoreUnavailable
from conversations.ids import MESSAGE_ID
from conversations.runtime.state import UNSURE, state
from conversations.stores import ALIASES, control, limits, other, write_note
from conversations.stores.control import Report
from telemetry import metrics
from telemetry.logs import event

logger = logging.getLogger(__name__)

PROCESS = f"{socket.gethostname()}:{os.getpid()}"
MOST_AHEAD = 60.0  # seconds that a noted time may be ahead: a later one was written with a clock that was wrong
COVERAGE = "coverage"
"""The name of the note, in each store, with the newest coverage."""
LATEST_EXPIRY = "latest_expiry"
"""The name of the note, in each store, with the time until which any copy of a conversation can live."""
_LITTLE = 60.0  # seconds by which noted times may differ
SCRUBBED, SCRUBBING = "scrubbed", "scrubbing"
"""The names of the notes, in each store, with the last scrub that has ended, and with the last one under way."""


def machine_of(process: str) -> str:
    """Return the machine, or the pod, of a process."""
    return process.rpartition(":")[0]


def noted_as(alias: str) -> str:
    """Return the name of the note with the newest dataset of a store, which is kept in the other one."""
    return f"dataset:{alias}"


def flagged_as(alias: str) -> str:
    """Return the name of the note, in the other store, with the time when an unsynced flag was last set in this one."""
    return f"flagged:{alias}"


def trimmed_as(alias: str) -> str:
    """Return the name of the note, in each store, with the last id of what was removed from this one alone."""
    return f"trimmed:{alias}"


def last_id_in(note: str | None) -> str:
    """Return the id that is noted, "" for none."""
    return note if note and MESSAGE_ID.fullmatch(note) else ""  # another program may have written it


def compare(known: Known, alias: str, *, beat: bool = False) -> Report:
    """Compare what the store reports with what was noted of it, and give it a new identity where that differs; return
    the report. With `beat` this process leaves its heartbeat, which counts the epoch up. Raise StoreUnavailable."""
    one = control(alias)
    connections = one.connections
    before = _seen(known, alias)  # before the report: what is counted up meanwhile would make it an old one
    report, known.offsets[alias] = ask(alias)
    verdict = datasets.judge(report.dataset, report.instance, before)
    dataset = report.dataset if verdict is Verdict.SAME else _renew(alias, report, _seen(known, alias), verdict)
    if dataset is None:  # another process has renewed it since the report
        return compare(known, alias, beat=beat)
    survives = _take_over(known, alias, dataset, report)
    if survives and verdict is not Verdict.SAME:
        record(known.coverage)
    if beat and (epoch := one.beat(PROCESS, dataset)):
        _take_over(known, alias, replace(dataset, epoch=epoch), report)
    known.connections[alias] = connections
    known.expiry[alias] = _expiry(report)
    known.cut_off[alias] = cut_off(report)
    _learn(known, report, alias)
    return report


def ask(alias: str) -> tuple[Report, float]:
    """Return the store's report with what is noted there, and how many seconds its clock is ahead of the monotonic one,
    which nobody sets meanwhile; know from now on until when copies can live. Raise StoreUnavailable."""
    asked = time.monotonic()
    noted = (noted_as(other(alias)), flagged_as(other(alias)), *map(trimmed_as, ALIASES))
    report = control(alias).report((*noted, COVERAGE, LATEST_EXPIRY, SCRUBBED, SCRUBBING))
    expiry.learn(_expiry(report))
    return report, report.time - (asked + time.monotonic()) / 2


def learn() -> None:
    """Know until when copies can live, as the stores that can be reached have it noted, and correct the clock by
    theirs: for a process without a watcher, before it changes anything."""
    offsets = {}
    for alias in ALIASES:
        with suppress(StoreUnavailable):
            _, offsets[alias] = ask(alias)
    clock.correct(offsets, ALIASES)


def noted(reports: Iterable[Report]) -> Known:
    """Return what the notes in the stores tell: to a process that only looks."""
    known = Known()
    for report in reports:
        _learn(known, report)
    return known


def cut_off(report: Report) -> frozenset[str]:
    """Return the processes that have stopped reaching the store without removing their heartbeat, and may still run."""
    stale = datasets.cut_off(report.heartbeats, PROCESS)
    return frozenset(name for name in stale if not _has_ended(name))


def remove_heartbeats() -> None:
    """Remove this process' heartbeat from the stores that can be reached: it has ended, and is not cut off."""
    for alias in ALIASES:
        with suppress(StoreUnavailable):
            control(alias).remove_heartbeat(PROCESS)


def _has_ended(name: str) -> bool:
    """Return whether it was a process of this machine that runs no more: the journal here has what it was writing."""
    host, _, pid = name.rpartition(":")
    if host != socket.gethostname() or not pid.isdecimal():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        pass
    return False


def verify(known: Known, alias: str) -> bool:
    """Compare the store again if a connection was made since: a server that started again answers over new ones only.
    Return whether that was so. Raise StoreUnavailable."""
    if known.connections.get(alias) == control(alias).connections:
        return False
    compare(known, alias)
    state().record_dataset(alias)
    return True


def note_flags(known: Known, alias: str, at: float) -> None:
    """Note in the other store that an unsynced flag was set in this one, at this time by the stores' clock: where this
    one goes out, no other machine can read the flag. Raise StoreUnavailable."""
    if at > known.flagged.get(alias, 0.0) + UNSURE:
        control(other(alias)).write_note(flagged_as(alias), str(at))
        known.flagged[alias] = at


def note_expiry(known: Known, alias: str) -> None:
    """Note in the store until when copies can live, where that is later than what it has noted. Two processes may write
    at once; where the earlier time stays, any that knows the later one writes it in the next second. Raise
    StoreUnavailable."""
    latest = expiry.latest(limits().ttl)
    if latest > known.expiry.get(alias, 0.0) + _LITTLE:
        control(alias).write_note(LATEST_EXPIRY, str(latest))
        known.expiry[alias] = latest


def note_elsewhere(known: Known, up: list[str]) -> None:
    """Note the datasets in the other store and on this machine. Raise StoreUnavailable."""
    for alias, dataset in known.datasets.items():
        if other(alias) in up and alias in up:
            control(other(alias)).write_note(noted_as(alias), orjson.dumps(dataset).decode())
    _note_on_this_machine(known)


def record(coverage: Coverage) -> None:
    """Write coverage to every store that can be reached; the newest counts."""
    write_note(COVERAGE, orjson.dumps(coverage).decode())


def record_scrub(name: str, scrubbed: Scrubbed) -> None:
    """Write it to every store that can be reached, as the note of that name; the newest counts."""
    write_note(name, orjson.dumps(scrubbed).decode())


def _renew(alias: str, report: Report, before: list[Dataset], verdict: Verdict) -> Dataset | None:
    """Give the store a new identity and return it, None where another process has done so."""
    epoch = max((one.epoch for one in (*before, *filter(None, [report.dataset]))), default=0) + 1
    dataset = Dataset(uuid4().hex, epoch, report.instance)
    if not control(alias).identify(dataset, report.dataset):
        return None
    metrics.dataset_changes.labels(store=alias, reason=verdict.value).inc()
    level = logging.INFO if verdict is Verdict.NEW else logging.WARNING
    event(logger, level, "dataset_changed", store=alias, reason=verdict.value, epoch=epoch)
    return dataset


def _take_over(known: Known, alias: str, dataset: Dataset, report: Report) -> bool:
    """Know the store's dataset from now on, unless a newer one is known. A new identity takes over at once the coverage
    that is left of the one before, though the process that gave it may not have recorded that yet: other threads go
    on answering. Return whether coverage was left."""
    before = known.datasets.get(alias)
    if before and dataset.epoch < before.epoch:
        return False
    ids = {**known.datasets, alias: dataset}
    recorded = _newest_coverage(known, report)
    left = _left(known, alias, dataset) if before and before.id != dataset.id and not recorded.holds(ids) else None
    with datasets.changing:
        known.take_newer(_noted_datasets(report))
        known.datasets[alias] = dataset
        known.learn(left or recorded, alias)
    return left is not None


def _left(known: Known, alias: str, dataset: Dataset) -> Coverage | None:
    """Return the coverage that is left under the new identity, None where it ends."""
    if not known.complete or state().may_have_flags(alias):
        return None
    return known.coverage.survives(alias, dataset, clock.timestamp())


def _seen(known: Known, alias: str) -> list[Dataset]:
    """Return what was seen of the store's dataset, by this process or another one of this machine."""
    return [*_known_of(known, alias), *_on_this_machine(alias)]


def _known_of(known: Known, alias: str) -> list[Dataset]:
    return [known.datasets[alias]] if alias in known.datasets else []


def _learn(known: Known, report: Report, asked: str = "") -> None:
    """Take over what is noted in a store: of the other store's dataset and flags, and the newest coverage. The store
    that was `asked` has told of its own dataset."""
    for alias in ALIASES:
        known.flagged[alias] = max(known.flagged.get(alias, 0.0), _time(report.notes.get(flagged_as(alias))))
        trimmed = last_id_in(report.notes.get(trimmed_as(alias)))
        known.trimmed[alias] = max(known.trimmed.get(alias, ""), trimmed)
    with datasets.changing:
        known.take_newer(_noted_datasets(report))
        known.learn(_newest_coverage(known, report), asked)
    known.scrubbed = _newer(known.scrubbed, report.notes.get(SCRUBBED))
    known.scrubbing = _newer(known.scrubbing, report.notes.get(SCRUBBING))


def _noted_datasets(report: Report) -> dict[str, Dataset]:
    found = {alias: _parsed(report.notes.get(noted_as(alias))) for alias in ALIASES}
    return {alias: dataset for alias, dataset in found.items() if dataset}


def _newest_coverage(known: Known, report: Report) -> Coverage:
    """Return the newest record, known or noted, leaving out one that was noted with a clock that was wrong."""
    noted, latest = _coverage(report.notes.get(COVERAGE)), clock.timestamp() + MOST_AHEAD
    possible = noted and noted.since < latest and noted.at < latest
    return datasets.newest_coverage([known.coverage, noted if possible else None])


def _newer(known: Scrubbed, text: str | None) -> Scrubbed:
    """Return what is noted, if it is newer than what is known."""
    try:
        fields = orjson.loads(text or "")
        noted = Scrubbed(float(fields["at"]), int(fields["compared"]), int(fields["out_of_step"]))
    except (ValueError, TypeError, KeyError):  # there is none, or another program wrote it
        return known
    return noted if known.at < noted.at < clock.timestamp() + MOST_AHEAD else known


def _time(text: str | None) -> float:
    try:
        at = float(text or 0.0)
    except ValueError:  # another program wrote it
        return 0.0
    return at if at < clock.timestamp() + MOST_AHEAD else 0.0


def _expiry(report: Report) -> float:
    """Return until when copies can live, as a store has it noted; 0.0 for not, or for longer than can be."""
    try:
        latest = float(report.notes.get(LATEST_EXPIRY) or 0.0)
    except ValueError:  # another program wrote it
        return 0.0
    return latest if 0.0 < latest < report.time + max(expiry.MOST, limits().ttl) + 2 * expiry.MARGIN else 0.0


def _parsed(text: str | None) -> Dataset | None:
    try:
        fields = orjson.loads(text or "")
        return Dataset(str(fields["id"]), int(fields["epoch"]), str(fields["instance"]))
    except (ValueError, TypeError, KeyError):  # there is none, or another program wrote it
        return None


def _coverage(text: str | None) -> Coverage | None:
    try:
        fields = orjson.loads(text or "")
        return Coverage(
            {str(alias): str(dataset) for alias, dataset in fields["datasets"].items()},
            tuple(alias for alias in fields["complete"] if alias in ALIASES),
            float(fields["since"]),
            float(fields["at"]),
            {str(alias): int(epoch) for alias, epoch in fields.get("epochs", {}).items()},  # an older version has none
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


# --- On this machine -------------------------------------------------------------------------------------


def _file() -> Path:
    return Path(settings.VAR_DIR) / "run" / "datasets"


def _on_this_machine(alias: str) -> list[Dataset]:
    try:
        noted: dict[str, Any] = orjson.loads(_file().read_bytes())
        found = _parsed(orjson.dumps(noted[alias]).decode())
    except (OSError, ValueError, TypeError, KeyError):
        return []
    return [found] if found else []


def _note_on_this_machine(known: Known) -> None:
    draft = _file().with_name(f"datasets.{os.getpid()}")
    try:
        draft.write_bytes(orjson.dumps(known.datasets))
        draft.replace(_file())
    except OSError as error:  # a full disk must not stop the watcher: the other store has the note too
        event(logger, logging.ERROR, "datasets_not_noted", error=type(error).__name__)
