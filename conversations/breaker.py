"""The circuit breaker: after a few failures no call is made to a store for a while, so that requests do not wait.

It only counts and decides. It makes no call itself, and never holds its lock during one.
"""

import random
import threading
import time
from collections import deque
from collections.abc import Callable

WINDOW = 10.0  # seconds that an outcome counts
VOLUME = 10  # outcomes that are kept, at most
TRIPS = 3  # failures or slow calls among them that open it
OPEN_FOR = (2.0, 5.0)  # seconds, jittered so that processes do not all come back at once
RECOVERY = OPEN_FOR[1] + 3.0  # seconds after which every other process' breaker has closed too

CLOSED, OPEN, HALF_OPEN = "closed", "open", "half_open"


class Breaker:
    """Counts the outcomes of calls of one kind to one store, on the monotonic clock."""

    def __init__(
        self,
        slow: float,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """`slow` is how many seconds a call may take before it counts like a failure."""
        self.slow = slow
        self._clock = clock
        self._jitter = jitter
        self.opened = 0
        """How often it has opened."""
        self._lock = threading.Lock()
        self._outcomes: deque[tuple[float, bool]] = deque(maxlen=VOLUME)
        self._until: float | None = None  # when an open breaker lets a probe through
        self._probing_since: float | None = None
        self._closed_at: float | None = None

    @property
    def recovering(self) -> bool:
        """Whether it closed so recently that another process' breaker may still be open."""
        closed = self._closed_at
        return closed is not None and self._clock() < closed + RECOVERY

    @property
    def state(self) -> str:
        """`closed`, `open`, or `half_open` once a probe may go or is on its way."""
        with self._lock:
            if self._until is None:
                return CLOSED
            return OPEN if self._clock() < self._until else HALF_OPEN

    def allows(self) -> bool:
        """Return whether an ordinary call may be made."""
        return self._until is None

    def probe(self) -> bool:
        """Return whether the caller may probe the store: always while closed; while half open one caller at a time,
        which must then `record` the outcome."""
        with self._lock:
            if self._until is None:
                return True
            now = self._clock()
            stale = self._probing_since is not None and now - self._probing_since > OPEN_FOR[1]
            if now < self._until or (self._probing_since is not None and not stale):
                return False
            self._probing_since = now
            return True

    def record(self, failed: bool, seconds: float = 0.0) -> None:
        """Count an outcome; a failed probe opens the breaker again, a good one closes it."""
        bad = failed or seconds > self.slow
        with self._lock:
            now = self._clock()
            if self._until is not None:
                if self._probing_since is not None and now >= self._until:
                    self._end_probe(bad, now)
                return  # the call began before the breaker opened
            self._outcomes.append((now, bad))
            if bad and sum(failure for at, failure in self._outcomes if at > now - WINDOW) >= TRIPS:
                self._open(now)

    def trip(self) -> None:
        """Open at once: the caller has found the store unavailable."""
        with self._lock:
            if self._until is None:
                self._open(self._clock())

    def end_pause(self) -> None:
        """Let the next probe go at once."""
        with self._lock:
            if self._until is not None:
                self._until = min(self._until, self._clock())

    def _end_probe(self, bad: bool, now: float) -> None:
        self._probing_since = None
        if bad:
            self._open(now)
        else:
            self._closed_at = now  # before it lets calls through: who looks in between finds it recovering
            self._until = None
            self._outcomes.clear()

    def _open(self, now: float) -> None:
        self._until = now + self._jitter(*OPEN_FOR)
        self._probing_since = None
        self.opened += 1  # once it is open: what was found before is found anew then
