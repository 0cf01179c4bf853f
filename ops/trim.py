"""Making room: what is old, long or expired is removed, in small steps.

What is removed from both stores leaves a tombstone in them, so that no repair, merge or restore brings it back.
What is removed from one store alone leaves none: the other has it still, and it is read back when it is asked for.
"""

import sys
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from conversations import merge
from conversations.clock import now
from conversations.history import trimmed
from conversations.ids import time_of
from conversations.runtime.state import state
from conversations.stores import ALIASES, bulk
from conversations.stores.batches import retried
from conversations.turns import History, Limits
from ops.long_work import Advance
from ops.memory import MemoryReport

PAGE = 200


@dataclass(frozen=True, slots=True)
class Shortened:
    """How many conversations were, or would be, cut, and how many turns they lose."""

    conversations: int = 0
    turns: int = 0


@dataclass
class TrimReport:
    """What was trimmed, or without `applied` what would be; None for what was not asked for."""

    applied: bool
    stores: tuple[str, ...]
    expired: dict[str, int] | None = None
    """How many, by what they are."""
    older_than: dict[str, int] | None = None
    """How many conversations went from each store."""
    max_turns: Shortened | None = None
    to_memory: MemoryReport | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the report for machines."""
        report = {name: value for name, value in asdict(self).items() if value is not None}
        if self.to_memory:
            report["to_memory"] = self.to_memory.as_dict()
        return report | {"stores": list(self.stores)}


class Scope:
    """Which stores are trimmed, whether anything is removed or only counted, and the progress."""

    def __init__(self, aliases: tuple[str, ...], *, apply: bool, advance: Advance) -> None:
        self.aliases, self.apply, self._advance = aliases, apply, advance
        self._seen = 0

    @property
    def tombstones(self) -> bool:
        """Whether what is removed leaves a tombstone: it does where it is removed from every store."""
        return self.aliases == ALIASES

    @property
    def notes(self) -> bool:
        """Whether it is noted what is removed: the other store has it still."""
        return self.apply and not self.tombstones

    def note(self, uptos: Mapping[str, str]) -> None:
        """Note what was removed up to these ids, where that leaves a tombstone: it is a deletion then."""
        if self.tombstones:
            state().deletions.note(uptos)

    def saw(self, number: int) -> None:
        """Show that so many more were looked at; the total is not known."""
        self._seen += number
        self._advance(self._seen, self._seen)


def older_than(scope: Scope, age: timedelta) -> dict[str, int]:
    """Delete conversations whose last message, in whichever store it is, is older than that; return how many went
    from each store."""
    cutoff = now() - age
    gone = Counter(dict.fromkeys(scope.aliases, 0))
    for last_ids in _last_ids(scope):
        gone.update(remove(scope, _old(scope, last_ids, cutoff)))
    return dict(gone)


def max_turns(scope: Scope, most: int) -> Shortened:
    """Delete the turns of each conversation, over all stores of the scope, before its newest so many."""
    conversations = turns = 0
    if scope.notes:
        trimmed.shortened(scope.aliases[0])
    for page in _histories(scope):
        dropped = {session: over for session, histories in page.items() if (over := _over(histories, most))}
        conversations += len(dropped)
        turns += sum(map(len, dropped.values()))
        ends = {session: over[max(over)] for session, over in dropped.items()}
        for alias in scope.aliases if scope.apply else ():
            bulk(alias).trim(ends, tombstones=scope.tombstones)
        if scope.apply:
            scope.note(ends)
    return Shortened(conversations, turns)


def _over(histories: Collection[History], most: int) -> dict[str, str]:
    """Return the turns that are not among the newest so many, each with the id of its answer."""
    if sum(map(len, histories)) <= 2 * most:  # messages; most conversations are short
        return {}
    turns = [turn for history in histories for turn in history.turns()]
    oldest = merge.stored(turns, Limits(0, most, sys.maxsize)).turns()[0]
    return {turn.id: turn.answer.id for turn in turns if turn.id < oldest.id}


def expired(scope: Scope) -> dict[str, int]:
    """Remove what has expired, and give a TTL to what has none; return how many of both there were, by name."""
    stores = [bulk(alias) for alias in reversed(scope.aliases)]
    return {store.expired_name: store.expire(apply=scope.apply) for store in stores}


def remove(scope: Scope, last_ids: Mapping[str, str]) -> dict[str, int]:
    """Remove conversations that have no later message; return how many went from each store. One that has a later
    message in a store stays in the stores after it."""
    gone = {}
    if scope.notes:
        trimmed.removed(scope.aliases[0], max(last_ids.values(), default=""))
    for alias in scope.aliases:
        if not scope.apply:
            gone[alias] = len(retried(partial(bulk(alias).last_ids, last_ids)))
            continue
        removal = bulk(alias).remove(last_ids, tombstones=scope.tombstones)
        scope.note({session: last_ids[session] for session in removal.removed})
        gone[alias] = len(removal.removed)
        last_ids = {session: last for session, last in last_ids.items() if session not in removal.kept}
    return gone


def _old(scope: Scope, last_ids: dict[str, str], cutoff: datetime) -> dict[str, str]:
    """Return those of the conversations that are older than that in every store of the scope."""
    old = {session: last for session, last in last_ids.items() if time_of(last) < cutoff}
    for alias in scope.aliases[1:]:
        later = retried(partial(bulk(alias).last_ids, old))
        old = {session: max(last, later.get(session, "")) for session, last in old.items()}
    return {session: last for session, last in old.items() if time_of(last) < cutoff}


def _last_ids(scope: Scope) -> Iterator[dict[str, str]]:
    """Yield the last id of every conversation, by the page, as the first store that holds it has it."""
    for place, alias in enumerate(scope.aliases):
        for found in bulk(alias).all_last_ids(PAGE):
            scope.saw(len(found))
            known = _known(scope.aliases[:place], found)
            yield {session: last for session, last in found.items() if session not in known}


def _histories(scope: Scope) -> Iterator[dict[str, list[History]]]:
    """Yield every conversation, by the page, as each store of the scope has it; corrupt ones are left out."""
    for place, alias in enumerate(scope.aliases):
        for found in bulk(alias).all_histories(PAGE):
            scope.saw(len(found))
            known = _known(scope.aliases[:place], found)
            others = [retried(partial(bulk(other).histories, found)) for other in scope.aliases[place + 1 :]]
            yield {
                session: [history, *(one[session] for one in others if session in one)]
                for session, history in found.items()
                if session not in known
            }


def _known(aliases: tuple[str, ...], sessions: Mapping[str, object]) -> set[str]:
    """Return those of the sessions that any of these stores holds."""
    return {session for alias in aliases for session in retried(partial(bulk(alias).last_ids, sessions.keys()))}
