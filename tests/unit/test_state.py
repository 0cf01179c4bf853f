"""The state of a process: one, whichever thread asks first."""

import threading
from concurrent.futures import ThreadPoolExecutor

from conversations import stores
from conversations.runtime.state import state
from conversations.stores import ALIASES, store


def test_threads_that_are_first_get_one_state_and_its_stores_breakers() -> None:
    """Else a failure would be counted in a breaker that is not looked at."""
    stores._built.clear()
    together = threading.Barrier(8)

    def first(_: int) -> int:
        together.wait()
        return id(state())

    with ThreadPoolExecutor(8) as pool:
        states = set(pool.map(first, range(8)))
    assert len(states) == 1
    for alias in ALIASES:
        known = state().stores[alias]
        assert (known.reads, known.writes) == (store(alias).reads, store(alias).writes)
