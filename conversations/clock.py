"""The time, by the stores' clock: this machine's own may be wrong, and ids, tombstones and expiry must agree.

The watcher measures once a second how far each store's clock is ahead of the monotonic one. The first store's counts;
while it is out, the other's, with the difference that there was between the two. Where the other's is set meanwhile,
the difference is another: the time goes on, unless this machine was suspended, which stops the monotonic clock.
"""

import time
from collections.abc import Mapping
from datetime import UTC, datetime

_ahead: float | None = None  # how far the stores' time is ahead of the monotonic clock, None before the first look
_differences: dict[str, float] = {}
_wall = 0.0  # how far this machine's clock was ahead of the monotonic one at the last look
_LITTLE = 1.0  # seconds that clocks differ by from look to look without being set


def now() -> datetime:
    """Return the time in UTC."""
    return datetime.fromtimestamp(timestamp(), UTC)


def timestamp() -> float:
    """Return the same as Unix time. It goes on evenly where this machine's clock is set, until the next look."""
    return time.time() if _ahead is None else time.monotonic() + _ahead


def time_of(moment: float) -> float:
    """Return the Unix time of a moment on the monotonic clock."""
    return timestamp() - (time.monotonic() - moment)


def corrected() -> float | None:
    """Return how many seconds the stores' time is ahead of the monotonic clock, None before the first look."""
    return _ahead


def offset() -> float:
    """Return how many seconds it is ahead of this machine's clock."""
    return timestamp() - time.time()


def ahead(measured: float) -> float:
    """Return how many seconds a clock is ahead of this machine's, of which it was measured how far it is ahead of the
    monotonic one."""
    return measured + time.monotonic() - time.time()


def correct(measured: Mapping[str, float], order: tuple[str, ...]) -> None:
    """Correct the clock by what was measured: for each store that could be asked, how many seconds it is ahead of the
    monotonic clock. The first of them in `order` counts."""
    global _ahead, _differences, _wall
    if not measured:
        return
    alias = next(alias for alias in order if alias in measured)
    wall = time.time() - time.monotonic()
    chosen = measured[alias] + (0.0 if alias == order[0] else _differences.get(alias, 0.0))
    if alias != order[0] and _ahead is not None and order[0] in _differences:
        jump, moved = chosen - _ahead, wall - _wall
        if abs(jump) > _LITTLE < abs(jump - moved):
            chosen = _ahead
            _differences = _differences | {alias: chosen - measured[alias]}
    _ahead, _wall = chosen, wall
    if alias == order[0]:
        _differences = _differences | {each: chosen - one for each, one in measured.items()}
