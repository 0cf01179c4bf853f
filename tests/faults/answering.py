"""The answerer of the fault suite: no two answers are alike, so a lost, doubled or swapped one is seen."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

from django.conf import settings

from conversations.answerers.base import Answerer
from conversations.turns import History

SHOWN = "shown"
"""The file in VAR_DIR with what each answer was given: in the answer itself it would be stored and sent again."""


class Unique(Answerer):
    """Repeats the question with a word that occurs in no other answer, and notes the questions that it was shown."""

    def answer(self, question: str, history: History, *, behind: bool = False) -> Iterator[str]:
        word = uuid4().hex[:12]
        _note([word, *(message.content for message in history[::2])])
        yield f"{question} was answered with {word}"


def _note(words: list[str]) -> None:
    """Add a line in one write, which another thread or process cannot interrupt."""
    file = os.open(Path(settings.VAR_DIR) / SHOWN, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, f"{json.dumps(words)}\n".encode())
    finally:
        os.close(file)
