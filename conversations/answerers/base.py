"""Answerer: what anything that answers questions must do."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

from conversations.turns import History, Turn

WINDOW_BYTES = 65_536


class Answerer(ABC):
    """Answers a question in the light of what was said before; made once a process, used by many threads."""

    @abstractmethod
    def answer(self, question: str, history: History) -> Iterator[str]:
        """Yield the answer piece by piece; raise AnswererFailed when there is none."""


def window(history: History, most: int = WINDOW_BYTES) -> tuple[Turn, ...]:
    """Return the newest whole turns whose text is at most so many bytes: what a model is shown."""
    kept: list[Turn] = []
    for turn in reversed(history.turns()):
        most -= sum(len(message.content.encode()) for message in turn.messages())
        if most < 0:
            break
        kept.append(turn)
    return tuple(reversed(kept))
