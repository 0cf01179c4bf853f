"""Operators' work on many conversations: by batches, each with more time than a turn has, and tried again."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

from conversations.errors import StoreUnavailable

T = TypeVar("T")

PATIENCE = 30.0
"""Seconds for one batch: operators' work may wait longer than a turn."""
SHORT_PAUSES: Sequence[float] = (0.25, 0.25, 0.25)
"""Seconds before each further try, where something waits to hear that a store is out."""
_LONG_PAUSES: Sequence[float] = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)

_LONG_ENOUGH = sum(_LONG_PAUSES)
"""Seconds after which nothing is tried again: each try has a limit of its own."""

_pauses = SHORT_PAUSES


class Deadline:
    """The end of a call that is made of several; each of those has a timeout of its own."""

    def __init__(self, alias: str, seconds: float) -> None:
        self.alias = alias
        self.until = time.monotonic() + seconds

    def check(self) -> None:
        """Raise StoreUnavailable when the time is over."""
        if time.monotonic() > self.until:
            raise StoreUnavailable(self.alias, "too slow")


def try_longer() -> None:
    """Have `retried` try for half a minute from now on: for a process that answers no turn."""
    global _pauses
    _pauses = _LONG_PAUSES


def retried(call: Callable[[], T], pauses: Sequence[float] = ()) -> T:
    """Return what the call returns, tried again after each of the pauses, but not after half a minute: to an operator's
    long work one slow answer of a busy store is no outage. A call that failed may have been carried out."""
    until = time.monotonic() + _LONG_ENOUGH
    for pause in pauses or _pauses:
        try:
            return call()
        except StoreUnavailable:
            if time.monotonic() > until:
                raise
            time.sleep(pause)
    return call()


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield the items in lists of so many."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch
