"""Metrics of several worker processes, which share one folder: none is missing, none is left of ended workers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings as ours
from prometheus_client.parser import text_string_to_metric_families

START = "import django; django.setup(); from conversations.runtime import gauges; gauges.start()"
SCRAPE = "import django.test as t; print(t.Client(SERVER_NAME='localhost').get('/metrics').text)"


def worker(folder: Path, *lines: str) -> str:
    """Run a process that counts in the folder; return what it printed."""
    return subprocess.run(
        [sys.executable, "-c", "; ".join((START, *lines))],
        cwd=ours.BASE_DIR,
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def values(page: str, name: str) -> list[float]:
    """Return the metric's values, one a series."""
    families = text_string_to_metric_families(page)
    return [sample.value for family in families for sample in family.samples if sample.name == name]


@pytest.mark.parametrize(
    ("name", "series"),
    [("redis_up", 1), ("mongo_up", 1), ("redis_latency_p95_ms", 1), ("unsynced_conversations", 2),
     ("breaker_open", 4), ("store_recovering", 2), ("redis_memory_used_bytes", 1), ("redis_memory_max_bytes", 1),
     ("onesource_backup_timestamp_seconds", 1)],
)  # fmt: skip
def test_a_gauge_is_exported_before_it_is_set(name: str, series: int, tmp_path: Path) -> None:
    """With both stores down from the start, nothing is set: an alert must distinguish that from "not scraped"."""
    assert values(worker(tmp_path, SCRAPE), name) == [0.0] * series


def test_a_new_worker_keeps_the_figures_of_others(tmp_path: Path) -> None:
    worker(tmp_path, "gauges.memory('redis')[0].set(7)", "gauges.metrics.backup_timestamp.set(8)")
    page = worker(tmp_path, SCRAPE)
    assert values(page, "redis_memory_used_bytes") == [7.0]
    assert values(page, "onesource_backup_timestamp_seconds") == [8.0]


def test_a_killed_worker_leaves_no_breaker_open(tmp_path: Path) -> None:
    """The highest of all processes is exported: that of a process killed in an outage would stay open for ever."""
    worker(tmp_path, "gauges.metrics.breaker_open.labels(store='redis', kind='reads').set(1)")
    assert set(values(worker(tmp_path, SCRAPE), "breaker_open")) == {0.0}


def test_what_threads_count_is_exact_and_is_written_at_once(tmp_path: Path) -> None:
    count = "[t.start() for t in ts]; [t.join() for t in ts]"
    page = worker(
        tmp_path,
        "import threading; from telemetry import metrics",
        "add = lambda: [metrics.not_persisted.inc() for _ in range(5000)]",
        "ts = [threading.Thread(target=add) for _ in range(4)]",
        count,
        SCRAPE,
    )
    assert values(page, "history_not_persisted_total") == [20_000.0]


def test_a_value_is_counted_where_the_file_has_grown_since(tmp_path: Path) -> None:
    page = worker(
        tmp_path,
        "from telemetry import metrics",
        "many = metrics.Counter('many', 'Many.', ['n'])",
        "[many.labels(n=f'{n:0500}').inc() for n in range(3000)]",
        "metrics.not_persisted.inc()",
        "many.labels(n=f'{0:0500}').inc()",
        SCRAPE,
    )
    assert values(page, "history_not_persisted_total") == [1.0]
    assert sorted(values(page, "many_total"))[-2:] == [1.0, 2.0]


def test_a_forked_process_counts_in_its_own_file(tmp_path: Path) -> None:
    page = worker(
        tmp_path,
        "import os; from telemetry import metrics",
        "metrics.not_persisted.inc()",
        "child = os.fork()",
        "metrics.not_persisted.inc(2)",
        "child or os._exit(0)",
        "os.waitpid(child, 0)",
        SCRAPE,
    )
    assert values(page, "history_not_persisted_total") == [5.0]
