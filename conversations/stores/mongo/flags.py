"""Unsynced flags in MongoDB, each a field of its conversation's document.

Their values are random hex digits, so those of one range are a part of known size. By such parts many of them are
counted and listed: SecantusDB reads every document that a condition selects, whatever the limit. It needs 0.1 ms for
each, and every process counts every second.
"""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from math import inf
from typing import Any

from pymongo import WriteConcern
from pymongo.collection import Collection

from conversations.stores.batches import batches
from conversations.stores.mongo.filters import unexpired
from conversations.stores.sessions import is_key, session_of

Documents = Collection[dict[str, Any]]

_DIGITS = "0123456789abcdef"
_SAMPLES = (("001", 4096), ("004", 1024), ("01", 256), ("04", 64), ("1", 16), ("4", 4))
"""Up to where after each first digit, and the part of all flags that this is. A walk goes from the lowest values to the
highest, so a sample from one place alone would find all of them or none."""
_ENOUGH = 32  # in a sample, to tell how many there are to a fifth
_MOST = 1_000  # in one part of a list
_CLEARED = 25  # by one command


def counted(documents: Documents, expected: float = inf) -> tuple[list[str], int]:
    """Return flagged sessions, and about how many there are: as many, where those are all. It is quickest where about
    as many are expected; what is flagged is read whole where that is little."""
    for end, part in _SAMPLES[::2] if expected == inf else _SAMPLES:
        if expected >= part * _ENOUGH:
            found = [session for digit in _DIGITS for session in _find(documents, digit, digit + end)]
            if len(found) >= _ENOUGH:
                return found, part * len(found)
    found = _find(documents, "", None)
    return found, len(found)


def walk(documents: Documents) -> Iterator[list[str]]:
    """Yield flagged sessions by parts, each that is flagged throughout once."""
    found, number = counted(documents)
    if number == len(found):
        yield found
        return
    digits = len(f"{number // _MOST:x}")
    ends = [f"{end:0{digits}x}" for end in range(1, 16**digits)]
    for begin, end in pairwise(["", *ends, None]):
        yield _find(documents, begin or "", end)


def clear(documents: Documents, flags: Mapping[str, str]) -> None:
    """Clear those flags that still are what they were."""
    # Nothing waits for the disk: a flag that comes back is cleared again. And by the values alone, which are never the
    # same for two conversations, a few at a time: SecantusDB compares each with all of a list.
    quick = documents.with_options(write_concern=WriteConcern(w=1, j=False))
    for values in batches(flags.values(), _CLEARED):
        quick.update_many({"mark": {"$in": values}}, {"$unset": {"mark": ""}})


def _find(documents: Documents, begin: str, end: str | None) -> list[str]:
    values = {"$gte" if begin else "$gt": begin} | ({"$lt": end} if end else {})
    keys = (one["_id"] for one in documents.find({"mark": values} | unexpired(), {"_id": 1}))
    return [session_of(key) for key in keys if is_key(key)]
