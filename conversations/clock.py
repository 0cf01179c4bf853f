"""The time, by the stores' clock: this machine's own may be wrong, and ids, tombstones and expiry must agree.

The watcher measures once a second how far each store's clock is from this machine's. The first store's counts; while
it is out, the other's, with the difference that there was between the two.
"""

import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

_offset = 0.0
_differences: dict[str, float] = {}


def now() -> datetime:
    """Return the time in UTC."""
    return datetime.fromtimestamp(time.time(), UTC) + timedelta(seconds=_offset)


def timestamp() -> float:
    """Return the same as Unix time."""
    return time.time() + _offset


def offset() -> float:
    """Return how many seconds are added to this machine's clock."""
    return _offset


def correct(measured: Mapping[str, float], order: tuple[str, ...]) -> None:
    """Correct the clock by what was measured just now: for each store that could be asked, how many seconds it is
    ahead of this machine. `order` says whose clock counts."""
    global _offset, _differences
    first = order[0]
    if first in measured:
        _offset = measured[first]
        _differences = _differences | {alias: _offset - one for alias, one in measured.items()}
    else:
        for alias, one in measured.items():
            _offset = one + _differences.get(alias, 0.0)
