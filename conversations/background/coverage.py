"""Which stores hold every conversation: withdrawn before turns leave one out, and gained by comparing everything."""

import logging
import time
from dataclasses import dataclass

from conversations import clock
from conversations.datasets import Coverage
from conversations.history.sweep import Sweep
from conversations.policy import Routing, Switch
from conversations.runtime import datasets
from conversations.runtime.state import FOLLOWED, ProcessState
from conversations.stores import ALIASES
from telemetry.logs import event

logger = logging.getLogger(__name__)

Subject = tuple[dict[str, str], Routing, Switch | None]
"""The datasets, the routing and the recorded switch that a comparison of everything is of."""
_SETTLED = FOLLOWED + 2.0
"""Seconds after a switch in which every request ends that began where it was not known."""


@dataclass
class Sweeping:
    """A sweep under way in this process."""

    of: Subject
    sweep: Sweep
    began: float


_sweeping: Sweeping | None = None


def missing(process: ProcessState) -> frozenset[str]:
    """Return the stores that should have every turn and are not known to hold all that came before."""
    return frozenset(process.routing.wanted) - process.known.complete


def subject(process: ProcessState) -> Subject:
    """Return what a comparison of everything is of now: it ends with any of these. A switch and another one back leave
    the routing as it was, but not the stores."""
    return {alias: one.id for alias, one in process.known.datasets.items()}, process.routing, process.switch


def withdraw(process: ProcessState, routing: Routing) -> None:
    """End the coverage of a store that the new routing leaves out, before turns do."""
    coverage = process.known.coverage
    if not set(coverage.complete) <= set(routing.wanted):
        process.known.coverage = coverage.only(routing.wanted, clock.timestamp())
        datasets.record(process.known.coverage)


def gain(process: ProcessState, deadline: float) -> None:
    """Go on comparing everything until the deadline on the monotonic clock; once it has ended, the stores that are
    wanted are complete. It begins anew where a dataset or the switch has changed meanwhile. Raise StoreUnavailable."""
    global _sweeping
    now = subject(process)
    if not process.follows or _is_recent(process) or now[0].keys() != set(ALIASES):
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
        if process.follows and subject(process) == _sweeping.of:
            _has_ended(process, _sweeping)
        _sweeping = None
    else:
        _log("sweeping", _sweeping.sweep)


def _is_recent(process: ProcessState) -> bool:
    """Return whether another process may not follow the newest switch yet: it may leave out a store that is wanted."""
    seen, switch = process.switch_seen_at, process.switch
    recent = seen is not None and time.monotonic() - seen < _SETTLED
    return recent or (switch is not None and abs(clock.timestamp() - switch.at) < _SETTLED)


def _has_ended(process: ProcessState, done: Sweeping) -> None:
    ids, routing, _ = done.of
    known = dict(process.known.datasets)  # another thread may find one replaced meanwhile
    epochs = {alias: one.epoch for alias, one in known.items() if one.id == ids[alias]}
    process.known.coverage = Coverage(ids, routing.wanted, done.began, clock.timestamp(), epochs)
    datasets.record(process.known.coverage)
    _log("swept", done.sweep)


def _log(name: str, sweep: Sweep) -> None:
    event(logger, logging.INFO, name, compared=sweep.compared, repaired=sweep.repaired)
