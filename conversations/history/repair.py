"""Bringing the two stores together again: with nobody asked, one process at a time, a bounded batch at a time."""

import logging
import time

from conversations import merge
from conversations.errors import CorruptHistory
from conversations.stores import ALIASES, control, limits, store
from conversations.stores.base import Contents, HistoryStore
from telemetry import metrics
from telemetry.logs import event, hashed

logger = logging.getLogger(__name__)

BATCH_SECONDS = 1.0
MOST_FLAGS = 1_000  # more are only counted: while there are, every conversation is read from both stores


def conversation(session: str) -> bool:
    """Give each store its missing turns of the conversation, tombstones first; return whether anything did.

    Raise StoreUnavailable when a store goes out meanwhile. Every step can be repeated, and the flags go last,
    so that one which was cut off half way is done again whole.
    """
    found = {alias: _inspect(store(alias), session) for alias in ALIASES}
    plan = merge.plan(found, limits())
    for alias, missing in plan.missing.items():
        if missing.tombstone and plan.tombstone:
            store(alias).delete(session, plan.tombstone)
        if missing.turns:
            store(alias).append(session, None, missing.turns)
    changed = any(plan.missing.values())
    for alias, contents in found.items():
        if contents.flag:
            control(alias).clear_flag(session, contents.flag)
    if changed:
        metrics.repaired.inc()
        event(logger, logging.INFO, "healed", session=hashed(session))
    return changed


def flagged(deadline: float) -> int:
    """Repair flagged conversations until the deadline on the monotonic clock; return how many were looked at."""
    done = 0
    for alias in ALIASES:
        for session in control(alias).flags(MOST_FLAGS).sessions:
            if time.monotonic() > deadline:
                return done
            conversation(session)
            done += 1
    return done


def _inspect(one: HistoryStore, session: str) -> Contents:
    try:
        return one.inspect(session)
    except CorruptHistory:
        one.quarantine(session)
        return one.inspect(session)
