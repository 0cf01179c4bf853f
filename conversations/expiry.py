"""Until when a copy of a conversation can live: what a deletion leaves, its tombstone, has to live as long.

A copy lives for the TTL that was set when it was written. Where the TTL was lowered since, that is longer than a TTL
from now. So the latest time of all is noted in every store, and each process keeps the latest that it has seen.
"""

from math import ceil

from conversations import clock
from conversations.ids import time_of

MARGIN = 3600.0  # seconds by which the noted time is later than needed, so that it is seldom written
_SLACK = 60.0  # seconds by which what expires may go earlier from one store than from the other
MOST = 10 * 365 * 86_400  # seconds of a TTL; a noted time that is further ahead was written with a clock that was wrong

_latest = 0.0


def latest(ttl: int) -> float:
    """Return until when any copy can live, one too that is written within MARGIN / 2 with this TTL: Unix time by the
    stores' clock."""
    time = clock.timestamp() + ttl
    if time + MARGIN / 2 > _latest:
        learn(time + MARGIN)
    return _latest


def learn(time: float) -> None:
    """Know that a copy can live until then."""
    global _latest
    _latest = max(_latest, time)


def tombstone_ttl(ttl: int) -> int:
    """Return how many seconds a tombstone has to live, where the TTL is this one now."""
    return max(ttl, ceil(_latest - clock.timestamp()))


def can_live(last_id: str, ttl: int) -> bool:
    """Return whether a copy of a conversation whose last message has this id can still live; not where that is ""."""
    if not last_id:
        return False
    lowered = tombstone_ttl(ttl) > ttl + 2 * MARGIN  # the TTL: then until when is not known of one conversation
    return lowered or time_of(last_id).timestamp() + ttl > clock.timestamp()


def may_have_expired(last_id: str, ttl: int) -> bool:
    """Return whether a conversation whose last message has this id, or a tombstone that is this id, may have gone from
    one store by itself: then it is not missing there."""
    return clock.timestamp() - time_of(last_id).timestamp() > ttl - _SLACK
