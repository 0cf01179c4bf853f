"""Answerer: the interface of every answerer."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

from conversations.turns import History, Turn

BYTES_PER_TOKEN = 4
"""About what a token is in English. An estimate: counting exactly needs the tables of each model's tokenizer."""


class Answerer(ABC):
    """Answers a question, given the history. There is one instance in a process, used by many threads. One that knows
    what an answer took adds it to its span: `traces.annotate(tokens_in=…, tokens_out=…)`."""

    @abstractmethod
    def answer(self, question: str, history: History, *, behind: bool = False) -> Iterator[str]:
        """Yield the answer piece by piece; raise AnswererFailed where there is none. `behind`: the history may be
        missing turns that cannot be read now."""


def window(history: History, limit: int) -> tuple[Turn, ...]:
    """Return the newest whole turns whose text fits in so many bytes: what a model is shown."""
    kept: list[Turn] = []
    for turn in reversed(history.turns()):
        limit -= sum(len(message.content.encode()) for message in turn.messages())
        if limit < 0:
            break
        kept.append(turn)
    return tuple(reversed(kept))
