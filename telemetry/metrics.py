"""Every metric of our own, by the runbook's names where it names them; labels come from closed sets.

All are there from the first scrape, at zero, so that an alert can tell "none" from "not scraped".
"""

import os
from contextlib import suppress
from pathlib import Path

from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics, multiprocess

disable_created_metrics()  # type: ignore[no-untyped-call]

STORES = ("redis", "mongo")
OPERATIONS = ("load", "inspect", "append", "delete", "set_aside", "settle")

redis_up = Gauge("redis_up", "Whether Redis answers (0 or 1).", multiprocess_mode="livemostrecent")
mongo_up = Gauge("mongo_up", "Whether MongoDB answers (0 or 1).", multiprocess_mode="livemostrecent")
redis_latency_p95_ms = Gauge(
    "redis_latency_p95_ms",
    "95th percentile of the last minute's pings of Redis, in milliseconds.",
    multiprocess_mode="livemostrecent",
)
# Not `live`: what a process has seen of them stays true when it is gone.
redis_memory_used = Gauge(
    "redis_memory_used_bytes", "Memory that Redis uses, in bytes.", multiprocess_mode="mostrecent"
)  # fmt: skip
redis_memory_max = Gauge(
    "redis_memory_max_bytes", "Redis' maxmemory, in bytes; 0 where it has none.", multiprocess_mode="mostrecent"
)
backup_timestamp = Gauge(
    "onesource_backup_timestamp_seconds",
    "When the newest backup of both stores was begun, as Unix time; 0 when none is known.",
    multiprocess_mode="mostrecent",
)
persist_errors = Counter("history_persist_errors", "Turns that a store did not take.", ["store"])
persist_attempts = Counter("history_persist_attempts", "Turns that were offered to a store.", ["store"])
not_persisted = Counter("history_not_persisted", "Turns that no store took.")
msg_count_before = Histogram(
    "msg_count_before",
    "Messages in context before a turn.",
    buckets=(0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 1024, 2048),
)
expected_context = Counter("context_expected", "Turns whose client said that it has been answered before.")
missing_context = Counter("context_missing", "Of those, the ones answered without what the client was last given.")
reads = Counter("history_reads", "Conversations read, by the store and by what it knew.", ["store", "outcome"])
corrupt = Counter(
    "history_corrupt", "Stored values that were no history, and set aside, or no tombstone, and ignored.", ["store"]
)
unsynced = Gauge(
    "unsynced_conversations",
    "Conversations with turns that the other store should have and lacks, by the store that has them.",
    ["store"],
    multiprocess_mode="livemostrecent",
)
healed = Counter("healed_conversations", "Conversations that were brought together again.")
breaker_open = Gauge(
    "breaker_open",
    "Whether calls of a store are held back (0 or 1); of several processes the highest.",
    ["store", "kind"],
    multiprocess_mode="livemax",
)
switches = Counter("switches", "Changes of primary or dual write that a process has followed.")
store_errors = Counter("store_errors", "Calls of a store that failed.", ["store", "operation"])
store_seconds = Histogram(
    "store_duration_seconds",
    "How long a store took.",
    ["store", "operation"],
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0),
)
answer_seconds = Histogram(
    "answer_duration_seconds",
    "How long the answerer took.",
    buckets=(0.001, 0.01, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 60),
)
turns = Counter("turns", "Questions by how they ended.", ["outcome"])
TURN_OUTCOMES = ("answered", "replayed", "not_persisted", "answerer_failed")


def start() -> None:
    """Make every series of a closed set, so that the first scrape has it; forget what the dead have left."""
    _bury()
    for gauge in (redis_up, mongo_up, redis_latency_p95_ms, redis_memory_used, redis_memory_max, backup_timestamp):
        _begin(gauge)
    for name in STORES:
        persist_errors.labels(store=name)
        persist_attempts.labels(store=name)
        corrupt.labels(store=name)
        _begin(unsynced.labels(store=name))
        for kind in ("reads", "writes"):
            breaker_open.labels(store=name, kind=kind)
        for outcome in ("hit", "miss", "rescue"):
            reads.labels(store=name, outcome=outcome)
        for operation in OPERATIONS:
            store_errors.labels(store=name, operation=operation)
            store_seconds.labels(store=name, operation=operation)
    for outcome in TURN_OUTCOMES:
        turns.labels(outcome=outcome)


def _begin(gauge: Gauge) -> None:
    """Give the gauge its zero, older than whatever another process has seen: of several processes the newest
    value counts, and one that nobody has set is left out."""
    gauge._value.set(0.0, timestamp=1.0)


def _bury() -> None:
    """Drop the live gauges of processes that are gone: the server replaces a worker that was killed, and a breaker
    that was open in it would be open for ever."""
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    for file in Path(folder).glob("gauge_live*_*.db") if folder else ():
        pid = int(file.stem.rpartition("_")[2])
        with suppress(PermissionError):  # somebody else's, and there
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]
