"""Finding conversations that differ though nothing suggests it: slowly, and only what is wrong beyond doubt.

A turn under way is in one store before it is in the other. So what differs is looked at again at the next step, when
every request of the first look has ended, and counts only if it differs in the same way and has no unsynced flag.
"""

import logging
from collections.abc import Collection, Mapping

from conversations import expiry, merge
from conversations.errors import CorruptHistory
from conversations.history import repair, trimmed
from conversations.history.walk import Digests, Walk, differing
from conversations.merge import Plan
from conversations.stores import ALIASES, bulk, control, limits
from conversations.stores.base import Contents
from conversations.stores.batches import batches
from conversations.stores.bulk_reader import Found
from conversations.stores.control import OPERATORS
from telemetry import metrics
from telemetry.logs import event, hashed

logger = logging.getLogger(__name__)

_MOMENT = 0.001  # seconds


class Scrub:
    """One pass over all conversations, in steps that are farther apart than a request takes."""

    def __init__(self) -> None:
        self.out_of_step = 0
        self._walk = Walk()
        self._page: list[str] = []
        """What is to be compared."""
        self._suspects: dict[str, Digests] = {}
        """What differed at the last step."""
        self._due: list[str] = []
        """What is to be repaired."""

    @property
    def compared(self) -> int:
        """How many conversations have been compared."""
        return self._walk.seen - len(self._page)

    def step(self, holder: str) -> bool:
        """Look again at what differed, repair what is out of step, and compare the next page; return whether all has
        been compared. `holder` is this process. Raise StoreUnavailable: the next step goes on with the same."""
        if not self._look_again(holder):
            return False
        self._repair()
        if not self._page:
            page = self._walk.page()
            if page is None:
                return True
            self._page = page
        self._suspects = differing(self._page)
        self._page = []
        return False

    def _look_again(self, holder: str) -> bool:
        """Decide which of the suspects are out of step; return whether that could be decided."""
        again = differing(self._suspects)
        same = {session: digests for session, digests in self._suspects.items() if again.get(session) == digests}
        if same and _is_changed_by_operators(holder):
            return False
        missing = _missing_without_flag(same)
        self._suspects = {}
        for session, aliases in missing.items():
            self._count(session, aliases)
        return True

    def _count(self, session: str, aliases: Collection[str]) -> None:
        self.out_of_step += 1
        self._due.append(session)
        for alias in aliases:
            metrics.out_of_step.labels(store=alias).inc()
            event(logger, logging.WARNING, "out_of_step", store=alias, session=hashed(session))

    def _repair(self) -> None:
        repair.now_or_later(self._due)
        self._due = []


def _is_changed_by_operators(holder: str) -> bool:
    """Return whether an operator's command runs that changes conversations: a restore gives them to one store after the
    other."""
    return not all(control(alias).lease(OPERATORS, holder, _MOMENT) for alias in ALIASES)


def _missing_without_flag(suspects: Mapping[str, Digests]) -> dict[str, tuple[str, ...]]:
    """Return the conversations that are out of step, with the stores that are missing something of them."""
    upto = {alias: trimmed.upto(alias) for alias in ALIASES} if suspects else {}
    missing: dict[str, tuple[str, ...]] = {}
    for batch in batches(suspects, repair.BATCH):
        found = {alias: bulk(alias).contents(batch) for alias in ALIASES}
        held = {session: {alias: found[alias][session] for alias in ALIASES} for session in batch}
        same = (session for session, each in held.items() if _is_still(suspects[session], each))
        missing |= {session: _missing_in(held[session], upto) for session in same}
    return {session: aliases for session, aliases in missing.items() if aliases}


def _is_still(digests: Digests, held: Mapping[str, Found]) -> bool:
    """Return whether the stores hold what they did at both looks; what is no history is as it was."""
    return all(
        isinstance(one, CorruptHistory) or merge.digest(one.history, one.tombstone) == digest
        for one, digest in zip(held.values(), digests, strict=True)
    )


def _missing_in(held: Mapping[str, Found], upto: Mapping[str, str]) -> tuple[str, ...]:
    """Return the stores that should have more of a conversation, or what is no history in its place; none where it has
    a flag. `upto` has for each store the last id of what was removed from it alone."""
    whole = {alias: one for alias, one in held.items() if isinstance(one, Contents)}
    plan = merge.plan(whole, limits())
    if any(one.flag for one in whole.values()) or not plan.last_id:
        return ()
    return tuple(alias for alias in held if alias not in whole or _needs(plan, alias, upto[alias]))


def _needs(plan: Plan, alias: str, upto: str) -> bool:
    """Return whether the store should have more of the conversation, unless that is about to expire, or should know of
    its deletion."""
    missing = plan.missing[alias]
    if missing.tombstoned:
        return True
    more = missing.tombstone or any(turn.id > upto for turn in missing.turns)
    return more and not expiry.may_have_expired(plan.last_id or "", limits().ttl)
