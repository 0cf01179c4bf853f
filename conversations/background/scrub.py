"""The scrub of both stores: everything is compared once a day, slowly, by the process that holds the lease."""

import logging
import time
from dataclasses import dataclass

from conversations import clock
from conversations.background import coverage
from conversations.datasets import Scrubbed
from conversations.errors import StoreUnavailable
from conversations.history.scrub import Scrub
from conversations.runtime import datasets
from conversations.runtime.state import ProcessState
from conversations.stores import ALIASES
from telemetry.logs import event

logger = logging.getLogger(__name__)

EVERY = 86_400.0  # seconds from the end of one scrub to the beginning of the next
PAUSE = 3.0  # seconds between two steps: more than a request has for its calls to stores, deadline.SECONDS


@dataclass
class Scrubbing:
    """A scrub under way in this process."""

    of: coverage.Subject
    scrub: Scrub
    due: float = 0.0
    """When its next step is, on the monotonic clock."""


_scrubbing: Scrubbing | None = None


def is_due(process: ProcessState) -> bool:
    """Return whether everything is to be compared, or goes on being compared: both stores should have every turn and
    are complete, and the last time was a day ago. A sweep is such a time too."""
    global _scrubbing
    if clock.timestamp() - max(process.known.scrubbed.at, process.known.coverage.since) < EVERY:
        _scrubbing = None  # another process has ended one
        return False
    return set(process.routing.wanted) == set(ALIASES) and not coverage.missing(process)


def step(process: ProcessState) -> None:
    """Begin a scrub, or go on with it if its next step is due. It is abandoned where a dataset or the switch has
    changed: what was compared before has changed, and a sweep compares everything anew. Raise StoreUnavailable."""
    global _scrubbing
    of = coverage.subject(process)
    if _scrubbing is None or _scrubbing.of != of:
        _scrubbing = Scrubbing(of, Scrub())
    if time.monotonic() < _scrubbing.due:
        return
    scrub = _scrubbing.scrub
    try:
        ended = scrub.step(datasets.PROCESS)
    except StoreUnavailable:
        raise
    except Exception:  # whatever it was, its walk is not whole
        _scrubbing = None
        raise
    _scrubbing.due = time.monotonic() + PAUSE
    known, now = process.known, Scrubbed(clock.timestamp(), scrub.compared, scrub.out_of_step)
    if ended:
        _scrubbing = None
        known.scrubbed = now
        datasets.record_scrub(datasets.SCRUBBED, now)
        event(logger, logging.INFO, "scrubbed", compared=now.compared, out_of_step=now.out_of_step)
    else:
        datasets.record_scrub(datasets.SCRUBBING, now)
