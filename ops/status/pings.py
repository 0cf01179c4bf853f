"""How fast a store answers a command."""

import time

from conversations.stores import store


def ping_ms(alias: str, times: int = 20) -> list[float]:
    """Return how long so many pings took, in milliseconds, shortest first; raise StoreUnavailable."""
    took = []
    store(alias).ping()  # the first one connects
    for _ in range(times):
        begun = time.perf_counter()
        store(alias).ping()
        took.append((time.perf_counter() - begun) * 1000)
    return sorted(took)
