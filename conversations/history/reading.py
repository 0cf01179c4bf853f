"""Reading one conversation: from one store, or merged from both."""

import logging
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from conversations import merge, policy
from conversations.errors import CorruptHistory, NoStore, StoreUnavailable
from conversations.history.at_once import at_once
from conversations.ids import stamp, time_of
from conversations.policy import Inputs, Routing
from conversations.runtime import datasets
from conversations.runtime.state import state
from conversations.stores import ALIASES, limits, store
from conversations.stores.base import Contents
from conversations.turns import History, Turn
from conversations.used_keys import Keys, unite
from telemetry import metrics
from telemetry.logs import event, hashed

logger = logging.getLogger(__name__)
_NOTHING = Contents(None, None, None)


class Reading(NamedTuple):
    """A conversation as one turn sees it."""

    history: History
    found: bool
    store: str
    """The store that answered first."""
    context: str
    """`full`, or `behind` when turns that the client was acknowledged may be missing."""
    answered: frozenset[str]
    failed: frozenset[str]
    tombstone: str | None
    missing: dict[str, tuple[Turn, ...]]
    """For each store that was compared, the turns that it is missing."""
    keys: Keys
    """The Idempotency-Keys that are kept, as far as they were read."""

    @property
    def seen(self) -> str | None:
        """The `at` that a new turn must be later than."""
        deleted = stamp(time_of(self.tombstone)) if self.tombstone else None
        return max(filter(None, (self.history.last_at, deleted)), default=None)


def routing() -> Routing:
    """Return where traffic goes now."""
    return state().routing


def read(
    session: str, expected: str | None = None, *, fresh: bool = False, keyed: bool = False, lazy: bool = False
) -> Reading:
    """Return the conversation, empty when there is none; raise NoStore when no store can be read.

    The primary is asked first, the other when the primary is out, has no turns, or has less than `expected`,
    the id that the client was last given. An unsynced conversation, and any while MongoDB is the primary, is read
    from both and merged. What only the other store had is copied back; a corrupt value is quarantined, and the
    other store's is the history. `keyed`: read the Idempotency-Keys too. `lazy`: the messages of one store may be
    decoded when they are asked for, and raise CorruptHistory then; a second read, which is not lazy, quarantines them.
    """
    look = Look(session, keyed, lazy)
    inputs = look.follow(expected)
    if not look.contents:
        raise NoStore
    look.copy_back(inputs.routing)
    return look.reading(inputs, expected, fresh)


class Look:
    """What reading one conversation found so far.

    A store is read in one of two ways: `load` gets its history as a turn needs it, `compare` all that it holds, every
    character checked, so that the stores can be merged.
    """

    def __init__(self, session: str, keyed: bool = False, lazy: bool = False) -> None:
        self.session = session
        self._keyed = keyed
        self._lazy = lazy
        self.contents: dict[str, Contents] = {}
        self.compared: set[str] = set()
        self.failed: frozenset[str] = frozenset()
        self.merges = False
        """Whether the policy wanted the stores merged."""
        self._verified = False
        """Whether a store was compared with what is known of it."""
        self._plan: merge.Plan | None = None

    @property
    def answered(self) -> frozenset[str]:
        return frozenset(self.contents)

    @property
    def plan(self) -> merge.Plan:
        """What the conversation should be, after what was read so far."""
        if self._plan is None:
            self._plan = merge.plan(self.contents, limits() if len(self.contents) > 1 else None)
        return self._plan

    def follow(self, expected: str | None) -> Inputs:
        """Read what the policy decides; return the inputs of its decision. They are taken once more where a store
        failed, or a new connection may have shown that it came back with other data: then the other is read too."""
        inputs = state().inputs(self.session)
        self._follow(inputs.read_plan, expected)
        if not (self.failed or self._verified):
            return inputs
        inputs = state().inputs(self.session)
        plan = inputs.read_plan
        if plan.merge and not self.merges:
            self.merges = True
            self.compare(plan.order)
        return inputs

    def _follow(self, plan: policy.ReadPlan, expected: str | None) -> None:
        """Read what the plan names, and more where that is older than what the client was given."""
        self.merges = plan.merge
        if plan.merge:
            self.compare(plan.order)
        elif any(map(self.load, plan.order)) and len(self.contents) > 1:  # until one has it
            self.compare(plan.order)  # the first one may know that it was deleted
        if expected and (self.plan.last_id or "") < expected:
            self.compare(plan.order)
        if not self.contents:
            self.compare(plan.last_resort)

    def load(self, alias: str) -> bool:
        """Read a store's history, and its keys where one is asked for; return whether it has any history."""
        self._take(alias, self._ask(alias, self._load))
        return self._has(alias)

    def _load(self, alias: str) -> Contents:
        one = store(alias)
        contents = one.inspect(self.session) if self._keyed else Contents(one.load(self.session), None, None)
        if contents.history and (contents.tombstone or not self._lazy):
            contents.history.messages  # noqa: B018  (decoded now, where what is corrupt is quarantined)
        return contents

    def _inspect(self, alias: str) -> Contents:
        return store(alias).inspect(self.session).validated()

    def compare(self, order: tuple[str, ...]) -> None:
        """Read all of them at once, with their tombstones, and each only once."""
        aliases = [alias for alias in order if alias not in self.failed and alias not in self.compared]
        if not aliases:
            return
        answers = at_once([partial(self._ask, alias, self._inspect) for alias in aliases])
        for alias, asked in zip(aliases, answers, strict=True):
            self._take(alias, asked)
            if asked.contents:
                self.compared.add(alias)

    def copy_back(self, route: Routing) -> None:
        """Give the primary what only the fallback had, where nothing was merged: a merge is given with the turn."""
        if self.merges or len(self.contents) < len(ALIASES):
            return
        ours, theirs = self.contents[route.primary], self.contents[route.fallback]
        if ours.history or not theirs.history:
            return
        try:
            store(route.primary).append(self.session, None, theirs.history.turns())
            if keys := unite(theirs.keys):
                store(route.primary).keep_keys(self.session, keys)
        except StoreUnavailable:
            return  # logged and counted; the history is safe where it was found
        names = {"store": route.primary, "source": route.fallback, "session": hashed(self.session)}
        event(logger, logging.INFO, "copied_back", **names)

    def reading(self, inputs: Inputs, expected: str | None, fresh: bool) -> Reading:
        """Return what the turn is to see of it."""
        plan, answered = self.plan, self.answered
        return Reading(
            plan.history,
            found=bool(plan.history),
            store=self._first_store(inputs.routing),
            context=policy.context(inputs, answered, plan.last_id, expected, fresh=fresh),
            answered=answered,
            failed=self.failed,
            tombstone=plan.tombstone,
            missing={alias: plan.missing[alias].turns for alias in self.compared},
            keys=unite(*(one.keys for one in self.contents.values())),
        )

    def _first_store(self, route: Routing) -> str:
        """Return the first store that had the conversation, or else that answered; count it."""
        first = next(filter(self._has, route.order), None)
        alias = first or next(filter(self.contents.__contains__, route.order))
        outcome = ("rescue" if first != route.primary else "hit") if first else "miss"
        metrics.reads.labels(store=alias, outcome=outcome).inc()
        return alias

    def _take(self, alias: str, asked: "Asked") -> None:
        """Note what a store has answered."""
        if asked.contents is None:
            self.failed |= {alias}
            return
        self._verified |= asked.verified
        self.contents[alias] = asked.contents
        self._plan = None

    def _has(self, alias: str) -> bool:
        contents = self.contents.get(alias)
        return contents is not None and contents.history is not None

    def _ask(self, alias: str, call: Callable[[str], Contents]) -> "Asked":
        """Return what the store answers: nothing where that is corrupt and was quarantined."""
        try:
            try:
                contents = call(alias)
                return Asked(contents, datasets.verify(state().known, alias))
            except CorruptHistory:
                store(alias).quarantine(self.session)
                return Asked(_NOTHING)
        except StoreUnavailable:
            return Asked(None)


class Asked(NamedTuple):
    """What one store answered."""

    contents: Contents | None
    """None where the store failed."""
    verified: bool = False
    """Whether it was compared with what is known of it."""
