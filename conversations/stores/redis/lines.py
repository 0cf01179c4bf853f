"""A history as its lines in Redis, which are decoded when their messages are wanted.

More turns may be stored than the limit: see room.py. Readers see no more than that, the newest.
"""

import re
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from django_redis.serializers.base import BaseSerializer

from conversations.errors import CorruptHistory
from conversations.ids import is_stamped
from conversations.stores.redis.format import TAIL, stamps
from conversations.turns import History, Message, Turn

_BEGIN = b'{"role":"user",'
_KEY = re.compile(rb',"key":"([^"]*)"')  # in content every quote is escaped, so this is a message's own
_KEY_BEGINS = b',"key":"'
_USER = re.compile(rb',"user":"([^"]*)"')  # the same
_USER_BEGINS = b',"user":"'
_set = partial(object.__setattr__)


def shown(value: bytes, most_turns: int) -> "Lines":
    """Return the history of a stored value; raise CorruptHistory where its beginning, its end or the number of its
    lines is wrong. Other faults show when it is decoded."""
    messages, end = value.count(b"\n"), stamps(value[-TAIL:])
    if not (value.startswith(_BEGIN) and value.endswith(b'"}\n') and is_stamped(*end)):
        raise CorruptHistory("redis", "not lines of a conversation")
    if messages % 2:
        raise CorruptHistory("redis", "a turn is not whole")
    return Lines(value, messages, most_turns, end)


def window(value: bytes, most_turns: int) -> bytes:
    """Return the newest lines of a stored value: as many turns as readers see."""
    return value[_after(value, value.count(b"\n") - 2 * most_turns) :]


def whole(value: bytes, most_turns: int) -> History:
    """Return the history of a stored value; raise CorruptHistory where anything of it is wrong."""
    return decoded(window(value, most_turns))


def _after(value: bytes, lines: int) -> int:
    """Return where so many lines have ended."""
    begin = 0
    for _ in range(lines):
        begin = value.index(b"\n", begin) + 1
    return begin


def decoded(value: bytes, history: Callable[[bytes], History] = History.parse_lines) -> History:
    """Return the history of a stored value; raise CorruptHistory, quoting none of it."""
    try:
        return history(value)
    except ValueError as error:
        raise CorruptHistory("redis", error) from None


class Lines(History):
    """Knows its length and its ends without being decoded. What needs more raises CorruptHistory where it cannot be
    decoded."""

    __slots__ = ("_decoded", "_length", "_value", "last_at", "last_id", "stored", "stored_messages")
    last_id: str
    last_at: str
    stored: bytes
    """All that is stored, also the turns that readers do not see."""
    stored_messages: int
    _value: bytes
    _length: int
    _decoded: tuple[Message, ...] | None

    def __init__(self, stored: bytes, messages: int, most_turns: int, end: tuple[str, str]) -> None:
        """`end` is the id and the time of the last message."""
        _set(self, "stored", stored)
        _set(self, "stored_messages", messages)
        _set(self, "last_id", end[0])
        _set(self, "last_at", end[1])
        _set(self, "_length", min(messages, 2 * most_turns))
        _set(self, "_value", stored[_after(stored, messages - self._length) :])
        _set(self, "_decoded", None)

    @property
    def messages(self) -> tuple[Message, ...]:
        if self._decoded is None:
            _set(self, "_decoded", decoded(self._value, History.of_lines).messages)
        return self._decoded or ()

    def __len__(self) -> int:
        return self._length

    @property
    def first_id(self) -> str:
        return _id_at(self._value, 0)

    @property
    def user(self) -> str | None:
        if _USER_BEGINS not in self._value:
            return None
        found = _USER.match(self._value, self._value.rindex(_USER_BEGINS))
        return found[1].decode(errors="replace") if found else None

    def without(self, turns: int) -> tuple[int, str]:
        """Return how many bytes so many of the oldest turns take in `stored`, and the id that then is the first, ""
        where none goes."""
        begin = _after(self.stored, 2 * turns)
        return begin, _id_at(self.stored, begin) if turns else ""

    def validated(self) -> History:
        return decoded(self._value)

    def lines(self) -> bytes:
        return self._value

    def current(self) -> History:
        if _KEY_BEGINS not in self._value:
            return self
        keys = _KEY.findall(self._value)
        distinct = len(set(keys)) == len(keys) and not any(key.startswith(b"turn:") for key in keys)
        return self if distinct else super().current()

    def turn_of(self, key: str) -> Turn | None:
        there = key.startswith("turn:") or _KEY_BEGINS + key.encode() + b'"' in self._value
        return super().turn_of(key) if there else None


def _id_at(value: bytes, begin: int) -> str:
    """Return the id in the line that begins there."""
    end = value.index(b"\n", begin) + 1
    return stamps(value[end - TAIL : end])[0]


class HistorySerializer(BaseSerializer):  # type: ignore[misc]  # django-redis has no types
    """Histories as JSON lines, never pickle."""

    def dumps(self, value: Iterable[Any]) -> bytes:
        """Return the history, or a list of messages that make one, as bytes; raise ValueError if they do not."""
        return History.parse(value).lines()

    def loads(self, value: bytes) -> History:
        """Return the history; raise CorruptHistory, quoting none of it, if it is not one."""
        return decoded(value)
