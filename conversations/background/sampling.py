"""Figures that change slowly, read every ten seconds: the memory that can be full, when the newest backup was made, and
when the newest one that was verified.

The watcher runs it in a thread of its own, so that it delays no ping. A figure that cannot be read stays as it was.
"""

import logging
from contextlib import suppress
from datetime import datetime

from conversations.errors import StoreUnavailable
from conversations.runtime import gauges
from conversations.stores import ALIASES, control, info, memory_store
from conversations.stores.info import StoreInfo
from telemetry import metrics
from telemetry.logs import event

logger = logging.getLogger(__name__)

EVERY = 10.0  # seconds
NOTE = "backup"
"""The name of the note, in each store, with the time of the newest backup of both."""
VERIFIED = "backup_verified"
"""That of the note with the time of the newest backup of both that was verified."""
_TIMES = {NOTE: metrics.backup_timestamp, VERIFIED: metrics.backup_verified}

_newest = dict.fromkeys(_TIMES, 0.0)
_evicts = False


def sample() -> None:
    """Set the gauges of that memory and of backups; nothing is raised for an unavailable store."""
    _sample_memory()
    for name in _TIMES:
        _sample_backup(name)


def backups_recorded(name: str = NOTE) -> dict[str, float]:
    """Return when the newest backup of both stores was begun, with VERIFIED the newest that was verified, as each store
    that can be reached has it recorded: as Unix time, 0.0 for never."""
    recorded = {}
    for alias in ALIASES:
        with suppress(StoreUnavailable):
            recorded[alias] = _time_of(control(alias).note(name))
    return recorded


def _sample_memory() -> None:
    if not (alias := memory_store()):
        return
    with suppress(StoreUnavailable):
        found = info(alias)
        if found.memory_bytes is not None:  # an ACL may forbid INFO
            used, most = gauges.memory(alias)
            used.set(found.memory_bytes)
            most.set(found.max_memory_bytes or 0)
        _report_eviction(alias, found)


def _report_eviction(alias: str, found: StoreInfo) -> None:
    """Log once, each time that the policy becomes one by which unsynced flags can be lost."""
    global _evicts
    if found.evicts_all and not _evicts:
        event(logger, logging.WARNING, f"{alias}_evicts", policy=found.policy)
    _evicts = found.evicts_all


def _sample_backup(name: str) -> None:
    recorded = backups_recorded(name)
    newest = max(recorded.values(), default=0.0)
    # The unavailable store may be the one with the newest.
    _newest[name] = newest if len(recorded) == len(ALIASES) else max(newest, _newest[name])
    if recorded:
        _TIMES[name].set(_newest[name])


def _time_of(note: str | None) -> float:
    try:
        return datetime.fromisoformat(note or "").timestamp()
    except ValueError:  # there is no note, or another program wrote it
        return 0.0
