"""Whole turns, out of the items that a framework adds one by one."""

import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

T = TypeVar("T")
QUESTION, ANSWER = "user", "assistant"


@dataclass(frozen=True, slots=True)
class Part:
    """What one item is to a turn. `goes_on`: the answer is not finished, as where a tool is called."""

    role: Literal["user", "assistant", "other"]
    text: str = ""
    goes_on: bool = False


@dataclass(frozen=True, slots=True)
class WholeTurn:
    """A turn that can be stored, and how many of the items it and what is before it take."""

    question: str
    answer: str
    items: int


class Pending(Generic[T]):
    """The items that are not stored yet."""

    def __init__(self, read: Callable[[T], Part]) -> None:
        self._read = read
        self.items: list[T] = []
        self._number = 0
        """How many turns of the items that are being added are stored."""
        self._keys: dict[tuple[int, WholeTurn], str] = {}

    @contextmanager
    def adding(self, items: Iterable[T]) -> Iterator[None]:
        """Have the items from the beginning of the block on, in which their turns are stored. Where that fails none is
        there; added again, a turn has the same Idempotency-Key, and is stored once."""
        before, self._number = self.items, 0
        self.items = [*self.items, *items]
        try:
            yield
        except BaseException:
            self.items = before
            raise
        self._keys.clear()

    def turn(self) -> WholeTurn | None:
        """Return the first turn that is whole: it ends with an answer that does not go on, before the next question."""
        questions: list[str] = []
        answers: list[str] = []
        end = 0
        for number, item in enumerate(self.items, 1):
            part = self._read(item)
            if part.role == QUESTION:
                if end:
                    break
                questions.append(part.text)
            elif part.role == ANSWER and questions and part.text:
                answers.append(part.text)
                end = number
            if part.goes_on:
                end = 0
        return WholeTurn("\n\n".join(questions), "\n\n".join(answers), end) if end else None

    def key(self, turn: WholeTurn) -> str:
        """Return the Idempotency-Key of the turn, the same for each time that storing it is tried."""
        return self._keys.setdefault((self._number, turn), str(uuid.uuid4()))

    def stored(self, turn: WholeTurn) -> None:
        """Remove the items of a turn that is stored."""
        self.items = self.items[turn.items :]
        self._number += 1

    def clear(self) -> None:
        self.items = []
        self._keys.clear()
