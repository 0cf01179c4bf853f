"""Deliberate breaks of the rules of DESIGN 4: the simulation has to find each, or it would prove nothing."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

from conversations import history, policy
from conversations.datasets import Coverage, Dataset, Verdict
from conversations.errors import StoreUnavailable
from conversations.history import repair, writing
from conversations.history.reading import Look
from conversations.runtime import datasets
from conversations.runtime.state import ProcessState
from conversations.stores import ALIASES
from conversations.stores.base import Receipt
from conversations.stores.bulk import BulkStore
from conversations.stores.memory import MemoryStore
from conversations.turns import Turn

Patch = tuple[Any, str, Any]


@contextmanager
def broken(name: str) -> Iterator[None]:
    """Break a rule until the end of the block."""
    owner, attribute, value = BREAKS[name]()
    with mock.patch.object(owner, attribute, value):
        yield


def _only_the_primary() -> Patch:
    plan = policy.plan_read
    return policy, "plan_read", lambda inputs: replace(plan(inputs), order=plan(inputs).order[:1], last_resort=())


def _missing_is_new() -> Patch:
    load = Look.load

    def found(self: Look, alias: str) -> bool:
        load(self, alias)
        return alias not in self.failed

    return Look, "load", found


def _any_last_id_will_do() -> Patch:
    read = history.read
    return history, "read", lambda session, expected=None, **options: read(session, **options)


def _flags_are_not_looked_at() -> Patch:
    return ProcessState, "_may_have_more", lambda self, alias, session: False


def _no_flag_is_set() -> Patch:
    append = MemoryStore._append
    return (
        MemoryStore,
        "_append",
        lambda self, session, turn, missing, flag: append(self, session, turn, missing, False),
    )


def _a_failed_write_is_stored() -> Patch:
    append = writing.Offer.append

    def stored(self: writing.Offer, flag: bool) -> Receipt:
        try:
            return append(self, flag)
        except StoreUnavailable:
            return Receipt(stored=True, created=False)

    return writing.Offer, "append", stored


def _keys_are_forgotten() -> Patch:
    return Turn, "keys", property(lambda self: frozenset((f"turn:{self.id}",)))


def _nothing_is_repaired() -> Patch:
    return repair.Flagged, "step", lambda self, deadline: 0


def _deletions_leave_no_tombstone() -> Patch:
    delete = MemoryStore.delete

    def forgotten(self: MemoryStore, session: str, upto: str, *, flag: bool = False) -> bool:
        try:
            return delete(self, session, upto, flag=flag)
        finally:
            self._tombstones.pop(session, None)

    return MemoryStore, "delete", forgotten


def _data_are_always_the_same() -> Patch:
    def judged(found: Dataset | None, instance: str, noted: Any) -> Verdict:
        return Verdict.SAME if found else Verdict.NEW

    return datasets.datasets, "judge", judged


def _dual_write_is_coverage() -> Patch:
    return Coverage, "holds", lambda self, known: frozenset(ALIASES)


def _last_ids_are_compared() -> Patch:
    def last(self: BulkStore, sessions: Any) -> Mapping[str, bytes]:
        found = self.contents(sessions)
        ids = {session: getattr(one, "history", None) for session, one in found.items()}
        return {session: (one.last_id or "").encode() for session, one in ids.items() if one}

    return BulkStore, "digests", last


def _nobody_is_cut_off() -> Patch:
    return datasets, "cut_off", lambda report: frozenset()


def _unknown_is_not_stored() -> Patch:
    written = writing.Write.written
    return writing.Write, "written", lambda self: replace(written(self), unknown=False)


BREAKS: dict[str, Callable[[], Patch]] = {
    "1 only the primary is read": _only_the_primary,
    "2 what the primary is missing is new": _missing_is_new,
    "3 any last id will do": _any_last_id_will_do,
    "4 flags are not looked at": _flags_are_not_looked_at,
    "5 no flag is set": _no_flag_is_set,
    "6 a failed write is stored": _a_failed_write_is_stored,
    "7 keys are forgotten": _keys_are_forgotten,
    "8 nothing is repaired": _nothing_is_repaired,
    "10 deletions leave no tombstone": _deletions_leave_no_tombstone,
    "11 data are always the same": _data_are_always_the_same,
    "12 dual write is coverage": _dual_write_is_coverage,
    "13 last ids are compared": _last_ids_are_compared,
    "14 nobody is cut off": _nobody_is_cut_off,
    "15 unknown is not stored": _unknown_is_not_stored,
}
"""By the number of the rule. Rules 9 and 16 are about time that is lost, not about turns: `benchmarks.outages` and
`tests/unit/test_breaker.py` show the first, `tests/faults/test_requests.py` the second."""
