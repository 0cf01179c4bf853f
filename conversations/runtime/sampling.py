"""What changes slowly, asked every ten seconds: how full Redis is, and when both stores were last backed up.

The watcher gives it a thread of its own, so that it holds up no ping. What cannot be asked stays as it was last known.
"""

from contextlib import suppress
from datetime import datetime

from redis.exceptions import RedisError

from conversations.errors import StoreUnavailable
from conversations.stores import ALIASES, store
from conversations.stores.redis.client import histories
from telemetry import metrics

EVERY = 10.0  # seconds
NOTE = "backup"
"""The name under which each store has the time of the newest backup of both."""

_newest = 0.0


def sample() -> None:
    """Set the gauges of Redis' memory and of the newest backup; raise nothing for a store that does not tell."""
    _sample_memory()
    _sample_backup()


def backups_recorded() -> dict[str, float]:
    """Return when the newest backup of both stores was begun, as each store that can be reached has it recorded:
    as Unix time, 0.0 for never."""
    recorded = {}
    for alias in ALIASES:
        with suppress(StoreUnavailable):
            recorded[alias] = _time_of(store(alias).note(NOTE))
    return recorded


def _sample_memory() -> None:
    with suppress(RedisError):  # it is out, or an ACL forbids INFO
        said = histories().client.get_client(write=True).info("memory")
        if "used_memory" in said:
            metrics.redis_memory_used.set(said["used_memory"])
            metrics.redis_memory_max.set(said.get("maxmemory", 0))


def _sample_backup() -> None:
    global _newest
    recorded = backups_recorded()
    newest = max(recorded.values(), default=0.0)
    # Whoever cannot be asked may be the one who knows of it.
    _newest = newest if len(recorded) == len(ALIASES) else max(newest, _newest)
    if recorded:
        metrics.backup_timestamp.set(_newest)


def _time_of(note: str | None) -> float:
    try:
        return datetime.fromisoformat(note or "").timestamp()
    except ValueError:  # none, or not one of ours
        return 0.0
