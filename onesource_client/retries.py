"""When a request is sent again, and for how long."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from onesource_client import errors
from onesource_client.errors import OnesourceError

SAFE = (
    errors.Unreachable,
    errors.KeyInUse,
    errors.RateLimited,
    errors.NotBegun,
    errors.StoreUnavailable,
    errors.NotPersisted,
    errors.OutcomeUnknown,
)
"""What may be sent again: with its Idempotency-Key a turn is stored once, however often it is sent."""
_LONGEST = 4.0  # seconds of one pause, beyond what the service asks for


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a request is sent again: until one of both is used up. `Retries(tries=1)` sends each once."""

    tries: int = 8
    """How often it is sent at the most."""
    seconds: float = 30.0
    """After how many seconds since the first try it is not sent again."""
    pause: float = 0.2
    """Seconds before the second try; each further pause is twice as long, and a random part of it is left out."""


class Attempts:
    """The tries of one request."""

    def __init__(self, retries: Retries, clock: Callable[[], float]) -> None:
        self._retries = retries
        self._clock = clock
        self._ends = clock() + retries.seconds
        self.repeated = 0
        """How often it was sent again."""

    def pause(self, error: OnesourceError) -> float:
        """Return the seconds until the next try; raise the error where there is none."""
        if not isinstance(error, SAFE) or self.repeated + 1 >= self._retries.tries:
            raise error
        pause = min(self._retries.pause * 2.0**self.repeated, _LONGEST) * random.uniform(0.5, 1.0)  # noqa: S311
        seconds = error.retry_after + pause  # so that not all clients come back at the same time
        if self._clock() + seconds > self._ends:
            raise error
        self.repeated += 1
        return seconds
