"""What the service returns, as values. Fields that a newer service adds are ignored."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

BEHIND = "behind"


@dataclass(frozen=True, slots=True)
class Answer:
    """A stored turn."""

    session_id: str
    answer: str
    message_id: str
    """The conversation sends it back with the next question."""
    msg_count_before: int
    """How many messages were in context."""
    new_thread: bool
    store: str
    """The store that was read."""
    stored_in: tuple[str, ...]
    """Every store that acknowledged the turn."""
    context: str
    """`full` or `behind`."""
    replayed: bool
    """Whether an earlier try had stored it."""

    def __str__(self) -> str:
        return self.answer

    @property
    def behind(self) -> bool:
        """Whether turns that this client was given may be missing in it: a store that may have them is unavailable."""
        return self.context == BEHIND

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> "Answer":
        return cls(
            session_id=body["session_id"],
            answer=body["answer"],
            message_id=body["message_id"],
            msg_count_before=body["msg_count_before"],
            new_thread=body["new_thread"],
            store=body["store"],
            stored_in=tuple(body["stored_in"]),
            context=body["context"],
            replayed=body["replayed"],
        )


@dataclass(frozen=True, slots=True)
class Message:
    """One message: `role` is `user` or `assistant`, `at` ISO 8601 in UTC."""

    role: str
    content: str
    id: str
    at: str
    key: str | None = None
    """The Idempotency-Key of the question, where it had one."""


@dataclass(frozen=True, slots=True)
class History(Sequence[Message]):
    """The messages that are kept of a conversation, oldest first."""

    messages: tuple[Message, ...] = ()
    store: str = ""
    context: str = "full"

    @property
    def behind(self) -> bool:
        """Whether a store that is unavailable now may have more."""
        return self.context == BEHIND

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

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> "History":
        messages = (
            Message(each["role"], each["content"], each["id"], each["at"], each.get("key")) for each in body["messages"]
        )
        return cls(tuple(messages), body["store"], body["context"])
