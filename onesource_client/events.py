"""Server-sent events, and the pieces of an answer that is asked for more than once."""

import json
from collections.abc import Iterator
from typing import Any


class Events:
    """Bytes in, events out."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the name and the data of each event that the chunk completes."""
        *whole, self._rest = (self._rest + chunk).split(b"\n\n")
        for block in whole:
            lines = dict(line.split(b": ", 1) for line in block.split(b"\n") if b": " in line)
            if b"event" in lines and b"data" in lines:
                yield lines[b"event"].decode(), json.loads(lines[b"data"])


class Pieces:
    """What a caller has been given of an answer. A second try sends the answer from its beginning: what was given
    already is left out, and where it is another answer nothing more is given."""

    def __init__(self) -> None:
        self._given = ""
        self._sent = ""
        self.replaced = False
        """Whether the stored answer is not the one whose beginning was given."""

    def begin(self) -> None:
        """Note that the answer is sent from its beginning."""
        self._sent, self.replaced = "", False

    def feed(self, text: str) -> str:
        """Return the part of the text that is to be given."""
        self._sent += text
        if self.replaced or self._given.startswith(self._sent):
            return ""
        if not self._sent.startswith(self._given):
            self.replaced = True
            return ""
        new = self._sent[len(self._given) :]
        self._given = self._sent
        return new

    def end(self, answer: str) -> str:
        """Return what is missing of the whole answer."""
        self.begin()
        rest = self.feed(answer)
        self.replaced = self._given != answer
        return rest
