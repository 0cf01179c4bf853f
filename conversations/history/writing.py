"""Reading and writing one conversation through both stores: the one module that talks to two of them."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from conversations import merge, policy
from conversations.errors import CorruptHistory, NoStore, StoreUnavailable
from conversations.policy import Inputs, Routing
from conversations.runtime.state import state
from conversations.stores import ALIASES, limits, store
from conversations.stores.base import Contents, Receipt
from conversations.turns import History, Turn, make_turn, stamp, time_of, tombstone_for
from telemetry import metrics
from telemetry.logs import event, hashed

logger = logging.getLogger(__name__)
T = TypeVar("T")

_RESTAMPS = 3  # each needs another deletion in the very moment of writing


@dataclass(frozen=True, slots=True)
class Reading:
    """A conversation as one turn sees it."""

    history: History
    found: bool
    store: str
    """The store that answered first."""
    context: str
    """`full`, or `behind` when turns that the client was acknowledged may be missing."""
    answered: frozenset[str] = frozenset()
    failed: frozenset[str] = frozenset()
    tombstone: str | None = None
    missing: dict[str, tuple[Turn, ...]] = field(default_factory=dict)
    """For each store that was compared, the turns that it is missing."""

    @property
    def seen(self) -> str | None:
        """The `at` that a new turn must be later than."""
        times = [self.history[-1].at] if self.history else []
        if self.tombstone:
            times.append(stamp(time_of(self.tombstone)))
        return max(times, default=None)


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a turn."""

    turn: Turn
    """As it was stored: a deletion in between makes it later than it was."""
    stored_in: tuple[str, ...]
    new: bool


def routing() -> Routing:
    """Return where traffic goes now."""
    return state().routing


def read(session: str, expected: str | None = None, *, fresh: bool = False) -> Reading:
    """Return the conversation, empty when there is none; raise NoStore when no store can be read.

    The primary is asked first, the other when that is out, or knows nothing, or knows less than `expected`,
    the id that the client was last given. A conversation that is not in step, and any while MongoDB is the
    primary, is read from both and merged. What only the other store had is copied back; a corrupt value is
    set aside, and the other store's is the history.
    """
    facts = state().inputs(session)
    plan = policy.plan_read(facts)
    look = _Look(session)
    if plan.merge:
        look.compare(plan.order)
    else:
        for alias in plan.order:
            if look.load(alias):
                break
    if expected and (look.plan.last_id or "") < expected:
        look.compare(plan.order)
    if not look.answered:
        look.compare(plan.last_resort)
    if not look.answered:
        raise NoStore
    if not plan.merge:
        look.copy_back(facts.routing)
    return look.reading(facts, expected, fresh)


def append(session: str, turn: Turn, reading: Reading) -> Written:
    """Store the turn in the primary, or else in the fallback, or with dual write in both, with whatever of
    the history each is known to lack. A store that should have it and does not is marked in one that does.
    Raise NoLaterTurn where it was deleted meanwhile, up to the last time there is.
    """
    facts = state().inputs(session)
    with state().journal.writing(session):
        for _ in range(_RESTAMPS):
            written, buried = _offer(session, turn, reading, facts)
            if not buried:
                break
            # Deleted while it was being answered: what was deleted stays so, and this turn comes after it.
            turn = restamp(turn, buried)
    return written


def keep(session: str, turn: Turn, reading: Reading) -> tuple[str, ...]:
    """Give a stored turn to the stores that should have it and lack it; return those that have it. It is marked
    as by `append`, and where it was deleted it stays so."""
    with state().journal.writing(session):
        return _offer(session, turn, reading, state().inputs(session))[0].stored_in


def restamp(turn: Turn, tombstone: str) -> Turn:
    """Return the same turn later than the tombstone; raise NoLaterTurn."""
    question, answer = turn.messages()
    seen = stamp(time_of(tombstone))
    return make_turn(question.content, answer.content, seen, question.time, answer.time, question.key)


def delete(session: str) -> bool:
    """Delete the conversation and leave a tombstone in every store that can be reached; return whether
    there was any, or may have been in a store that is out. Raise NoStore when none can be reached: nothing was
    deleted then."""
    facts = state().inputs(session)
    look = _Look(session)
    reading = policy.plan_read(facts)
    look.compare(reading.order)
    if not look.answered:
        look.compare(reading.last_resort)
    with state().journal.writing(session):
        return _delete_everywhere(session, tombstone_for(look.plan.last_id), policy.plan_write(facts, look.failed))


def _delete_everywhere(session: str, upto: str, plan: policy.WritePlan) -> bool:
    done: list[str] = []
    missed = set(plan.last_resort)
    found = marked = False
    for alias in plan.order + plan.last_resort:
        if done and alias in plan.last_resort:
            break
        mark = bool(missed - {alias})
        try:
            found |= store(alias).delete(session, upto, mark=mark)
        except StoreUnavailable:
            missed.add(alias)
            continue
        done.append(alias)
        marked |= mark
    if not done:
        raise NoStore
    if marked:
        state().shared_flags.record(done[-1])
    elif len(done) < len(ALIASES):
        _mark(session, done[0])  # that the other missed it was not known before
    return found or len(done) < len(ALIASES)


def _offer(session: str, turn: Turn, reading: Reading, facts: Inputs) -> tuple[Written, str | None]:
    """Return what became of the turn, and the tombstone that kept it out of a store."""
    plan = policy.plan_write(facts, reading.failed)
    missed = list(plan.skipped)
    for alias in missed:
        metrics.persist_attempts.labels(store=alias).inc()
        _count_persist_error(alias, session, "passed over")
    stored_in: tuple[str, ...] = ()
    new = marked = True
    for alias in plan.order + plan.last_resort:
        if stored_in and (alias not in plan.wanted or alias in plan.last_resort):
            break
        mark = any(other != alias for other in missed) or plan.flags(alias)
        try:
            receipt, there = _give(alias, session, turn, _lacking(reading, alias), mark=mark)
        except StoreUnavailable:
            if alias in plan.wanted:
                missed.append(alias)
                marked = not stored_in  # those that have it already were not told
            continue
        if receipt.buried:
            return Written(turn, stored_in, new), receipt.buried
        if not receipt.stored:
            # Somebody has answered this question already: theirs is the turn, here and in the next store.
            new = False
            if stored_in and there.id != turn.id:
                missed.append(alias)  # two duplicates in two stores: healing unites them, readers see the later
                marked = False
                continue
            turn = there
        if receipt.created and alias in reading.answered and reading.history:
            _restore(session, reading.history, alias)
        stored_in += (alias,)
        if plan.flags(alias):
            state().shared_flags.record(alias)
    if stored_in and set(missed) - set(stored_in):
        if marked:
            state().shared_flags.record(stored_in[0])
        else:
            _mark(session, stored_in[0])
    return Written(turn, stored_in, new), None


def _give(alias: str, session: str, turn: Turn, lacking: tuple[Turn, ...], *, mark: bool) -> tuple[Receipt, Turn]:
    """Append the turn; return the receipt, and the turn that the store has now: this one or its duplicate. Raise
    StoreUnavailable also where the duplicate cannot be read: another store may have taken the turn already, so
    this one counts as missed and the request goes on."""
    receipt = _append(alias, session, turn, lacking, mark=mark)
    if receipt.stored or receipt.buried:
        return receipt, turn
    try:
        return receipt, _duplicate(alias, session, turn) or turn
    except (StoreUnavailable, CorruptHistory) as error:
        reason = getattr(error, "reason", type(error).__name__)
        _count_persist_error(alias, session, reason)
        raise StoreUnavailable(alias, reason) from error


def _duplicate(alias: str, session: str, turn: Turn) -> Turn | None:
    """Return the turn that a store has in this one's place: the same, or another with its key."""
    contents = store(alias).inspect(session)
    there = contents.history.turns() if contents.history else ()
    key = turn.question.key
    return next((one for one in there if one.id == turn.id or (key and one.question.key == key)), None)


def _lacking(reading: Reading, alias: str) -> tuple[Turn, ...]:
    """Return what to give a store beside the turn: what it lacks where that is known, and all that was read
    where it takes over from the store that was read and fails now."""
    if alias in reading.missing:
        return reading.missing[alias]
    takes_over = alias not in reading.answered and alias not in routing().wanted
    return reading.history.turns() if takes_over else ()


def _append(alias: str, session: str, turn: Turn, lacking: tuple[Turn, ...], *, mark: bool) -> Receipt:
    one = store(alias)
    try:
        try:
            return one.append(session, turn, lacking, mark=mark)
        except CorruptHistory:
            one.set_aside(session)
            return one.append(session, turn, lacking, mark=mark)
    except StoreUnavailable as error:
        _count_persist_error(alias, session, error.reason)
        raise
    finally:
        metrics.persist_attempts.labels(store=alias).inc()


def _count_persist_error(alias: str, session: str, reason: str) -> None:
    """A turn that a store should have and has not is an error of that store, whether it was asked or not."""
    metrics.persist_errors.labels(store=alias).inc()
    event(logger, logging.ERROR, "persist_error", store=alias, session=hashed(session), error=reason)


def _restore(session: str, history: History, alias: str) -> None:
    """Give a store back what it had when it was read and has lost since."""
    try:
        store(alias).append(session, None, history.turns())
        event(logger, logging.WARNING, "restored", store=alias, session=hashed(session))
    except StoreUnavailable:
        return  # said and counted; the next reader finds the other store's


def _mark(session: str, alias: str) -> None:
    try:
        store(alias).append(session, None, mark=True)
    except StoreUnavailable:
        state().pending_flags.add((alias, session))  # the watcher tries again
    state().shared_flags.record(alias)


class _Look:
    """What reading one conversation found so far."""

    def __init__(self, session: str) -> None:
        self.session = session
        self.contents: dict[str, Contents] = {}
        self.compared: set[str] = set()
        self.failed: frozenset[str] = frozenset()
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

    def load(self, alias: str) -> bool:
        """Read a store's history alone; return whether it has any."""
        history = self._ask(alias, store(alias).load)
        if alias not in self.failed:
            self._has_read(alias, Contents(history, None, None))
        return history is not None

    def compare(self, order: tuple[str, ...]) -> None:
        """Read all of them, with their tombstones, so that they can be merged."""
        for alias in order:
            if alias in self.failed or alias in self.compared:
                continue
            contents = self._ask(alias, store(alias).inspect)
            if alias not in self.failed:
                self._has_read(alias, contents or Contents(None, None, None))
                self.compared.add(alias)

    def copy_back(self, route: Routing) -> None:
        """Give the primary what only the fallback had."""
        ours, theirs = self.contents.get(route.primary), self.contents.get(route.fallback)
        if not (ours and theirs and theirs.history and not ours.history):
            return
        turns = theirs.history.turns()
        try:
            store(route.primary).append(self.session, None, turns)
        except StoreUnavailable:
            return  # said and counted; the history is safe where it was found
        event(
            logger, logging.INFO, "copied_back", store=route.primary, source=route.fallback,
            session=hashed(self.session),
        )  # fmt: skip

    def reading(self, facts: Inputs, expected: str | None, fresh: bool) -> Reading:
        plan = self.plan
        first = next((alias for alias in facts.routing.order if self._has(alias)), None)
        alias = first or next(alias for alias in facts.routing.order if alias in self.contents)
        outcome = ("rescue" if first != facts.routing.primary else "hit") if first else "miss"
        metrics.reads.labels(store=alias, outcome=outcome).inc()
        context = policy.context(facts, self.answered, plan.last_id, expected, fresh=fresh)
        missing = {alias: plan.missing[alias].turns for alias in self.compared}
        return Reading(
            plan.history, bool(plan.history), alias, context, self.answered, self.failed, plan.tombstone, missing
        )

    def _has_read(self, alias: str, contents: Contents) -> None:
        self.contents[alias] = contents
        self._plan = None

    def _has(self, alias: str) -> bool:
        contents = self.contents.get(alias)
        return contents is not None and contents.history is not None

    def _ask(self, alias: str, call: Callable[[str], T]) -> T | None:
        """Return what the store answers, None where that is corrupt and was quarantined."""
        try:
            try:
                return call(self.session)
            except CorruptHistory:
                store(alias).set_aside(self.session)
                return None
        except StoreUnavailable:
            self.failed |= {alias}
            return None
