"""Ids and times of messages: ids order a conversation.

A turn's two ids are one UUIDv7 and its successor, so a question always sorts beside its answer, also when others
write in the same millisecond. A new turn is later than every message its writer has seen, so sorting by id is sorting
by cause even where two machines' clocks differ.
"""

import re
import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from conversations.clock import now
from conversations.errors import NoLaterTurn

# Up to the year 6429: a turn is later than what its client has seen, and past 9999 there is no time that is later.
MESSAGE_ID = re.compile(r"[0-7][0-9a-f]{7}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_EPOCH, _MILLISECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(milliseconds=1)
_LAST = _EPOCH + (2**47 - 1) * _MILLISECOND
AT = re.compile(r"[0-7]\d{3}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d(?:T\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?(?:Z|[+-]\d\d:\d\d)?)?", re.ASCII)

Clock = Callable[[], datetime]


def tombstone_for(*last_ids: str | None) -> str:
    """Return an id of the millisecond before now, or the latest of these. Not of this millisecond: a turn that is asked
    after the deletion may have it too, and a turn that was there before has the time when it was asked."""
    return max([new_ids(now() - timedelta(milliseconds=1))[1], *(last_id or "" for last_id in last_ids)])


def time_of(message_id: str) -> datetime:
    """Return the millisecond that an id was made for."""
    return time_at(UUID(message_id).int >> 80)


def time_at(milliseconds: int) -> datetime:
    """Return the time so many milliseconds after 1970."""
    return _EPOCH + milliseconds * _MILLISECOND


def milliseconds(at: str) -> int:
    """Return the time that messages carry as milliseconds since 1970; raise ValueError where it is none."""
    return (datetime.fromisoformat(at) - _EPOCH) // _MILLISECOND


def moment(text: str, *, ends: bool = False) -> str:
    """Return a date or a time in ISO 8601 as messages carry times: of a date its begin, or with `ends` its end. One
    without an offset is UTC. Raise ValueError for another text."""
    if not _MOMENT.fullmatch(text):
        raise ValueError("no date or time")
    time = datetime.fromisoformat(text)
    time = time if time.tzinfo else time.replace(tzinfo=UTC)
    try:
        time += timedelta(days=ends and len(text) == len("2026-11-28"))
        return stamp(min(max(time, _EPOCH), _LAST))
    except OverflowError:
        raise ValueError("no date or time") from None


def next_time(seen: str | None, time: datetime) -> datetime:
    """Return the time, or the first that is later than `seen`; raise NoLaterTurn where no id has it."""
    time = whole_milliseconds(time)
    if seen:
        time = max(time, datetime.fromisoformat(seen) + timedelta(milliseconds=1))
    if time > _LAST:
        raise NoLaterTurn
    return time


def is_stamped(message_id: Any, at: Any) -> bool:
    """Return whether a stored message can have this id and this time."""
    try:
        known = MESSAGE_ID.fullmatch(message_id) and AT.fullmatch(at) and datetime.fromisoformat(at)
    except (TypeError, ValueError):
        return False
    return bool(known)


def stamp(time: datetime) -> str:
    """Return the time as messages carry it."""
    if time.tzinfo is not UTC:
        time = time.astimezone(UTC)
    return time.isoformat(timespec="milliseconds")[:23] + "Z"


def whole_milliseconds(time: datetime) -> datetime:
    """Return the time without what is less than a millisecond."""
    return time.replace(microsecond=time.microsecond // 1000 * 1000)


def new_ids(time: datetime) -> tuple[str, str]:
    """Return a UUIDv7 of that millisecond (RFC 9562) whose last bit is 0, and its successor."""
    milliseconds = (time - _EPOCH) // _MILLISECOND
    chance = secrets.randbits(73)  # asked for once: each time is a call to the kernel
    number = milliseconds << 80 | 7 << 76 | chance >> 61 << 64 | 2 << 62 | chance % 2**61 << 1
    return _text(number), _text(number + 1)


def _text(number: int) -> str:
    digits = f"{number:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
