"""Storing one turn: in the primary, or else in the fallback, or with dual write in both."""

import logging
import time
from collections.abc import Iterable
from functools import partial
from typing import NamedTuple

from conversations import policy
from conversations.errors import CorruptHistory, InvalidSession, KeyExpired, StoreUnavailable
from conversations.history.at_once import at_once
from conversations.history.reading import Reading, routing
from conversations.ids import stamp, time_at, time_of
from conversations.policy import Inputs
from conversations.runtime.state import state
from conversations.stores import store
from conversations.stores.base import Receipt
from conversations.turns import Turn, make_turn
from conversations.used_keys import asked_at
from telemetry import metrics
from telemetry.logs import event, hashed

logger = logging.getLogger(__name__)

_ARRIVES = 120.0  # seconds in which a kernel sends again what was not delivered: 102 with the defaults of Linux
_RESTAMPS = 3  # each needs another deletion in the very moment of writing


class Written(NamedTuple):
    """What became of a turn."""

    turn: Turn
    """As it was stored: a deletion in between makes it later than it was."""
    stored_in: tuple[str, ...]
    new: bool
    unknown: bool
    """Whether a store that has not acknowledged it may have it all the same."""


def append(session: str, turn: Turn, reading: Reading) -> Written:
    """Store the turn in the primary, or else in the fallback, or with dual write in both, with whatever of
    the history each is known to be missing. Where a store should have it and does not, one that has it is given an
    unsynced flag. Raise NoLaterTurn where it was deleted meanwhile, up to the last time there is, and KeyExpired where
    only the key of its turn is kept.
    """
    inputs = state().inputs(session)
    with state().journal.writing(session):
        deleted = ""
        for _ in range(_RESTAMPS):
            write = Write(session, turn, reading, inputs, deleted).run()
            if not write.tombstone:
                break
            deleted = write.tombstone
            # Deleted while it was being answered: what was deleted stays so, and this turn comes after it.
            turn = restamp(turn, write.tombstone)
    if write.expired is not None:
        raise KeyExpired(stamp(time_at(write.expired)))
    return write.written()


def keep(session: str, turn: Turn, reading: Reading) -> tuple[str, ...]:
    """Give a stored turn to the stores that should have it and do not; return those that have it. It is flagged
    as by `append`, and where it was deleted it stays so."""
    with state().journal.writing(session):
        return Write(session, turn, reading, state().inputs(session)).run().stored_in


def restamp(turn: Turn, tombstone: str) -> Turn:
    """Return the same turn later than the tombstone; raise NoLaterTurn."""
    question, answer = turn.messages()
    seen = stamp(time_of(tombstone))
    return make_turn(question.content, answer.content, seen, question.time, answer.time, question.key, question.user)


def set_flag(session: str, alias: str) -> None:
    """Set the conversation's unsynced flag in the store, after quarantining what is no history. Where there can be no
    flag, as for a name that is no session's, that is logged. Raise StoreUnavailable."""
    one = store(alias)
    try:
        try:
            one.append(session, None, flag=True)
        except CorruptHistory:
            one.quarantine(session)
            one.append(session, None, flag=True)
    except (InvalidSession, CorruptHistory) as error:
        kind = type(error).__name__
        event(logger, logging.WARNING, "not_flagged", store=alias, session=hashed(session), error=kind)


def flag_unsynced(session: str, alias: str) -> None:
    """Flag the conversation in a store that has what the other should have; the watcher tries again where the store
    is out."""
    try:
        set_flag(session, alias)
    except StoreUnavailable:
        state().pending_flags.add((alias, session))
    state().shared_flags.record(alias)


def flag_later(session: str, aliases: Iterable[str]) -> None:
    """Have the conversation flagged in stores that may have done alone what none has confirmed: by the watcher, once
    they can be reached, and once more when nothing can arrive any more: a kernel goes on sending what a connection that
    is closed had not delivered, and after a partition that can be later than the repair."""
    due = time.monotonic() + _ARRIVES
    for alias in aliases:
        state().pending_flags.add((alias, session))
        state().late_flags[alias, session] = due


class Offer:
    """One turn, offered to one store with what the store is missing beside it. A failure is counted and raised."""

    def __init__(self, alias: str, session: str, turn: Turn, reading: Reading) -> None:
        self.alias = alias
        self.session = session
        self.turn = turn
        self.reading = reading

    def append(self, flag: bool) -> Receipt:
        """Append with what the store is missing, once more after quarantining what was there. Count the attempt and
        its failure."""
        try:
            try:
                return self._append(flag)
            except CorruptHistory:
                store(self.alias).quarantine(self.session)
                return self._append(flag)
        except StoreUnavailable as error:
            _count_error(self.alias, self.session, error.reason)
            raise
        finally:
            metrics.persist_attempts.labels(store=self.alias).inc()

    def _append(self, flag: bool) -> Receipt:
        missing = self._missing()
        if missing:
            return store(self.alias).append(self.session, self.turn, missing, flag=flag)
        return store(self.alias).append_after(self.session, self.reading.history, self.turn, flag=flag)

    def _missing(self) -> tuple[Turn, ...]:
        """Return what to give the store beside the turn: what it is missing where that is known, and all that was read
        where it takes over from the store that was read and fails now."""
        if self.alias in self.reading.missing:
            return self.reading.missing[self.alias]
        takes_over = self.alias not in self.reading.answered and self.alias not in routing().wanted
        return _turns_of(self.reading) if takes_over else ()

    def duplicate(self) -> Turn | Receipt:
        """Return the turn that the store has in this one's place: the same, or another with its key. Where that was
        deleted meanwhile, return what the store says of this turn now. Raise StoreUnavailable also where that cannot be
        read: another store may have taken the turn already, so this one counts as missed and the request goes on. Where
        none has, the outcome is unknown: it may be another's turn."""
        try:
            found = store(self.alias).inspect(self.session)
            there = found.history.turns() if found.history else ()
        except (StoreUnavailable, CorruptHistory) as error:
            reason = getattr(error, "reason", type(error).__name__)
            _count_error(self.alias, self.session, reason)
            raise StoreUnavailable(self.alias, reason, unknown=True) from error
        if turn := next(filter(self.turn.is_duplicate_of, there), None):
            return turn
        if found.tombstone and self.turn.id <= found.tombstone:
            return Receipt(stored=False, created=False, tombstone=found.tombstone)
        kept = found.keys.get(self.turn.question.key or "")
        return Receipt(stored=False, created=False, expired=asked_at(self.turn) if kept is None else kept)

    def add(self, flag: bool) -> None:
        """Add the turn beside an earlier duplicate of it."""
        store(self.alias).append(self.session, None, (self.turn,), flag=flag)

    def restore(self) -> None:
        """Give the store, which held no turn any more, back what it had when it was read."""
        if self.alias not in self.reading.answered or not self.reading.history:
            return
        try:
            store(self.alias).append(self.session, None, _turns_of(self.reading))
        except StoreUnavailable:
            return  # logged and counted; the next reader finds the other store's
        event(logger, logging.WARNING, "restored", store=self.alias, session=hashed(self.session))


def _turns_of(reading: Reading) -> tuple[Turn, ...]:
    """Return the turns that were read, none where it shows only now that they are corrupt: the next reader quarantines
    them."""
    try:
        return reading.history.turns()
    except CorruptHistory:
        return ()


def _count_error(alias: str, session: str, reason: str) -> None:
    """A turn that a store should have and does not is an error of that store, also where it was skipped."""
    metrics.persist_errors.labels(store=alias).inc()
    event(logger, logging.ERROR, "persist_error", store=alias, session=hashed(session), error=reason)


class Outcome(NamedTuple):
    """What came of offering a turn to one store: one of an error, a tombstone, a time, and a turn."""

    alias: str
    error: Exception | None = None
    tombstone: str | None = None
    """The one that kept the turn out."""
    expired: int | None = None
    """When the question was first asked, where only its key is kept."""
    there: Turn | None = None
    """What the store has now: the turn, or its duplicate."""
    new: bool = False
    """Whether that was not there before."""
    flagged: bool = False
    """Whether the store was given an unsynced flag with it."""


class Write:
    """One turn on its way into the stores that should have it."""

    def __init__(self, session: str, turn: Turn, reading: Reading, inputs: Inputs, deleted: str = "") -> None:
        self.session = session
        self.turn = turn
        """Replaced by its duplicate where a store has a later one."""
        self.deleted = deleted
        """The tombstone that the turn came too early for, at the last try. A store may still have it from then."""
        self.reading = reading
        self.plan = policy.plan_write(inputs, reading.failed) if reading.failed else inputs.write_plan
        self.stored_in: tuple[str, ...] = ()
        self.missed = list(self.plan.skipped)
        """Stores that should have the turn and have not taken it."""
        self.flagged: set[str] = set()
        """Stores that were given an unsynced flag with the turn."""
        self.new = True
        self.unknown_in: list[str] = []
        """Stores that may have taken the turn without an acknowledgement."""
        self.tombstone: str | None = None
        """The one that kept the turn out of a store; it needs a later id then."""
        self.expired: int | None = None
        """When the question was first asked, where a store keeps only its key."""
        self.mistake: Exception | None = None
        """An error that is no outage; it is raised once every store that has the turn is flagged."""

    def run(self) -> "Write":
        """Offer the turn to the stores that should have it, at once, and then to the others until one has it."""
        for alias in self.plan.skipped:
            metrics.persist_attempts.labels(store=alias).inc()
            _count_error(alias, self.session, "skipped")
        for aliases in self.plan.rounds:
            if self.stored_in or self.tombstone or self.expired is not None:
                break
            self._offer(aliases)
        if not self.tombstone:
            self._flag_missed()
        if self.mistake:
            raise self.mistake
        return self

    def written(self) -> Written:
        return Written(self.turn, self.stored_in, self.new, bool(self.unknown_in))

    def _offer(self, aliases: tuple[str, ...]) -> None:
        """Offer the turn to these stores at once, and take what came of it."""
        outcomes = at_once([partial(self._outcome, alias, self._flags(alias)) for alias in aliases])
        held = [(outcome.there, outcome) for outcome in outcomes if outcome.there]
        if held:
            self._have_stored(held)
        for outcome in outcomes:
            if outcome.error:
                self._has_failed(outcome.alias, outcome.error)
            elif outcome.tombstone:
                self.tombstone = max(self.tombstone or "", outcome.tombstone)
            elif outcome.expired is not None:
                self._is_gone(outcome.alias, outcome.expired)

    def _flags(self, alias: str) -> bool:
        """Return whether the store sets an unsynced flag with the turn."""
        return alias in self.plan.flagging or any(other != alias for other in self.missed)

    def _outcome(self, alias: str, flag: bool) -> Outcome:
        """Return what came of offering the turn to one store."""
        offer = Offer(alias, self.session, self.turn, self.reading)
        try:
            receipt, there, new = offer.append(flag), self.turn, True
            if receipt.is_duplicate:
                found, new = offer.duplicate(), False
                receipt, there = (found, there) if isinstance(found, Receipt) else (receipt, found)
            if receipt.expired is not None:
                return Outcome(alias, expired=receipt.expired)
            if receipt.tombstone:
                return Outcome(alias, tombstone=receipt.tombstone)
            if self.deleted and there.id <= self.deleted:
                offer.add(flag)
                there, new = self.turn, True
            if receipt.created:
                offer.restore()
        except Exception as error:  # also one that nobody thought of: the other store may have taken the turn
            return Outcome(alias, error)
        return Outcome(alias, there=there, new=new, flagged=flag)

    def _has_failed(self, alias: str, error: Exception) -> None:
        """Note that the store has not acknowledged the turn."""
        if not isinstance(error, StoreUnavailable):
            self.mistake = error
        if getattr(error, "unknown", True):
            self.unknown_in.append(alias)
        if alias in self.plan.wanted:
            self.missed.append(alias)

    def _have_stored(self, held: list[tuple[Turn, Outcome]]) -> None:
        """Note which stores have the turn, or a duplicate of it. Where two stores have two, as after two tries at the
        same moment, the later one is the turn, as it is for readers, and is given to the other store too."""
        self.turn = held[0][0]
        for there, _ in held[1:]:
            if there.id > self.turn.id:
                self.turn = there
        for there, outcome in held:
            if there is self.turn or there.id == self.turn.id:
                self.new = self.new and outcome.new
                self._has_stored(outcome.alias, outcome.flagged)
            else:
                self._give(outcome.alias)

    def _has_stored(self, alias: str, flagged: bool) -> None:
        self.stored_in += (alias,)
        if flagged:
            self.flagged.add(alias)
        if alias in self.plan.flagging:
            state().shared_flags.record(alias)

    def _give(self, alias: str) -> None:
        """Give the turn to a store that has an earlier duplicate, with a flag: that one is missing in the other."""
        try:
            Offer(alias, self.session, self.turn, self.reading).add(flag=True)
        except Exception as error:  # as in `_outcome`: the turn is in the other store
            self._has_failed(alias, error)
            return
        self._has_stored(alias, flagged=True)
        state().shared_flags.record(alias)

    def _is_gone(self, alias: str, expired: int) -> None:
        """The store keeps only the key of the turn: it was stored before and is gone. Where another has stored the turn
        just now, this one is missing it."""
        if self.stored_in:
            self.missed.append(alias)
        else:
            self.expired = expired

    def _flag_missed(self) -> None:
        """Flag a store that has the turn where another store should have it and does not."""
        if not self.stored_in:
            flag_later(self.session, self.unknown_in)
            return
        if not set(self.missed) - set(self.stored_in):
            return
        if self.stored_in[0] in self.flagged:
            state().shared_flags.record(self.stored_in[0])
        else:
            flag_unsynced(self.session, self.stored_in[0])
