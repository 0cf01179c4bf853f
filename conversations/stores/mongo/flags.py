"""Unsynced flags in MongoDB, each a field of its conversation's document.

Their values are random hex digits, so those of one range are a part of known size. By such parts many of them are
counted and listed: SecantusDB reads every document that a condition selects, whatever the limit.
"""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from pymongo.collection import Collection

from conversations.stores.sessions import is_key, session_of

Documents = Collection[dict[str, Any]]

_SAMPLES = (("01", 256), ("1", 16), (None, 1))  # up to where, and the part of all flags that this is
_ENOUGH = 128  # in a sample, to tell how many there are to a tenth
_MOST = 1_000  # in one part of a list


def counted(documents: Documents) -> tuple[list[str], int]:
    """Return flagged sessions, and about how many there are; if they are few, all of them and exactly."""
    for end, part in _SAMPLES:
        found = _find(documents, "", end)
        if part == 1 or len(found) >= _ENOUGH:
            break
    return found, part * len(found)


def walk(documents: Documents) -> Iterator[list[str]]:
    """Yield flagged sessions by parts, each that is flagged throughout once."""
    digits = _digits(counted(documents)[1])
    ends = [f"{end:0{digits}x}" for end in range(1, 16**digits)]
    for begin, end in pairwise(["", *ends, None]):
        yield _find(documents, begin or "", end)


def clear(documents: Documents, flags: Mapping[str, str]) -> None:
    """Clear those flags that still are what they were."""
    # By the values alone, since no two flags ever have the same: a second list in the condition takes twice the time.
    documents.update_many({"mark": {"$in": list(flags.values())}}, {"$unset": {"mark": ""}})


def _digits(number: int) -> int:
    """Return by how many digits of their values so many flags are parted."""
    return len(f"{(number - 1) // _MOST:x}") if number > _MOST else 0


def _find(documents: Documents, begin: str, end: str | None) -> list[str]:
    values = {"$gte" if begin else "$gt": begin} | ({"$lt": end} if end else {})
    keys = (one["_id"] for one in documents.find({"mark": values}, {"_id": 1}))
    return [session_of(key) for key in keys if isinstance(key, str) and is_key(key)]
