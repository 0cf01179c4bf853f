"""What a process knows of the stores from its watcher."""

from contextlib import suppress

from conversations import clock
from conversations.datasets import Coverage, Dataset
from conversations.errors import StoreUnavailable
from conversations.runtime import datasets
from conversations.runtime.state import ProcessState
from conversations.stores import ALIASES, control


def with_coverage(process: ProcessState) -> ProcessState:
    """Let the process know that the stores which should have every turn do: no watcher runs here that would see to
    it."""
    for alias in ALIASES:
        process.known.datasets[alias] = Dataset("as before", 0)  # of a store that is out
        with suppress(StoreUnavailable):
            datasets.compare(process.known, alias)
        for ended in process.known.cut_off.pop(alias, ()):  # servers of tests before, which were killed
            with suppress(StoreUnavailable):
                control(alias).remove_heartbeat(ended)
    ids = {alias: one.id for alias, one in process.known.datasets.items()}
    # It is newer than what tests before have left in the stores, which a new connection reads.
    process.known.coverage = Coverage(ids, process.routing.wanted, 0.0, clock.timestamp())
    return process
