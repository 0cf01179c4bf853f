"""An answerer that a test holds back, for as long as a file is there."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

from conversations.answerers.base import Answerer
from conversations.turns import History

VARIABLE = "HOLD_ANSWERS"
MOST_SECONDS = 120.0


class Held(Answerer):
    """Answers when the file that HOLD_ANSWERS names is gone."""

    def answer(self, question: str, history: History, *, behind: bool = False) -> Iterator[str]:
        file = Path(os.environ[VARIABLE])
        deadline = time.monotonic() + MOST_SECONDS
        while file.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        yield "at last"
