"""Keeps each store's list of conversations, the newest first.

Every process writes what its turns have left for the list, once a second. The one that repairs makes a list anew which
is not known to have every conversation: the store was emptied, an older version wrote to it, or a day has passed.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import suppress

from conversations import clock
from conversations.errors import StoreUnavailable
from conversations.runtime.datasets import PROCESS
from conversations.stores import ALIASES, bulk, control, store
from conversations.stores.control import LISTED
from telemetry.logs import event

logger = logging.getLogger(__name__)

EVERY = 1.0  # seconds
_MADE_EVERY = 86_400.0  # seconds
_STEP_SECONDS = 0.5
_LEASE_SECONDS = 5.0

_under_way: dict[str, Iterator[int]] = {}


def write() -> None:
    """Write what is left for the lists; what a store does not take now, it is given again the next time."""
    for alias in ALIASES:
        with suppress(StoreUnavailable):
            store(alias).write_list()


def make() -> bool:
    """Go on making those lists that are not whole, in turn with other processes; return whether there is more to do."""
    more = [_make(alias) for alias in ALIASES]
    return any(more)


def _is_due(alias: str) -> bool:
    """Return whether the list is not known to have every conversation, or was made a day ago: then it is given what it
    is missing all the same, as of a process that was killed."""
    try:
        age = clock.timestamp() - float(control(alias).note(LISTED) or 0)
        return not -_LEASE_SECONDS < age < _MADE_EVERY  # a note from later is none either
    except ValueError:  # another program's
        return True


def _make(alias: str) -> bool:
    """Go on for a moment; return whether there is more to do. A store that is out is begun anew."""
    walk = _under_way.pop(alias, None)
    try:
        if walk is None and not _is_due(alias):
            return False
        if not control(alias).lease("listing", PROCESS, _LEASE_SECONDS):
            return False
        walk, until = walk or bulk(alias).list_all(), time.monotonic() + _STEP_SECONDS
        for _ in walk:
            if time.monotonic() > until:
                _under_way[alias] = walk
                return True
        control(alias).write_note(LISTED, str(clock.timestamp()))
    except StoreUnavailable:
        return False
    event(logger, logging.INFO, "listed", store=alias)
    return False
