"""What every contender stores: questions and answers whose messages take 197 bytes each as onesource keeps them."""

import itertools
import uuid
from datetime import UTC, datetime, timedelta

BYTES = 197  # of a message as a line of JSON: role, content, id, at
_FRAME = len('{"role":"","content":"","id":"","at":""}\n') + len("0" * 36) + len("2026-01-01T00:00:00.000Z")
QUESTION = "What did we decide about the delivery, and who was going to call them back? ".ljust(
    BYTES - _FRAME - len("user"), "?"
)
ANSWER = "We decided to wait until Monday, and you wanted to call them back yourself. ".ljust(
    BYTES - _FRAME - len("assistant"), "."
)
Pair = tuple[str, str]
"""A question and its answer."""


def pairs(number: int) -> list[Pair]:
    """Return so many, all alike."""
    return [(QUESTION, ANSWER)] * number


def named_pair(name: str) -> Pair:
    """Return one that is unlike every other."""
    return f"{name} {QUESTION}"[: len(QUESTION)], f"{name} {ANSWER}"[: len(ANSWER)]


_millisecond = itertools.count()


def lines(pair: Pair) -> bytes:
    """Return the pair as two lines, as onesource keeps a turn: each later than the one before."""
    import orjson

    at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(milliseconds=next(_millisecond))
    first = uuid.UUID(int=(int(at.timestamp() * 1000) << 80) | (7 << 76) | (1 << 63))
    return b"".join(
        orjson.dumps(
            {"role": role, "content": content, "id": str(each), "at": at.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"},
            option=orjson.OPT_APPEND_NEWLINE,
        )
        for role, content, each in (("user", pair[0], first), ("assistant", pair[1], uuid.UUID(int=first.int + 1)))
    )
