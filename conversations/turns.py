"""The words every other module uses: Message, Turn, History and Limits."""

import operator
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from types import NoneType
from typing import Any, NamedTuple, Self, overload

import orjson
from msgspec import Struct, ValidationError, convert
from msgspec.json import Decoder

from conversations.ids import AT, MESSAGE_ID, new_ids, next_time, stamp, whole_milliseconds

SESSION_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
SESSION = re.compile(r"(?:[A-Za-z0-9._-]{1,128}:)?[A-Za-z0-9._-]{1,128}")  # with its tenant, if any
USER = re.compile(r"[A-Za-z0-9@._+:-]{1,128}")
QUESTION, ANSWER = "user", "assistant"
_COLUMNS = operator.attrgetter("role", "content", "id", "at", "key", "user")
_NEXT = dict(zip("02468ace", "13579bdf", strict=True))  # the last digits of a turn's two ids
_NOT_MESSAGES = "a message must have role, content, id and at as strings, and nothing else but key and user"
_TURN_KEY = re.compile(f"turn:({MESSAGE_ID.pattern})")


class Message(Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """One line of a conversation; `at` is ISO 8601 in UTC with milliseconds, `key` the Idempotency-Key, and `user`
    whose conversation it is. A question alone has these two, and where there are any."""

    role: str
    content: str
    id: str
    at: str
    key: str | None = None
    user: str | None = None

    def as_dict(self) -> dict[str, str]:
        """Return the message as it is stored: its id and time last, its key and its user only where there are any."""
        if self.key is None and self.user is None:
            return {"role": self.role, "content": self.content, "id": self.id, "at": self.at}
        named = {"key": self.key} if self.key is not None else {}
        named |= {"user": self.user} if self.user is not None else {}
        return {"role": self.role, "content": self.content, **named, "id": self.id, "at": self.at}

    def line(self) -> bytes:
        """Return the message as one line of JSON, newline included; its last 77 bytes are id and at."""
        return orjson.dumps(self.as_dict(), option=orjson.OPT_APPEND_NEWLINE)

    @property
    def time(self) -> datetime:
        return datetime.fromisoformat(self.at)


_decode = Decoder(list[Message]).decode  # in C, also the check of every value's type


class Turn(NamedTuple):
    """One question and its answer: the unit that is stored, trimmed and merged whole."""

    question: Message
    answer: Message

    @property
    def id(self) -> str:
        """The question's id; the answer's is its successor."""
        return self.question.id

    @property
    def key(self) -> str:
        """The Idempotency-Key to ask the question again with: its own, or else one made from its id."""
        return self.question.key or f"turn:{self.id}"

    @property
    def keys(self) -> frozenset[str]:
        """Every Idempotency-Key that names the turn; the one made from its id always does."""
        return frozenset((f"turn:{self.id}", self.key))

    def is_duplicate_of(self, other: "Turn") -> bool:
        """Return whether it is the same turn, or another answer to the same question: one key names both."""
        return not self.keys.isdisjoint(other.keys)

    def messages(self) -> tuple[Message, Message]:
        return (self.question, self.answer)

    def lines(self) -> bytes:
        return self.question.line() + self.answer.line()


@dataclass(frozen=True, slots=True, eq=False)
class History(Sequence[Message]):
    """The messages of one conversation: whole turns, in the order of their ids, each id once."""

    messages: tuple[Message, ...] = ()

    def __eq__(self, other: object) -> bool:
        return self.messages == other.messages if isinstance(other, History) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.messages)

    @classmethod
    def of(cls, turns: Iterable[Turn]) -> "History":
        return cls(tuple(message for turn in turns for message in turn.messages()))

    @classmethod
    def parse(cls, records: Iterable[Any]) -> "History":
        """Return the history of stored records; raise ValueError, quoting none of them, if they are not one."""
        try:
            messages = convert(list(records), list[Message])
        except (TypeError, ValidationError):
            raise ValueError(_NOT_MESSAGES) from None
        return cls.checked(messages)

    @classmethod
    def of_lines(cls, lines: bytes) -> Self:
        """Return the history of lines that this service wrote. The types of their values and the order of their ids
        alone are checked: a turn waits for it. Raise ValueError, quoting none of them, if they are not one."""
        messages = _messages(lines)
        ids, roles = [message.id for message in messages], [message.role for message in messages]
        if roles != [QUESTION, ANSWER] * (len(roles) // 2) or any(map(operator.ge, ids, ids[1:])):
            raise ValueError("not the turns of a conversation")
        return cls(tuple(messages))

    @classmethod
    def parse_lines(cls, lines: bytes) -> Self:
        """Return the history of stored lines, of which everything is checked; raise ValueError, quoting none of them,
        if they are not one."""
        return cls.checked(_messages(lines))

    @classmethod
    def checked(cls, messages: Sequence[Message]) -> Self:
        """Return the history of these messages; raise ValueError, quoting none of them, if they are not one."""
        # By columns, which Python walks in C.
        if not messages or len(messages) % 2:
            raise ValueError("a turn is not whole")
        roles, contents, ids, ats, keys, users = zip(*map(_COLUMNS, messages), strict=True)
        if set(map(type, contents)) != {str} or not {*map(type, keys), *map(type, users)} <= {str, NoneType}:
            raise ValueError("a message's values must be strings")
        if not all(user is None or USER.fullmatch(user) for user in {*users}):
            raise ValueError("a message's user is malformed")
        if not (_all_match(MESSAGE_ID, ids, 36) and _all_match(AT, ats, 24)):
            raise ValueError("a message's id or at is malformed")
        try:
            deque(map(datetime.fromisoformat, ats), maxlen=0)
        except ValueError:
            raise ValueError("a message's at is no time") from None
        if ids[1::2] != tuple([question[:-1] + _NEXT.get(question[-1], "") for question in ids[::2]]):
            raise ValueError("an answer's id does not follow its question's")
        if any(map(operator.ge, ids, ids[1:])):
            raise ValueError("ids are not in ascending order")
        if roles != (QUESTION, ANSWER) * (len(roles) // 2):
            raise ValueError("questions and answers do not alternate")
        return cls(tuple(messages))

    @property
    def first_id(self) -> str | None:
        return self.messages[0].id if self.messages else None

    @property
    def last_id(self) -> str | None:
        return self.messages[-1].id if self.messages else None

    @property
    def last_at(self) -> str | None:
        return self.messages[-1].at if self.messages else None

    @property
    def user(self) -> str | None:
        """Whose conversation it is: the user of the newest question that has one. Each turn that its writer adds to
        what it has read has the user of that, so this one is not trimmed; two that could not see each other may have
        two users, and then the later one counts for all readers."""
        return next((question.user for question in self.messages[-2::-2] if question.user), None)

    def validated(self) -> "History":
        """Return the history, of which every character was checked; raise CorruptHistory where one is wrong."""
        return self

    def turns(self) -> tuple[Turn, ...]:
        return tuple(map(Turn, self.messages[::2], self.messages[1::2]))

    def lines(self) -> bytes:
        """Return the history as it is kept in Redis: one JSON object a line."""
        return b"".join(message.line() for message in self.messages)

    def knows(self, turn: Turn) -> bool:
        """Return whether the turn is there, or a duplicate of it."""
        return any(map(turn.is_duplicate_of, self.turns()))

    def after(self, tombstone: str) -> "History":
        """Return the turns later than a tombstone."""
        if not tombstone or (self.first_id or "~") > tombstone:
            return self
        return History.of(turn for turn in self.turns() if turn.id > tombstone)

    def current(self) -> "History":
        """Return the history without superseded turns: of those with one Idempotency-Key the latest stays.

        Two tries of one question can be in two stores when neither could see the other's.
        """
        if not any(question.key for question in self.messages[::2]):
            return self
        latest = {key: turn.id for turn in self.turns() for key in turn.keys}
        return History.of(turn for turn in self.turns() if all(latest[key] == turn.id for key in turn.keys))

    def turn_of(self, key: str) -> Turn | None:
        """Return the latest turn that this Idempotency-Key names."""
        return next((turn for turn in reversed(self.turns()) if key in turn.keys), None)

    @overload
    def __getitem__(self, index: int) -> Message: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Message, ...]: ...
    def __getitem__(self, index: int | slice) -> Message | tuple[Message, ...]:
        return self.messages[index]

    def __len__(self) -> int:
        return len(self.messages)

    def __iter__(self) -> Iterator[Message]:
        return iter(self.messages)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a stored history may grow to; the oldest whole turns go first, the newest one never."""

    ttl: int
    max_turns: int
    max_bytes: int

    def trim(self, turns: Sequence[Turn]) -> tuple[Turn, ...]:
        """Return the newest turns that fit, at least one of any."""
        return self.fit(turns)[0]

    def fit(self, turns: Sequence[Turn]) -> tuple[tuple[Turn, ...], int]:
        """Return the same with the bytes that they take as lines."""
        kept: list[Turn] = []
        size = 0
        for turn in reversed(turns[-self.max_turns :]):
            more = len(turn.lines())
            if kept and size + more > self.max_bytes:
                break
            kept.append(turn)
            size += more
        return tuple(reversed(kept)), size


def make_turn(question: str, answer: str, seen: str | None, asked: datetime, answered: datetime,
              key: str | None = None, user: str | None = None) -> Turn:  # fmt: skip
    """Return a new turn later than `seen`, the `at` of the last message or tombstone its writer has read; raise
    NoLaterTurn."""
    asked = next_time(seen, asked)
    answered = max(whole_milliseconds(answered), asked)
    first, second = new_ids(asked)
    return Turn(
        Message(QUESTION, question, first, stamp(asked), key, user),
        Message(ANSWER, answer, second, stamp(answered)),
    )


def _messages(lines: bytes) -> list[Message]:
    """Return the messages in these lines of JSON; raise ValueError, quoting none of them."""
    if not lines.endswith(b"\n"):
        raise ValueError("it does not end with a newline")
    try:
        # As one array, so that each line is one object: no newline is within a line, JSON escapes it.
        return _decode(b"[%s]" % lines[:-1].replace(b"\n", b","))
    except ValidationError:
        raise ValueError(_NOT_MESSAGES) from None
    except ValueError:
        raise ValueError("not JSON lines") from None


def question_named(key: str | None) -> str | None:
    """Return the id of the question that a key made from an id names, None for any other key."""
    found = _TURN_KEY.fullmatch(key or "")
    return found[1] if found and found[1][-1] in _NEXT else None


def _all_match(one: "re.Pattern[str]", values: Sequence[Any], length: int) -> bool:
    """Return whether every value is a string of that length that the pattern matches from end to end."""
    try:
        joined = "".join(values)
    except TypeError:
        return False
    return {*map(len, values)} == {length} and _repeated(one.pattern).fullmatch(joined) is not None


@cache
def _repeated(pattern: str) -> "re.Pattern[str]":
    return re.compile(f"(?:{pattern})*", re.ASCII)
