"""Whole turns, out of the items that a framework adds one by one."""

import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from onesource_client.errors import InvalidRequest

T = TypeVar("T")
QUESTION, ANSWER = "user", "assistant"
MAX_CHARACTERS = 65_536  # of a question and of an answer; the service refuses longer ones


@dataclass(frozen=True, slots=True)
class Part:
    """What one item is to a turn. `goes_on`: the answer is not finished, as where a tool is called."""

    role: Literal["user", "assistant", "other"]
    text: str = ""
    goes_on: bool = False


@dataclass(frozen=True, slots=True)
class WholeTurn:
    """A turn, and how many of the items it and what is before it take: 0 while it cannot be stored."""

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
        there; added again, a turn has the same Idempotency-Key, and is stored once. Raise InvalidRequest before the
        block where a text is too long."""
        before, self._number = self.items, 0
        self.items = [*self.items, *items]
        try:
            self._check_lengths()
            yield
        except BaseException:
            self.items = before
            raise
        self._keys.clear()

    def turn(self) -> WholeTurn | None:
        """Return the first turn that is whole: it ends with an answer that does not go on, before the next question."""
        turn = self._first(self.items)
        return turn if turn.items else None

    def _check_lengths(self) -> None:
        rest = self.items
        while True:
            turn = self._first(rest)
            for name, text in (("question", turn.question), ("answer", turn.answer)):
                if len(text) > MAX_CHARACTERS:
                    raise InvalidRequest(
                        f"the {name} of a turn has {len(text):,} characters; onesource keeps up to"
                        f" {MAX_CHARACTERS:,} characters of each"
                    )
            if not turn.items:
                return
            rest = rest[turn.items :]

    def _first(self, items: list[T]) -> WholeTurn:
        questions: list[str] = []
        answers: list[str] = []
        end = 0
        for number, item in enumerate(items, 1):
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
        return WholeTurn("\n\n".join(questions), "\n\n".join(answers), end)

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
