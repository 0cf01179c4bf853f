"""One deadline a request: whatever the stores do, it ends within 2 s, and the time that a model takes.

Each call to a store is bounded by what the request has left, and no store may take all of it: the other must have time
for its answer. Commands and the watcher have no deadline, and each call has its own timeout alone. The wait until few
enough other requests run (slots.py) does not count.
"""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from conversations.errors import StoreUnavailable
from conversations.slots import slots

SECONDS = 1.9  # for all calls of a request: what is left of 2 s is for a connection that is being made
_FOR_THE_OTHER = 0.25  # seconds of them that one store cannot take
_LEAST = 0.01  # seconds in which a call is worth making


class Deadline:
    """What is left of one request's time, and what each store may still take of it."""

    def __init__(self, seconds: float) -> None:
        self._ends = time.monotonic() + seconds
        self._share = seconds - _FOR_THE_OTHER
        self._taken: dict[str, float] = {}

    def left(self, alias: str, now: float) -> float:
        """Return the seconds that the store may take from `now` on the monotonic clock."""
        return min(self._ends - now, self._share - self._taken.get(alias, 0.0))

    def take(self, alias: str, seconds: float) -> None:
        self._taken[alias] = self._taken.get(alias, 0.0) + seconds

    def put_off(self, seconds: float) -> None:
        self._ends += seconds


_deadline: ContextVar[Deadline | None] = ContextVar("deadline", default=None)
_call_ends: ContextVar[float] = ContextVar("call_ends", default=math.inf)


# Classes that are used as functions: a generator would cost each request and each call two microseconds.
class begun:  # noqa: N801
    """Give the request that is handled in this block its slot, then its deadline. A thread that goes on with it copies
    the context."""

    __slots__ = ("_token",)

    def __enter__(self) -> None:
        slots.take()
        try:
            self._token = _deadline.set(Deadline(SECONDS))
        except BaseException:
            slots.give()
            raise

    def __exit__(self, *error: object) -> None:
        try:
            _deadline.reset(self._token)
        finally:
            slots.give()


@contextmanager
def excluded() -> Iterator[None]:
    """Put the deadline off by what the block takes, and let other requests run meanwhile: it waits for a model."""
    deadline, begin = _deadline.get(), time.monotonic()
    try:
        with slots.lent():
            yield
    finally:
        if deadline:
            deadline.put_off(time.monotonic() - begin)


class call:  # noqa: N801
    """Bound what the block asks of a store, within a request by `most` seconds too. Raise StoreUnavailable where no
    time is left: nothing was sent then."""

    __slots__ = ("_begun", "_deadline", "_lent", "_most", "_token", "alias", "took")

    def __init__(self, alias: str, most: float = math.inf) -> None:
        self.alias = alias
        self._most = most
        self.took = 0.0
        """How many seconds it took, once it has ended."""

    def __enter__(self) -> None:
        self._deadline, self._begun = _deadline.get(), time.monotonic()
        if self._deadline is None:
            return
        seconds = self._deadline.left(self.alias, self._begun)
        if seconds < _LEAST:
            raise StoreUnavailable(self.alias, "no time left")
        if self._most < seconds:
            seconds = self._most
        self._token = _call_ends.set(self._begun + seconds)
        self._lent = slots.lend()  # others run while it waits for the store

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.took = time.monotonic() - self._begun
        if self._deadline is not None:
            _call_ends.reset(self._token)
            self._deadline.take(self.alias, self.took)
            if self._lent:
                slots.resume()


def left() -> float:
    """Return the seconds in which this call to a store must end: infinitely many without a deadline."""
    return _call_ends.get() - time.monotonic()
