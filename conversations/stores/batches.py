"""Operators' work on many conversations: by batches, each with more time than a turn has, and tried again."""

import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

from conversations.errors import StoreUnavailable

T = TypeVar("T")

PATIENCE = 30.0
"""Seconds for one batch: operators' work may wait longer than a turn."""
_TRIES = 4
_PAUSE = 0.25  # seconds


class Deadline:
    """The end of a call that is made of several; each of those has a timeout of its own."""

    def __init__(self, alias: str, seconds: float) -> None:
        self.alias = alias
        self.until = time.monotonic() + seconds

    def check(self) -> None:
        """Raise StoreUnavailable when the time is over."""
        if time.monotonic() > self.until:
            raise StoreUnavailable(self.alias, "too slow")


def retried(call: Callable[[], T]) -> T:
    """Return what the call returns, tried again for about a second: to an operator's long work one slow answer of
    a busy store is no outage."""
    for _ in range(_TRIES - 1):
        try:
            return call()
        except StoreUnavailable:
            time.sleep(_PAUSE)
    return call()


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield the items in lists of so many."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch
