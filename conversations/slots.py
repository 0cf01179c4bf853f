"""A limit on how many requests of a process run Python code at once; waiting for a store or a model does not count.

Python runs one thread at a time. If all that have work tried to run, each would wait for all others whenever a store
has answered it: stores that are well would seem slow, and their breakers would open.
"""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class Slots:
    """A semaphore whose slots are handed over in order: first to requests that had one before."""

    def __init__(self, number: int) -> None:
        self._lock = threading.Lock()
        self._free = number
        self._new: deque[threading.Lock] = deque()
        self._returning: deque[threading.Lock] = deque()
        self._mine = threading.local()

    @property
    def crowded(self) -> bool:
        """Whether requests wait for a slot: what this process waited for may have come long before."""
        return bool(self._returning or self._new)

    @property
    def held(self) -> bool:
        """Whether this thread has a slot."""
        return getattr(self._mine, "has_one", False)

    @contextmanager
    def taken(self, *, first: bool = False) -> Iterator[None]:
        """Have a slot until the end of the block; `first`: before requests that had none yet."""
        self.take(first=first)
        try:
            yield
        finally:
            self.give()

    def take(self, *, first: bool = False) -> None:
        """Have a slot until `give`."""
        self._take(self._returning if first else self._new)

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Let others have this thread's slot, if it has one, until the end of the block."""
        lent = self.lend()
        try:
            yield
        finally:
            if lent:
                self.resume()

    def lend(self) -> bool:
        """Let others have this thread's slot; return whether it has one, and is to `resume` after it has waited."""
        if not self.held:
            return False
        self.give()
        return True

    def resume(self) -> None:
        """Have a slot again, before those that had none yet."""
        self._take(self._returning)

    def _take(self, waiting: "deque[threading.Lock]") -> None:
        turn = None
        with self._lock:
            if self._free:
                self._free -= 1
            else:
                turn = threading.Lock()
                turn.acquire()
                waiting.append(turn)
        if turn:
            turn.acquire()  # `give` releases it
        self._mine.has_one = True

    def give(self) -> None:
        """Have no slot any more."""
        self._mine.has_one = False
        with self._lock:
            waiting = self._returning or self._new
            if waiting:
                waiting.popleft().release()
            else:
                self._free += 1


slots = Slots(4)
