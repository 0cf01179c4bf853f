"""The service's own metrics, with the runbook's names where it has them; labels come from closed sets.

All are exported from the first scrape, at zero, so that an alert can distinguish "none" from "not scraped".
"""

import os
import threading
from bisect import bisect_left
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, Self

import prometheus_client
from prometheus_client import disable_created_metrics, multiprocess
from prometheus_client.metrics import MetricWrapperBase

from telemetry import values

disable_created_metrics()  # type: ignore[no-untyped-call]
values.use()

Mode = Literal["livemostrecent", "mostrecent"]
OPERATIONS = ("load", "inspect", "append", "keep_keys", "delete", "set_aside", "settle")


class _Labelled(MetricWrapperBase):
    """Remembers the series of each call's labels: the library takes longer to find it than to count in it."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._series: dict[tuple[tuple[str, object], ...], Self] = {}
        super().__init__(*arguments, **options)

    def labels(self, **labels: object) -> Self:  # type: ignore[override]  # by name only, as all calls here do
        key = tuple(labels.items())
        found = self._series.get(key)
        if found is None:
            found = self._series[key] = super().labels(**labels)
        return found


class Counter(_Labelled, prometheus_client.Counter):
    """A counter of ours, without the library's checks: it is never given less than 0, nor an exemplar."""

    def inc(self, amount: float = 1) -> None:  # type: ignore[override]
        self._value.inc(amount)


class Gauge(_Labelled, prometheus_client.Gauge):
    """A gauge of ours."""


class Histogram(_Labelled, prometheus_client.Histogram):
    """A histogram of ours, without the library's checks: it is given numbers, and no exemplars."""

    def observe(self, amount: float) -> None:  # type: ignore[override]
        self._sum.inc(amount)
        self._buckets[bisect_left(self._upper_bounds, amount)].inc(1)


backup_timestamp = Gauge(
    "onesource_backup_timestamp_seconds",
    "When the newest backup of both stores began, as Unix time; 0 when none is recorded.",
    multiprocess_mode="mostrecent",
)
backup_verified = Gauge(
    "onesource_backup_verified_timestamp_seconds",
    "When the newest backup of both stores that was verified began, as Unix time; 0 when none is recorded.",
    multiprocess_mode="mostrecent",
)
persist_errors = Counter("history_persist_errors", "Turns that a store did not take.", ["store"])
persist_attempts = Counter("history_persist_attempts", "Attempts to write a turn to a store.", ["store"])
not_persisted = Counter("history_not_persisted", "Turns that no store took or has confirmed.")
msg_count_before = Histogram(
    "msg_count_before",
    "Messages in context before a turn.",
    buckets=(0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 1024, 2048),
)
expected_context = Counter("context_expected", "Turns whose client sent a last_message_id.")
missing_context = Counter("context_missing", "Turns answered without what the client may have been given.")
reads = Counter("history_reads", "Conversations read, by store and outcome.", ["store", "outcome"])
corrupt = Counter(
    "history_corrupt",
    "Stored values that were no history and were quarantined, or no tombstone and were ignored.",
    ["store"],
)
unsynced = Gauge(
    "unsynced_conversations",
    "Conversations with turns that are missing in the other store, by the store that has them.",
    ["store"],
    multiprocess_mode="livemostrecent",
)
repaired = Counter("healed_conversations", "Conversations that were repaired.")
repair_errors = Counter(
    "repair_errors", "Repairs of one conversation that failed; it waits up to a minute and is tried again."
)
out_of_step = Counter(
    "out_of_step_conversations",
    "Conversations that the scrub found with turns or a deletion missing in the store, and without an unsynced flag.",
    ["store"],
)
clock_offset = Gauge(
    "clock_offset_seconds",
    "How far the stores' clock is ahead of this machine's; it is corrected by that.",
    multiprocess_mode="livemostrecent",
)
clocks_off = Counter("clock_off", "Times that a process found its machine's clock more than a second off.")
dataset_changes = Counter(
    "dataset_changes",
    "Stores that came back new, restarted, wiped or rolled back, and were given a new identity.",
    ["store", "reason"],
)
coverage_missing = Gauge(
    "coverage_missing",
    "Whether the store should have every turn and is not known to hold all that came before (0 or 1).",
    ["store"],
    multiprocess_mode="livemostrecent",
)
cut_off = Gauge(
    "processes_cut_off",
    "Processes that stopped reaching the store without removing their heartbeat.",
    ["store"],
    multiprocess_mode="livemostrecent",
)
breaker_open = Gauge(
    "breaker_open",
    "Whether the breaker of a store is open (0 or 1); the highest of all processes.",
    ["store", "kind"],
    multiprocess_mode="livemax",
)
store_recovering = Gauge(
    "store_recovering",
    "Whether a store was out in the last eight seconds (0 or 1); the highest of all processes.",
    ["store"],
    multiprocess_mode="livemax",
)
switches = Counter("switches", "Changes of primary or dual write that a process has followed.")
store_errors = Counter("store_errors", "Calls to a store that failed.", ["store", "operation"])
store_seconds = Histogram(
    "store_duration_seconds",
    "Duration of calls to a store.",
    ["store", "operation"],
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0),
)
answer_seconds = Histogram(
    "answer_duration_seconds",
    "Duration of answers.",
    buckets=(0.001, 0.01, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 60),
)
llm_tokens = Counter(
    "llm_tokens", "Tokens that the model's service counted: in what it was sent, and in its answers.", ["direction"]
)
tokens_refused = Counter("tokens_refused", "Requests whose token was refused, by reason.", ["reason"])
issuer_fetches = Counter("issuer_fetches", "Fetches of the keys of OIDC_ISSUER, by outcome.", ["outcome"])
login_failures = Counter("login_failures", "Logins to the admin that failed, by outcome.", ["outcome"])
requests_limited = Counter(
    "requests_limited", "Requests that were refused because their client was over a limit.", ["limit"]
)
tenants_full = Gauge("tenants_full", "Tenants that have reached TENANT_MAX_BYTES.", multiprocess_mode="livemostrecent")
tenants_near = Gauge(
    "tenants_near_full",
    "Tenants that have at least 80 % of TENANT_MAX_BYTES, with those that have all of it.",
    multiprocess_mode="livemostrecent",
)
rate_fallbacks = Counter(
    "rate_fallbacks", "Requests whose rate their process judged alone: what all processes count could not be asked."
)
turns = Counter("turns", "Questions by outcome.", ["outcome"])
responses = Counter("django_http_responses_total_by_status", "Responses by status.", ["status"])
request_seconds = Histogram(
    "django_http_requests_latency_including_middlewares_seconds",
    "Duration of requests; of a streamed answer, until it begins.",
    buckets=(0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 25, 50, 75),
)
DATASET_REASONS = ("new", "restarted", "wiped", "rolled_back")
TOKEN_DIRECTIONS = ("in", "out")
TOKEN_REFUSALS = ("invalid", "unknown_key", "expired", "revoked", "scope")
ISSUER_FETCHES = ("fetched", "failed")
LIMITS = ("rate", "concurrent", "tenant")
LOGIN_OUTCOMES = ("failed", "locked_out", "refused")
TURN_OUTCOMES = ("answered", "replayed", "not_persisted", "outcome_unknown", "answerer_failed")


of_stores: dict[str, Gauge] = {}
"""The gauges that are named after a store, as the runbook has them: each is made when it is first asked for."""
_making = threading.Lock()


def up(store: str, label: str) -> Gauge:
    return _of_store(f"{store}_up", f"Whether {label} answers (0 or 1).", "livemostrecent")


def latency_p95_ms(store: str, label: str) -> Gauge:
    text = f"95th percentile of the last minute's pings of {label}, in milliseconds."
    return _of_store(f"{store}_latency_p95_ms", text, "livemostrecent")


# Not `live`: the figure of a process stays true after the process has ended.
def memory_used(store: str, label: str) -> Gauge:
    return _of_store(f"{store}_memory_used_bytes", f"Memory that {label} uses, in bytes.", "mostrecent")


def memory_max(store: str, owner: str) -> Gauge:
    text = f"{owner} maxmemory, in bytes; 0 where it has none."
    return _of_store(f"{store}_memory_max_bytes", text, "mostrecent")


def _of_store(name: str, text: str, mode: Mode) -> Gauge:
    with _making:  # a second one of the same name is an error
        if name not in of_stores:
            of_stores[name] = Gauge(name, text, multiprocess_mode=mode)
        return of_stores[name]


def start(stores: Iterable[str], named: Iterable[Gauge]) -> None:
    """Create every series of these stores, so that the first scrape has it, with the gauges named after them; drop the
    live gauges of ended processes."""
    _drop_ended()
    for gauge in (*named, backup_timestamp, backup_verified, clock_offset, tenants_full, tenants_near):
        _begin(gauge)
    for name in stores:
        persist_errors.labels(store=name)
        persist_attempts.labels(store=name)
        corrupt.labels(store=name)
        out_of_step.labels(store=name)
        for gauge in (unsynced, coverage_missing, cut_off):
            _begin(gauge.labels(store=name))
        for reason in DATASET_REASONS:
            dataset_changes.labels(store=name, reason=reason)
        for kind in ("reads", "writes"):
            breaker_open.labels(store=name, kind=kind)
        store_recovering.labels(store=name)
        for outcome in ("hit", "miss", "rescue"):
            reads.labels(store=name, outcome=outcome)
        for operation in OPERATIONS:
            store_errors.labels(store=name, operation=operation)
            store_seconds.labels(store=name, operation=operation)
    for outcome in TURN_OUTCOMES:
        turns.labels(outcome=outcome)
    for reason in TOKEN_REFUSALS:
        tokens_refused.labels(reason=reason)
    for limit in LIMITS:
        requests_limited.labels(limit=limit)
    for outcome in ISSUER_FETCHES:
        issuer_fetches.labels(outcome=outcome)
    for outcome in LOGIN_OUTCOMES:
        login_failures.labels(outcome=outcome)
    for direction in TOKEN_DIRECTIONS:
        llm_tokens.labels(direction=direction)


def _begin(gauge: Gauge) -> None:
    """Set the gauge to zero with an old timestamp: the newest value of all processes is exported, and a gauge that
    no process has set would be missing."""
    gauge._value.set(0.0, timestamp=1.0)


def _drop_ended() -> None:
    """Drop the live gauges of ended processes: the server replaces a killed worker, and a breaker that was open in it
    would stay open for ever."""
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    for file in Path(folder).glob("gauge_live*_*.db") if folder else ():
        pid = int(file.stem.rpartition("_")[2])
        with suppress(PermissionError):  # it runs, as another user
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]
