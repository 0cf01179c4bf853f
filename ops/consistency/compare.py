"""Comparing every conversation of both stores: whole histories, a batch at a time, changing nothing.

A store is missing a turn when the union of both histories, after tombstones and limits, has it and the store has not.
While clients write, a turn may be in one store and not yet in the other. So what differs is looked at again a second
later, when every call of that time has ended, and counts only if the same is still missing.
"""

import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

from conversations import expiry, merge
from conversations.errors import CorruptHistory
from conversations.policy import Routing
from conversations.stores import ALIASES, bulk, limits, store
from conversations.stores.batches import retried
from conversations.stores.bulk_reader import Found
from conversations.turns import SESSION

PAGE = 200
BATCH = 1000
"""How many that differ are kept in memory before they are looked at again."""
SECOND_LOOK_SECONDS = 1.0

CORRUPT, DIFFERING, FLAGGED, IN_STEP = "corrupt", "differing", "marked", "in_step"
FALLBACK_BEHIND, NOT_A_SESSION = "fallback_behind", "not_a_session"
ONLY_IN = {alias: f"only_in_{alias}" for alias in ALIASES}
KINDS = (IN_STEP, *ONLY_IN.values(), FALLBACK_BEHIND, DIFFERING, CORRUPT, FLAGGED, NOT_A_SESSION)

_TOMBSTONE = "tombstone"
_ORDER = ALIASES[::-1]  # the other way round the slower store would be asked more


@dataclass(frozen=True, slots=True)
class Comparison:
    """What both stores hold of one conversation, compared."""

    session: str
    stores: tuple[str, ...] = ()
    """Those that hold turns of it."""
    missing: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """For each store the ids of its missing turns, and the word `tombstone` if that is missing."""
    conflicting: frozenset[str] = frozenset()
    """The ids of turns that both have and that are not the same; nothing shows which is right."""
    corrupt: tuple[str, ...] = ()
    flagged: tuple[str, ...] = ()
    tombstoned: bool = False

    @property
    def in_step(self) -> bool:
        return not (any(self.missing.values()) or self.conflicting or self.corrupt)

    def kind(self, routing: Routing) -> str:
        """Return one of KINDS."""
        if not SESSION.fullmatch(self.session):
            return NOT_A_SESSION
        if self.corrupt:
            return CORRUPT
        if self.in_step:
            return FLAGGED if self.flagged else IN_STEP
        deletion = any(_TOMBSTONE in ids for ids in self.missing.values())
        if self.conflicting or deletion:
            return DIFFERING
        if len(self.stores) == 1:
            return ONLY_IN[self.stores[0]]
        behind = not routing.dual_write and not self.missing.get(routing.primary)
        return FALLBACK_BEHIND if behind else DIFFERING

    def expected(self, routing: Routing) -> bool:
        """Return whether it is as it should be: in step, or, without dual write, behind in the fallback alone."""
        kind = self.kind(routing)
        if kind in (IN_STEP, NOT_A_SESSION):
            return True
        alone = kind in (FALLBACK_BEHIND, ONLY_IN[routing.primary])
        return alone and not routing.dual_write and not self.flagged

    def same_as(self, earlier: "Comparison") -> bool:
        """Return whether what was wrong earlier is wrong still."""
        if any(self.missing.get(alias, frozenset()) & ids for alias, ids in earlier.missing.items()):
            return True
        return bool(self.corrupt or self.conflicting or (self.flagged and earlier.flagged))


def compare(session: str, found: Mapping[str, Found]) -> Comparison:
    """Return how what the two stores hold differs."""
    corrupt = tuple(alias for alias in ALIASES if isinstance(found[alias], CorruptHistory))
    whole = {alias: contents for alias, contents in found.items() if not isinstance(contents, CorruptHistory)}
    plan = merge.plan(whole, limits())
    missing = {alias: {turn.id for turn in one.turns} for alias, one in plan.missing.items()}
    for alias, one in plan.missing.items():
        if one.tombstone and (one.tombstoned or not expiry.may_have_expired(plan.tombstone or "", limits().ttl)):
            missing[alias].add(_TOMBSTONE)
    return Comparison(
        session,
        stores=tuple(alias for alias in ALIASES if alias in whole and whole[alias].history),
        missing={alias: frozenset(ids) for alias, ids in missing.items()},
        conflicting=plan.conflicts,
        corrupt=corrupt,
        flagged=tuple(alias for alias, contents in whole.items() if contents.flag),
        tombstoned=bool(plan.tombstone),
    )


def compare_all(sessions: Collection[str]) -> list[Comparison]:
    """Return the comparison of each of them, and of what is no session's name; raise StoreUnavailable."""
    names = [session for session in sessions if SESSION.fullmatch(session)]
    found = {alias: retried(partial(bulk(alias).contents, names)) for alias in ALIASES}
    foreign = [Comparison(session) for session in sessions if not SESSION.fullmatch(session)]
    return foreign + [compare(session, {alias: found[alias][session] for alias in ALIASES}) for session in names]


def walk() -> Iterator[list[Comparison]]:
    """Yield the comparison of every conversation that was there throughout, in batches; then of those that are
    flagged and hold no turns. Raise StoreUnavailable."""
    flagged: set[str] = set()
    for place, alias in enumerate(_ORDER):
        for sessions in bulk(alias).sessions(PAGE):
            known = _present(_ORDER[:place], sessions)
            batch = compare_all([session for session in sessions if session not in known])
            flagged |= {one.session for one in batch if one.flagged}
            yield batch
    rest = set().union(*(store(alias).flags(BATCH).sessions for alias in ALIASES)) - flagged
    yield compare_all(sorted(rest))


def _present(aliases: tuple[str, ...], sessions: Collection[str]) -> set[str]:
    """Return those of the sessions that any of these stores holds."""
    names = [session for session in sessions if SESSION.fullmatch(session)]
    return set().union(*(retried(partial(bulk(alias).present, names)) for alias in aliases))


def stays_so(suspects: Iterable[Comparison], since: float) -> list[Comparison]:
    """Return those that are still wrong in the same way a second after they were seen, as they are then."""
    earlier = {one.session: one for one in suspects}
    time.sleep(max(0.0, since + SECOND_LOOK_SECONDS - time.monotonic()) if earlier else 0.0)
    return [one for one in compare_all(list(earlier)) if one.same_as(earlier[one.session])]
