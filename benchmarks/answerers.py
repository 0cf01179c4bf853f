"""Answerers that take a known time, so that what is measured is the rest."""

import time
from collections.abc import Iterator

from benchmarks.messages import ANSWER
from conversations.answerers.base import Answerer
from conversations.turns import History


class Instant(Answerer):
    def answer(self, question: str, history: History, *, behind: bool = False) -> Iterator[str]:
        yield ANSWER


class OneSecond(Answerer):
    def answer(self, question: str, history: History, *, behind: bool = False) -> Iterator[str]:
        time.sleep(1)
        yield ANSWER
