"""Has the stores create what they need beside their data, once a minute.

A store that was emptied, or of which a collection was removed, has lost MongoDB's indexes: without them nothing there
expires. The watcher runs this in a thread of its own, since an index of many documents takes long to make. Where that
fails the store serves without.
"""

import logging

from conversations.errors import StoreUnavailable
from conversations.stores import ALIASES, control
from telemetry.logs import event

logger = logging.getLogger(__name__)

EVERY = 60.0  # seconds

_failing = set[str]()


def prepare() -> None:
    """Prepare both stores; log once, for each time that it begins to fail."""
    for alias in ALIASES:
        try:
            control(alias).prepare()
            _failing.discard(alias)
        except StoreUnavailable as error:
            if alias not in _failing:
                event(logger, logging.ERROR, "indexes_not_created", store=alias, reason=error.reason)
            _failing.add(alias)
