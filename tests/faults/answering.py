"""The answerer of the fault suite: no two answers are alike, so a lost, doubled or swapped one is seen."""

from collections.abc import Iterator
from uuid import uuid4

from conversations.answerers.base import Answerer
from conversations.turns import History


class Unique(Answerer):
    """Repeats the question with a text that occurs in no other answer."""

    def answer(self, question: str, history: History) -> Iterator[str]:
        yield f"{question} was answered with {uuid4().hex[:12]}"
