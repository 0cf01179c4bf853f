"""What a conversation should be where stores hold different turns of it: the one rule, without I/O.

In this order:

1. Unite: every turn that any store holds, once by its id, in the order of ids.
2. Drop what the latest tombstone covers.
3. For readers, drop superseded turns: of those with one Idempotency-Key the latest stays.
4. Keep the newest whole turns that are within the limits.

Stores keep superseded turns, the same in each: a turn that was acknowledged is not removed because another came
later, and a late duplicate is still recognised by its key. So a store's turns are steps 1, 2 and 4.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha1
from operator import lt
from typing import NamedTuple, Protocol

from conversations.turns import History, Limits, Turn


class Held(Protocol):
    """What the rule needs of what a store, or a backup, holds of a conversation."""

    @property
    def history(self) -> History | None: ...
    @property
    def tombstone(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Missing:
    """What one store needs to become what it should be; it is given the tombstone first, then the turns."""

    turns: tuple[Turn, ...] = ()
    """To append. It may include the newest turn over the limits, which makes the store drop what is older."""
    tombstone: bool = False
    """Whether its tombstone is older than the latest."""
    tombstoned: bool = False
    """Whether it holds turns that this tombstone covers."""

    def __bool__(self) -> bool:
        return bool(self.turns) or self.tombstone


class Plan(NamedTuple):
    """What a conversation should be, and what each store is missing of it."""

    history: History
    """For readers."""
    stored: History
    """For stores."""
    tombstone: str | None
    missing: Mapping[str, Missing]
    """For every store that was compared."""
    conflicts: frozenset[str]
    """The ids of turns that have different words in different stores: nothing here can decide which are right."""

    @property
    def last_id(self) -> str | None:
        """The id up to which the conversation is known, deleted turns included."""
        return max(filter(None, (self.history.last_id, self.tombstone)), default=None)


_EMPTY, _NOTHING, _NO_CONFLICTS = History(), Missing(), frozenset[str]()


def plan(contents: Mapping[str, Held], limits: Limits | None) -> Plan:
    """Return what the conversation should be. Limits are None where they were applied before: a store alone has
    applied its own."""
    if limits is None and len(contents) == 1:
        return _alone(contents)
    tombstone = latest_tombstone(contents.values())
    histories = [held.history for held in contents.values()]
    whole = unite(*histories).after(tombstone or "")
    kept = _within(whole, limits)
    current = whole.current()
    history = kept if len(current) == len(whole) else _within(current, limits)
    missing = {alias: _missing(held, whole, kept, tombstone, limits) for alias, held in contents.items()}
    return Plan(history, kept, tombstone, missing, _conflicts(histories, kept))


def _alone(contents: Mapping[str, Held]) -> Plan:
    """Return the plan of one store's contents: nothing is missing, and no turn need be looked at."""
    [(alias, held)] = contents.items()
    whole = (held.history or _EMPTY).after(held.tombstone or "")
    return Plan(whole.current(), whole, held.tombstone, {alias: _NOTHING}, _NO_CONFLICTS)


def stored(turns: Iterable[Turn], limits: Limits, tombstone: str | None = None) -> History:
    """Return what a store should hold of these turns, in whatever order they come: steps 1, 2 and 4."""
    return stored_with_size(turns, limits, tombstone)[0]


def stored_with_size(turns: Iterable[Turn], limits: Limits, tombstone: str | None = None) -> tuple[History, int]:
    """Return the same, and the bytes that it has as lines."""
    history = _by_id(turns).after(tombstone or "")
    kept, size = limits.fit(history.turns())
    return (history if 2 * len(kept) == len(history) else History.of(kept)), size


def unite(*histories: History | None) -> History:
    """Return step 1: the union of the histories."""
    present = [history for history in histories if history]
    if len(present) == 1:
        return present[0]
    return _by_id(turn for history in present for turn in history.turns())


def latest_tombstone(held: Iterable[Held]) -> str | None:
    """Return the tombstone that counts."""
    return max(filter(None, (one.tombstone for one in held)), default=None)


def digest(history: History | None, tombstone: str | None) -> bytes | None:
    """Return what differs between any two stores that do not hold the same turns and the same tombstone: a digest of
    every id, not only of the last one. None where there is neither."""
    return digest_of([turn.id for turn in history.turns()] if history else (), tombstone)


def digest_of(ids: Sequence[str], tombstone: str | None) -> bytes | None:
    """Return the digest of a conversation whose turns have these ids."""
    if not ids and not tombstone:
        return None
    return sha1(f"{','.join(ids)};{tombstone or ''}".encode(), usedforsecurity=False).digest()


def _by_id(turns: Iterable[Turn]) -> History:
    every = list(turns)
    ids = [turn.id for turn in every]
    if all(map(lt, ids, ids[1:])):  # nearly always
        return History.of(every)
    found: dict[str, Turn] = {}
    for turn in every:
        other = found.get(turn.id)
        # Where the texts differ the order of the stores must not decide: every reader sees the same turn.
        found[turn.id] = turn if other in (None, turn) else max(other, turn, key=Turn.lines)
    return History.of(found[turn_id] for turn_id in sorted(found))


def _within(history: History, limits: Limits | None) -> History:
    if limits is None:
        return history
    kept = limits.trim(history.turns())
    return history if 2 * len(kept) == len(history) else History.of(kept)


def _missing(held: Held, whole: History, stored: History, tombstone: str | None, limits: Limits | None) -> Missing:
    """Return what one store needs to hold the turns of `stored`, which are those of `whole` within the limits."""
    own = held.history or History()
    there = {turn.id for turn in own.turns()}
    turns = [turn for turn in stored.turns() if turn.id not in there]
    dropped = whole.turns()[: (len(whole) - len(stored)) // 2]
    # Trimming stops at the first turn that does not fit: without that turn the store may keep older ones.
    if limits and dropped and dropped[-1].id not in there:
        kept = _by_id([*own.after(tombstone or "").turns(), *turns])
        if _within(kept, limits) != stored:
            turns.insert(0, dropped[-1])
    late = (held.tombstone or "") < (tombstone or "")
    return Missing(tuple(turns), late, late and min(there, default="~") <= (tombstone or ""))


def _conflicts(histories: Iterable[History | None], stored: History) -> frozenset[str]:
    """Return the ids of turns in `stored` that any of the histories has with another text."""
    present = [history for history in histories if history]
    if len(present) < 2:
        return frozenset()
    words = {turn.id: turn for turn in stored.turns()}
    return frozenset(turn.id for one in present for turn in one.turns() if words.get(turn.id, turn) != turn)
