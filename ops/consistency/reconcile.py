"""Reporting how far the two stores are out of step, and repairing it."""

import logging
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from django.db import connections

from conversations.errors import StoreUnavailable
from conversations.history import repair, trimmed
from conversations.policy import Routing
from conversations.stores import ALIASES, bulk, other, store
from conversations.stores.batches import retried
from ops.consistency import compare
from ops.consistency.compare import IN_STEP, KINDS, Comparison
from ops.long_work import Advance

EXAMPLES = 20
WORKERS = 8


@dataclass
class Reconciled:
    """What was found, and what was repaired."""

    routing: Routing
    kinds: Counter[str] = field(default_factory=Counter)
    """How many conversations there are of each kind of comparison."""
    compared: int = 0
    tombstoned: int = 0
    expected: int = 0
    """Those that are not in step, and need not be without dual write."""
    trimmed: int = 0
    """Those that `trim` removed from one store alone: the other has them, and they are read back when asked for."""
    trouble: int = 0
    """Those that should be in step and were not."""
    repaired: int = 0
    examples: list[tuple[str, Comparison]] = field(default_factory=list)
    """The first few that are trouble, with their kinds."""

    @property
    def left(self) -> int:
        """How many are still out of step."""
        return self.trouble - self.repaired

    def as_dict(self) -> dict[str, Any]:
        """Return the report for machines."""
        return {
            **{kind: self.kinds[kind] for kind in KINDS},
            "compared": self.compared,
            "tombstoned": self.tombstoned,
            "expected": self.expected,
            "trimmed": self.trimmed,
            "trouble": self.trouble,
            "primary": self.routing.primary,
            "dual_write": self.routing.dual_write,
            "repaired": self.repaired,
            "left": self.left,
            "examples": [{"session": one.session, "kind": kind} for kind, one in self.examples],
        }


def reconcile(routing: Routing, *, apply: bool = False, advance: Advance = lambda done, total: None) -> Reconciled:
    """Compare everything, and with `apply` repair what should be in step and is not. Raise StoreUnavailable."""
    found = Reconciled(routing)
    total = max(map(_about, ALIASES))
    with quietly():
        for batch in _suspects(found, advance, total):
            _judge(found, batch, apply)
    return found


def _about(alias: str) -> int:
    """Return about how many conversations the store has, 0 where counting takes too long: only the progress needs it.
    Raise StoreUnavailable where the store is out."""
    store(alias).ping()
    with suppress(StoreUnavailable):
        return bulk(alias).estimate()
    return 0


def _suspects(found: Reconciled, advance: Advance, total: int) -> Iterator[list[Comparison]]:
    """Count what is as it should be; yield the rest in batches, after a second look."""
    suspects: list[Comparison] = []
    for batch in compare.walk():
        found.compared += len(batch)
        found.tombstoned += sum(one.tombstoned for one in batch)
        advance(found.compared, max(total, found.compared))
        for one in batch:
            if one.expected(found.routing):
                _count(found, one)
            else:
                suspects.append(one)
        if len(suspects) >= compare.BATCH:
            yield _second_look(found, suspects)
            suspects = []
    yield _second_look(found, suspects)


def _second_look(found: Reconciled, suspects: list[Comparison]) -> list[Comparison]:
    remaining = compare.stays_so(suspects, time.monotonic())
    found.kinds[IN_STEP] += len(suspects) - len(remaining)
    removed = _removed(remaining)
    for one in removed:
        _count(found, one)
    found.trimmed += len(removed)
    found.expected += len(removed)
    return [one for one in remaining if one not in removed]


def _removed(batch: list[Comparison]) -> list[Comparison]:
    """Return those that `trim` removed from one store alone, and that are otherwise in step. Raise StoreUnavailable."""
    removed = []
    for alias in ALIASES:
        absent = {
            one.session: one for one in batch if one.stores == (other(alias),) and not (one.flagged or one.corrupt)
        }
        names = retried(partial(trimmed.removed_from, alias, absent))
        removed += [absent[session] for session in names if not absent[session].missing.get(other(alias))]
    return removed


def _judge(found: Reconciled, batch: list[Comparison], apply: bool) -> None:
    for one in batch:
        _count(found, one)
        found.trouble += 1
        if len(found.examples) < EXAMPLES:
            found.examples.append((one.kind(found.routing), one))
    if apply:
        found.repaired += len(batch) - len(repair_batch(batch))


def _count(found: Reconciled, one: Comparison) -> None:
    kind = one.kind(found.routing)
    found.kinds[kind] += 1
    found.expected += kind not in (IN_STEP, compare.NOT_A_SESSION) and one.expected(found.routing)


def repair_batch(batch: list[Comparison]) -> list[Comparison]:
    """Repair the conversations; return those that are out of step still. Raise StoreUnavailable."""
    repair_all(batch)
    again = [one for one in compare.compare_all([one.session for one in batch]) if not one.in_step or one.flagged]
    return compare.stays_so(again, time.monotonic())


def repair_all(batch: list[Comparison]) -> None:
    """Repair the conversations, some at a time: a write waits for a disk. Raise StoreUnavailable."""
    if not batch:
        return
    at_once = min(WORKERS, len(batch))
    with ThreadPoolExecutor(at_once, thread_name_prefix="repair") as executor:
        for done in [executor.submit(_repair_some, batch[number::at_once]) for number in range(at_once)]:
            done.result()


def _repair_some(batch: list[Comparison]) -> None:
    """Repair them; what is no history in a store is quarantined there first."""
    try:
        for one in batch:
            for alias in one.corrupt:
                retried(partial(store(alias).quarantine, one.session))
            retried(partial(repair.conversation, one.session))
    finally:
        connections.close_all()


@contextmanager
def quietly() -> Iterator[None]:
    """Keep the log line that each repaired conversation has out of an operator's terminal: there are counts."""
    logger = logging.getLogger(repair.__name__)
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)


def in_words(found: Reconciled) -> list[str]:
    """Return the report, for people."""
    routing = found.routing
    dual = "on" if routing.dual_write else "off"
    lines = [f"{found.compared} conversations compared; primary {routing.primary}, dual write {dual}"]
    for kind in KINDS:
        fine = not routing.dual_write and kind in (compare.FALLBACK_BEHIND, compare.ONLY_IN[routing.primary])
        note = "  (expected without dual write)" if fine and found.kinds[kind] else ""
        lines.append(f"  {kind.replace('_', ' '):<16}{found.kinds[kind]:>9}{note}")
    lines.append(f"  {'tombstoned':<16}{found.tombstoned:>9}")
    if found.trimmed:
        lines.append(f"  {'trimmed':<16}{found.trimmed:>9}  (expected: removed from one store to make room)")
    for kind, one in found.examples:
        lines.append(f"  {one.session}: {_sentence(kind, one)}")
    if found.trouble > len(found.examples):
        lines.append(f"  … and {found.trouble - len(found.examples)} more")
    if found.repaired:
        lines.append(f"{found.repaired} repaired")
    return lines


def _sentence(kind: str, one: Comparison) -> str:
    parts = [f"{alias} is missing {_turns(ids)}" for alias, ids in one.missing.items() if ids]
    if one.corrupt:
        parts.append(f"no history in {' and '.join(one.corrupt)}")
    if one.conflicting:
        parts.append(f"{len(one.conflicting)} turns are not the same in both: this needs a person")
    if one.flagged:
        parts.append(f"flagged in {' and '.join(one.flagged)}")
    return f"{kind.replace('_', ' ')}: {', '.join(parts)}"


def _turns(ids: frozenset[str]) -> str:
    number = len(ids - {"tombstone"})
    parts = [f"{number} turn{'s' * (number != 1)}"] if number else []
    return " and ".join(parts + ["the deletion"] * ("tombstone" in ids))
