"""Giving the target what it is missing, comparing afterwards, and the rehearsal of both."""

from collections.abc import Callable
from contextlib import AbstractContextManager

from conversations.policy import Routing
from conversations.stores import bulk
from ops.consistency import compare, reconcile
from ops.failover.report import Copied, Rehearsed, Verified
from ops.long_work import Advance

SAMPLE = 20
"""How many of the conversations that were copied are read back at the end."""

Progress = Callable[[str], AbstractContextManager[Advance]]
"""Shows how far long work has come."""


def backfill(leaving: str, progress: Progress) -> tuple[Copied, list[str]]:
    """Bring every conversation of the store that is left into step; return what was done, and some of them."""
    done = copied = 0
    sample: list[str] = []
    with progress("backfill") as advance, reconcile.quietly():
        total = bulk(leaving).estimate()
        for sessions in bulk(leaving).sessions(compare.PAGE):
            batch = compare.compare_all(sessions)
            differing = [one for one in batch if not one.in_step]
            reconcile.repair_all(differing)
            copied += len(differing)
            done += len(batch)
            advance(done, max(total, done))
            sample = [one.session for one in batch if one.stores][:SAMPLE] or sample
    return Copied(done, copied), sample


def verify(to: str, progress: Progress) -> tuple[Verified, int]:
    """Compare everything and repair what differs; return what is left, and how many were repaired meanwhile."""
    with progress("verify") as advance:
        found = reconcile.reconcile(Routing(to, False), apply=True, advance=advance)
    return Verified(found.compared, found.left), found.repaired


def rehearse(leaving: str, to: str, progress: Progress) -> Rehearsed:
    """Compare everything and change nothing."""
    missing = compared = 0
    with progress("compare") as advance:
        total = bulk(leaving).estimate()
        for batch in compare.walk():
            compared += len(batch)
            missing += sum(bool(one.missing.get(to)) for one in batch)
            advance(compared, max(total, compared))
    return Rehearsed(compared, missing)
