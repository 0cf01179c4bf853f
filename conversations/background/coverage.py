"""Which stores hold every conversation: withdrawn before turns leave one out, and gained by comparing everything."""

import logging
import time
from dataclasses import dataclass

from conversations import clock
from conversations.datasets import Coverage
from conversations.history.sweep import Sweep
from conversations.policy import Routing
from conversations.runtime import datasets
from conversations.runtime.state import ProcessState
from conversations.runtime.switching import FOLLOW_SECONDS
from conversations.stores import ALIASES
from telemetry.logs import event

logger = logging.getLogger(__name__)


@dataclass
class Sweeping:
    """A sweep under way in this process."""

    of: tuple[dict[str, str], Routing]
    """The datasets and the routing that it is of."""
    sweep: Sweep
    began: float


_sweeping: Sweeping | None = None


def missing(process: ProcessState) -> frozenset[str]:
    """Return the stores that should have every turn and are not known to hold all that came before."""
    return frozenset(process.routing.wanted) - process.known.complete


def subject(process: ProcessState) -> tuple[dict[str, str], Routing]:
    """Return the datasets and the routing that a comparison of everything is of: it ends with either."""
    return {alias: one.id for alias, one in process.known.datasets.items()}, process.routing


def withdraw(process: ProcessState, routing: Routing) -> None:
    """End the coverage of a store that the new routing leaves out, before turns do."""
    coverage = process.known.coverage
    if not set(coverage.complete) <= set(routing.wanted):
        process.known.coverage = coverage.only(routing.wanted, clock.timestamp())
        datasets.record(process.known.coverage)


def gain(process: ProcessState, deadline: float) -> None:
    """Go on comparing everything until the deadline on the monotonic clock; once it has ended, the stores that are
    wanted are complete. It begins anew where a dataset or the routing has changed meanwhile. Raise StoreUnavailable."""
    global _sweeping
    now = subject(process)
    if _is_recent(process) or now[0].keys() != set(ALIASES):
        return
    if _sweeping is None or _sweeping.of != now:
        _sweeping = Sweeping(now, Sweep(), clock.timestamp())
    try:
        ended = _sweeping.sweep.step()
        while not ended and time.monotonic() < deadline:
            ended = _sweeping.sweep.step()
    except Exception:  # whatever it was, its walk is not whole
        _sweeping = None
        raise
    if ended:
        _has_ended(process, _sweeping)
        _sweeping = None
    else:
        _log("sweeping", _sweeping.sweep)


def _is_recent(process: ProcessState) -> bool:
    """Return whether another process may not follow the newest switch yet: it may leave out a store that is wanted."""
    return process.switch is not None and abs(clock.timestamp() - process.switch.at) < FOLLOW_SECONDS


def _has_ended(process: ProcessState, done: Sweeping) -> None:
    ids, routing = done.of
    process.known.coverage = Coverage(ids, routing.wanted, done.began, clock.timestamp())
    datasets.record(process.known.coverage)
    _log("swept", done.sweep)


def _log(name: str, sweep: Sweep) -> None:
    event(logger, logging.INFO, name, compared=sweep.compared, repaired=sweep.repaired)
