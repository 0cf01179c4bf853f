"""What the server of this machine counts, read from its /metrics."""

from collections import defaultdict

from django.conf import settings
from prometheus_client.parser import text_string_to_metric_families

from ops.errors import NoServer
from ops.service import Service

Served = dict[tuple[str, str, str], float]
"""Each sample by its name, store, and outcome, kind, reason or bucket."""

_LABELS = ("outcome", "kind", "reason", "le")


def server_url() -> str:
    """Return where the server of this machine answers, if there is one."""
    return f"http://localhost:{settings.PORT}"


def served_metrics() -> Served | None:
    """Return what the server of this machine counts; None when none answers on PORT."""
    try:
        status, body = Service(server_url(), seconds=2).call("GET", "/metrics")
    except NoServer:
        return None
    if status != 200:
        return None
    try:
        return parse(body.decode())
    except ValueError:
        return None  # another service's


def parse(page: str) -> Served:
    """Return the samples of a page of metrics, added up over the labels that are left out; raise ValueError where it is
    none."""
    found: Served = defaultdict(float)
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            labels = sample.labels
            label = next((labels[name] for name in _LABELS if name in labels), "")
            found[sample.name, labels.get("store", ""), label] += sample.value
    return dict(found)


def total(served: Served, name: str, label: str = "") -> float:
    """Return the sum of a metric over the stores, of one outcome where it is named."""
    return sum(value for (key, _, other), value in served.items() if key == name and (not label or other == label))


def reads(served: Served) -> tuple[float, float]:
    """Return how often the primary had a conversation that there was, and how often there was one: a first question
    finds none, and is no miss."""
    hits, rescues = (total(served, "history_reads_total", outcome) for outcome in ("hit", "rescue"))
    return hits, hits + rescues + total(served, "context_missing_total")
