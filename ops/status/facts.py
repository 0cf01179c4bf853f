"""Where traffic goes, how fast stores answer, how much they hold, and what the server of this machine counts."""

import time

from django.conf import settings
from prometheus_client.parser import text_string_to_metric_families

from conversations.policy import Routing
from conversations.runtime import switching
from conversations.stores import MONGO, store
from ops.direct import documents, errors, turns_redis
from ops.errors import NoServer
from ops.service import Service

_SAMPLE = 1000  # keys that tell which part of them are conversations


def routing() -> Routing:
    """Return where traffic goes: the newest switch, or else the environment."""
    newest = switching.newest_of(switching.read())
    return newest.routing if newest else switching.environment()


def ping_ms(alias: str, times: int = 20) -> list[float]:
    """Return how long so many pings took, in milliseconds, shortest first; raise StoreUnavailable."""
    took = []
    store(alias).ping()  # the first one connects
    for _ in range(times):
        begun = time.perf_counter()
        store(alias).ping()
        took.append((time.perf_counter() - begun) * 1000)
    return sorted(took)


def p95(ordered: list[float]) -> float:
    """Return the 95th percentile of values in ascending order."""
    return ordered[int(0.95 * (len(ordered) - 1))]


def estimate(alias: str) -> int:
    """Return about how many conversations the store holds, without looking at each; raise StoreUnavailable."""
    store(alias).ping()  # which fails fast
    with errors(alias):
        if alias == MONGO:
            return int(documents().estimated_document_count())
        client = turns_redis()
        seen: list[bytes] = []
        size, cursor = int(client.dbsize()), 0
        while len(seen) < _SAMPLE:
            cursor, keys = client.scan(cursor, count=_SAMPLE)
            seen += keys
            if not cursor:
                break
        ours = sum(1 for key in seen if key.startswith(b"conv:"))
        return ours if not cursor else round(size * ours / len(seen))


def served_metrics() -> dict[tuple[str, str, str], float] | None:
    """Return what the server of this machine counts, by name, store, and outcome or kind; None when no
    server answers on PORT."""
    try:
        status, body = Service(server_url(), seconds=2).call("GET", "/metrics")
    except NoServer:
        return None
    if status != 200:
        return None
    try:
        return in_page(body.decode())
    except ValueError:
        return None  # another service's


def in_page(page: str) -> dict[tuple[str, str, str], float]:
    """Return what a page of metrics says, by name, store, and outcome or kind; raise ValueError if it is none."""
    return {
        (sample.name, sample.labels.get("store", ""), sample.labels.get("outcome") or sample.labels.get("kind", "")): (
            sample.value
        )
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def server_url() -> str:
    """Return where the server of this machine answers, if there is one."""
    return f"http://localhost:{settings.PORT}"
