"""Removing conversations from the store that keeps them in memory until it uses less than a size, oldest first.

Each stays in the other store, which is first given what it is missing.
"""

import re
from dataclasses import asdict, dataclass
from itertools import accumulate
from operator import itemgetter
from typing import Any

from conversations import merge
from conversations.history import trimmed
from conversations.stores import BACKENDS, bulk, limits, memory_store, other, reachable
from conversations.stores.base import Contents
from conversations.stores.bulk import Share
from conversations.stores.bulk_reader import Found
from conversations.turns import Turn
from ops.errors import NoMemoryLimit, NoMemoryStore, NotInOther
from ops.long_work import Advance

BATCH = 50  # conversations between two looks at the memory
_PAGE = 200
_SAMPLE = 200
_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,3})?)(%|[kmg]?b)?")
_UNITS = {"": 1, "b": 1, "kb": 2**10, "mb": 2**20, "gb": 2**30}


@dataclass(frozen=True, slots=True)
class Size:
    """A size as an operator writes it: 80%, 2gb, 500mb or 1000."""

    number: float
    unit: str

    @classmethod
    def parse(cls, text: str) -> "Size":
        """Return the size; raise ValueError for a text that is none."""
        match = _SIZE.fullmatch(text.lower())
        if not match or (match[2] == "%" and not 0 < float(match[1]) <= 100):
            raise ValueError(text)
        return cls(float(match[1]), match[2] or "")

    def in_bytes(self, limit: int) -> int:
        """Return how many bytes that is, a percentage of the store's limit; raise NoMemoryLimit where that is 0."""
        if self.unit != "%":
            return int(self.number * _UNITS[self.unit])
        if not limit:
            raise NoMemoryLimit(BACKENDS[alias()].owner)
        return int(limit * self.number / 100)


@dataclass
class MemoryReport:
    """What was done to the memory, in bytes and in conversations."""

    used_before: int
    goal: int
    removed: int = 0
    copied: int = 0
    kept: int = 0
    used: int = 0
    conversations: int | None = None
    """How many there were; None where none had to go."""

    def as_dict(self) -> dict[str, Any]:
        """Return the report for machines, which know `copied` as `moved_to_mongo`, by the other store's alias."""
        names = {"copied": f"moved_to_{other(alias())}"}
        return {names.get(name, name): value for name, value in asdict(self).items() if value is not None}


def alias() -> str:
    """Return the alias of the store that keeps conversations in memory; raise NoMemoryStore."""
    if found := memory_store():
        return found
    raise NoMemoryStore


def labels() -> tuple[str, str]:
    """Return the names for people of that store and of the other one; words for them where there is no such store."""
    full = memory_store()
    return (BACKENDS[full].label, BACKENDS[other(full)].label) if full else ("store", "the other store")


def shrink(wanted: Size, *, apply: bool, discard: bool, advance: Advance) -> MemoryReport:
    """Remove conversations until the store uses no more than that; with `discard` also those that the other store
    does not have. Raise NoMemoryLimit or NotInOther.

    Not by OBJECT IDLETIME: each read of a key resets it, also that of a backup or a listing.
    """
    memory = bulk(alias()).memory()
    report = MemoryReport(memory.used, wanted.in_bytes(memory.limit), used=memory.used)
    if report.used <= report.goal:
        return report
    if not discard and other(alias()) not in reachable():
        raise NotInOther(*labels())
    oldest = _oldest_first()
    report.conversations = len(oldest)
    if apply:
        _shrink(oldest, report, discard, advance)
    else:
        report.removed = _enough(oldest, report.used - report.goal)
    return report


def _oldest_first() -> list[tuple[str, str]]:
    """Return every conversation of the store once, with its last id."""
    found: dict[str, str] = {}
    for page in bulk(alias()).all_last_ids(_PAGE):
        found |= page
    return sorted(found.items(), key=itemgetter(1))


def _shrink(oldest: list[tuple[str, str]], report: MemoryReport, discard: bool, advance: Advance) -> None:
    done = 0
    while report.used > report.goal and done < len(oldest):
        last_ids = _needed(dict(oldest[done : done + BATCH]), report.used - report.goal)
        safe = last_ids if discard else _copied(last_ids, report)
        trimmed.removed(alias(), max(safe.values(), default=""))
        gone = bulk(alias()).remove(safe, tombstones=False).removed
        done += len(last_ids)
        report.removed += len(gone)
        report.kept += len(last_ids) - len(gone)
        report.used = bulk(alias()).memory().used
        advance(done, len(oldest))


def _needed(last_ids: dict[str, str], excess: int) -> dict[str, str]:
    """Return no more of them than are needed: a few long ones may be all that there is."""
    before = accumulate(bulk(alias()).sizes(last_ids).values(), initial=0)
    number = sum(1 for size in before if size < excess)
    return dict(list(last_ids.items())[:number])


def _enough(oldest: list[tuple[str, str]], excess: int) -> int:
    """Return about how many would have to go."""
    sizes = list(filter(None, bulk(alias()).sizes(dict(oldest[:_SAMPLE])).values()))
    each = sum(sizes) // len(sizes) if sizes else 0
    return min(len(oldest), -(-excess // each)) if each else 0


def _copied(last_ids: dict[str, str], report: MemoryReport) -> dict[str, str]:
    """Return those of which the other store has every turn, after it was given what it was missing. What is no history
    in the full store is none of these."""
    full, there = (bulk(one).digests(last_ids) for one in (alias(), other(alias())))
    differing = [session for session in last_ids if session not in full or full[session] != there.get(session)]
    ours, theirs = (bulk(one).contents(differing) for one in (alias(), other(alias())))
    corrupt = {session for session, one in ours.items() if not isinstance(one, Contents)}
    missing = {session: _missing(one, theirs[session]) for session, one in ours.items() if isinstance(one, Contents)}
    incomplete = {session: turns for session, turns in missing.items() if turns}
    left = bulk(alias()).ttls(incomplete)
    bulk(other(alias())).put([Share(name, turns, left.get(name, 1)) for name, turns in incomplete.items()])
    report.copied += len(incomplete)
    return {session: last for session, last in last_ids.items() if session not in corrupt}


def _missing(ours: Contents, theirs: Found) -> tuple[Turn, ...]:
    """Return the turns that the other store is missing; all of them where it has something that is no history."""
    held = theirs if isinstance(theirs, Contents) else Contents(None, None, None)
    return merge.plan({alias(): ours, other(alias()): held}, limits()).missing[other(alias())].turns
