"""Repair: each store gets its missing turns, without an operator, in one process at a time and by bounded batches."""

import logging
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain

from conversations import merge, used_keys
from conversations.errors import CorruptHistory, StoreUnavailable
from conversations.history.pauses import Pauses
from conversations.history.writing import set_flag
from conversations.merge import Plan
from conversations.stores import ALIASES, bulk, control, limits, store
from conversations.stores.base import Contents, HistoryStore
from conversations.stores.batches import batches
from conversations.stores.bulk import Share
from conversations.stores.bulk_reader import Found
from conversations.used_keys import Keys
from telemetry import metrics
from telemetry.logs import event, hashed

logger = logging.getLogger(__name__)

BATCH_SECONDS = 1.0
BATCH = 100  # conversations that are read and written together
MOST_FLAGS = 1_000  # more are only counted: while there are, every conversation is read from both stores

_pauses = Pauses()


def conversation(session: str) -> bool:
    """Give each store its missing turns of the conversation, tombstones first, Idempotency-Keys last; return whether
    anything did.

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
    for alias, keys in _keys_missing_in(found).items():
        store(alias).keep_keys(session, keys)
    for alias, contents in found.items():
        if contents.flag:
            control(alias).clear_flag(session, contents.flag)
    return _report(session, plan)


class Flagged:
    """Repairs flagged conversations. Each step goes on where the last one ended: listing the flags of a store costs
    more than a batch does."""

    def __init__(self) -> None:
        self._batches: Iterator[list[str]] = iter(())

    def step(self, deadline: float) -> int:
        """Repair a batch at least, until the deadline on the monotonic clock or the end of the list, after which the
        next step makes another; return how many were tried. Raise StoreUnavailable when a store is out."""
        done = 0
        try:
            batch = next(self._batches, None) or self._again()
            while batch:
                due = [session for session in batch if not waits(session)]
                several(due, deadline)
                done += len(due)
                batch = next(self._batches, None) if time.monotonic() <= deadline else None
        except Exception:  # whatever it was, the list is not whole
            self._batches = iter(())
            raise
        return done

    def _again(self) -> list[str] | None:
        self._batches = chain.from_iterable(bulk(alias).flagged(BATCH) for alias in ALIASES)
        return next(self._batches, None)


def several(sessions: Collection[str], deadline: float = float("inf")) -> tuple[int, list[str]]:
    """Repair the conversations, together as far as that is possible; return how many of them changed, and those that
    could not be repaired. Each of the others is repaired alone, until the deadline; one that fails waits. Raise
    StoreUnavailable when a store is out."""
    try:
        left, changed = _together(sessions)
    except StoreUnavailable:
        _ping()
        left, changed = list(sessions), 0
    except Exception:  # an unforeseen value in one of them: repaired alone, each shows whether it is that one
        logger.exception("repair_failed")
        left, changed = list(sessions), 0
    failed: list[str] = []
    for place, session in enumerate(left):
        if time.monotonic() > deadline and place:
            return changed, failed + left[place:]
        done = _alone(session)
        changed += bool(done)
        if done is None:
            failed.append(session)
    return changed, failed


def now_or_later(sessions: Collection[str]) -> int:
    """Repair the conversations, and flag those that cannot be repaired now; return how many changed. Raise
    StoreUnavailable when a store is out."""
    waiting = set(filter(waits, sessions))
    changed, failed = 0, list(waiting)
    for batch in batches((session for session in sessions if session not in waiting), BATCH):
        repaired, not_repaired = several(batch)
        changed += repaired
        failed += not_repaired
    for session in failed:
        for alias in ALIASES:
            set_flag(session, alias)
    return changed


def waits(session: str) -> bool:
    """Return whether the conversation could not be repaired a short while ago."""
    return _pauses.holds(session)


def _together(sessions: Collection[str]) -> tuple[list[str], int]:
    """Repair those that can be read, the flags last; return the others, and how many changed."""
    held = _read(sessions)
    plans = {session: merge.plan(each, limits()) for session, each in held.items()}
    for alias in ALIASES:
        _give(alias, _shares(plans, alias), _missing_keys(held, alias))
    for alias in ALIASES:
        _clear_flags(alias, {session: flag for session, each in held.items() if (flag := each[alias].flag)})
    changed = sum(_report(session, plan) for session, plan in plans.items())
    return [session for session in sessions if session not in held], changed


def _read(sessions: Collection[str]) -> dict[str, dict[str, Contents]]:
    """Return what each store holds of those conversations that every store can read."""
    found = {alias: _contents(alias, sessions) for alias in ALIASES}
    held = {session: {alias: found[alias][session] for alias in ALIASES} for session in sessions}
    return {session: _readable(each) for session, each in held.items() if len(_readable(each)) == len(ALIASES)}


def _contents(alias: str, sessions: Collection[str]) -> dict[str, Found]:
    if not sessions:
        return {}
    with store(alias).recorded_batch("inspect", write=False):
        return bulk(alias).contents(sessions)


def _give(alias: str, shares: Sequence[Share], keys: Mapping[str, Keys]) -> None:
    """Give the store its missing turns and tombstones, then the Idempotency-Keys."""
    if shares:
        with store(alias).recorded_batch("append", write=True):
            bulk(alias).put(shares)
    if keys:
        with store(alias).recorded_batch("keep_keys", write=True):
            bulk(alias).keep_keys(keys)


def _clear_flags(alias: str, flags: Mapping[str, str]) -> None:
    if flags:
        with store(alias).recorded_batch("settle", write=True):
            bulk(alias).clear_flags(flags)


def _readable(each: Mapping[str, Found]) -> dict[str, Contents]:
    return {alias: one for alias, one in each.items() if isinstance(one, Contents)}


def _shares(plans: Mapping[str, Plan], alias: str) -> list[Share]:
    """Return what the store is to be given."""
    missing = ((session, plan.missing[alias], plan.tombstone or "") for session, plan in plans.items())
    return [
        Share(session, one.turns, limits().ttl, tombstone if one.tombstone else "")
        for session, one, tombstone in missing
        if one
    ]


def _missing_keys(held: Mapping[str, Mapping[str, Contents]], alias: str) -> dict[str, Keys]:
    """Return the Idempotency-Keys that the store is to be given."""
    missing = {session: _keys_missing_in(each).get(alias, {}) for session, each in held.items()}
    return {session: keys for session, keys in missing.items() if keys}


def _keys_missing_in(held: Mapping[str, Contents]) -> dict[str, Keys]:
    return used_keys.missing({alias: one.keys for alias, one in held.items()})


def _alone(session: str) -> bool | None:
    """Repair the conversation and return whether it changed; where it fails, it waits, and the answer is None."""
    try:
        changed = conversation(session)
    except Exception as error:  # whatever it is, no other conversation waits for it
        if isinstance(error, StoreUnavailable):
            _ping()
        seconds = _pauses.failed(session)
        metrics.repair_errors.inc()
        kind = type(error).__name__
        event(logger, logging.WARNING, "repair_failed", session=hashed(session), error=kind, seconds=seconds)
        return None
    _pauses.done(session)
    return changed


def _ping() -> None:
    """Raise StoreUnavailable where a store is out; else what failed is no fault of a store, but of a conversation."""
    for alias in ALIASES:
        store(alias).ping()


def _report(session: str, plan: Plan) -> bool:
    """Count and log a conversation that was repaired; return whether anything was missing."""
    if not any(plan.missing.values()):
        return False
    metrics.repaired.inc()
    event(logger, logging.INFO, "healed", session=hashed(session))
    return True


def _inspect(one: HistoryStore, session: str) -> Contents:
    try:
        return one.inspect(session).validated()
    except CorruptHistory:
        one.quarantine(session)
        return one.inspect(session)
