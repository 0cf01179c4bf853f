"""How fast a store answers a command."""

import time

from conversations.stores import store

_SECONDS = 2.0  # after which no further ping begins: of a store that is slow a few tell as much


def ping_ms(alias: str, times: int = 20) -> list[float]:
    """Return how long so many pings took, or fewer where they are slow, in milliseconds, shortest first; raise
    StoreUnavailable."""
    took: list[float] = []
    store(alias).ping()  # the first one connects
    while len(took) < times and sum(took) < _SECONDS * 1000:
        begun = time.perf_counter()
        store(alias).ping()
        took.append((time.perf_counter() - begun) * 1000)
    return sorted(took)
