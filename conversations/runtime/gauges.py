"""The gauges that are named after a store: `up` for each, and what the runbook asks of one store alone."""

from prometheus_client import Gauge

from conversations.stores import ALIASES, BACKENDS, memory_store
from telemetry import metrics


def up(alias: str) -> Gauge:
    """Return the gauge of whether the store answers."""
    return metrics.up(alias, BACKENDS[alias].label)


def latency(alias: str) -> Gauge | None:
    """Return the gauge of the pings' 95th percentile; None but for the first store."""
    return metrics.latency_p95_ms(alias, BACKENDS[alias].label) if alias == ALIASES[0] else None


def memory(alias: str) -> tuple[Gauge, Gauge]:
    """Return the gauges of the memory that the store uses, and of the most that it may use."""
    return metrics.memory_used(alias, BACKENDS[alias].label), metrics.memory_max(alias, BACKENDS[alias].owner)


def start() -> None:
    """Create every series of the stores in use, so that the first scrape has it."""
    full = memory_store()
    named = [*map(up, ALIASES), *filter(None, map(latency, ALIASES)), *(memory(full) if full else ())]
    metrics.start(ALIASES, named)
