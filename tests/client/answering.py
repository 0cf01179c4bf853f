"""An answerer in pieces, which a test holds back after the first one, for as long as a file is there."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

from conversations.answerers.base import Answerer
from conversations.turns import History

HOLD, ASKED = "HOLD_ANSWERS", "ASKED_FILE"
MOST_SECONDS = 60.0


class InPieces(Answerer):
    """Answers with what was asked, and writes each question that it answers to a file."""

    def answer(self, question: str, history: History, *, behind: bool = False) -> Iterator[str]:
        with Path(os.environ[ASKED]).open("a") as asked:
            asked.write(f"{question}\n")
        yield "You asked: "
        hold, deadline = Path(os.environ[HOLD]), time.monotonic() + MOST_SECONDS
        while hold.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        yield question
        yield f" ({len(history)} before)"
