"""Judges a run by what its clients saw and what only the simulation knows: the promises of docs/guarantees.md.

`tests.answers` judges what each answer shows; what is stored when all is over is judged here.
"""

from collections import Counter
from collections.abc import Iterator

from conversations.stores import ALIASES
from tests.answers import CUT_OFF_KNOWN, DOUBLED, FAILED, OK, Event, Offence, Recorded, by_session
from tests.simulation.backends import questions
from tests.simulation.plans import LENGTH
from tests.simulation.world import NOT_PERSISTED, World

SEEN_BY_OTHERS = 2.5  # seconds until every machine knows what another flagged or switched
KEY_EXPIRED = "KeyExpired"  # an answer: the question was stored, and its turn trimmed or deleted
UNUSED = 6.0  # seconds after a fault in which a store may not be used yet
MOST_SECONDS = 2.0 + 0.3  # a request and the answerer's time


def check(world: World) -> list[str]:
    """Return what was promised and did not hold, one line each."""
    answers = [str(offence) for offence in _offences(world)]
    wrong = [*answers, *_not_stored(world), *_refused(world), *_deadlines(world), *_at_the_end(world)]
    return [*world.violations, *wrong]


def stored_twice(world: World) -> list[str]:
    """Return the answers that show a question twice, and the turns that are stored although that was denied."""
    doubled = [str(offence) for offence in _offences(world) if offence.kind == DOUBLED]
    return [*doubled, *_not_stored(world)]


def _offences(world: World) -> list[Offence]:
    return [
        offence
        for events in by_session(world.events).values()
        for offence in Recorded(events, world.losses, world.plan.max_turns, _may_not_be_known).offences()
    ]


def _not_stored(world: World) -> list[str]:
    """Return the turns that are stored although they were answered with `not_persisted`, and not asked again."""
    refused = {each.text: each for each in world.events if each.error == NOT_PERSISTED}
    once = {text for text, number in Counter(each.text for each in world.events).items() if number == 1}
    held = set().union(*(questions(backend.store.values) for backend in world.backends.values()))
    return [f"stored after all {text}: {refused[text]}" for text in refused if text in once & held]


def _may_not_be_known(earlier: Event, event: Event) -> bool:
    """Return whether another machine did it so recently that this one cannot know."""
    if earlier.machine == event.machine or (event.expected and event.expected == earlier.message_id):
        return False
    known = CUT_OFF_KNOWN if event.cut_off or earlier.cut_off else SEEN_BY_OTHERS
    return earlier.ended > event.began - known


def _maybe_deleted(world: World, turn: Event) -> bool:
    """Return whether the turn may be older than a deletion: one that is answered by a retry is as old as the first."""
    tries = [each for each in world.events if each.session == turn.session and each.text == turn.text]
    return any(
        each.kind == "delete" and each.session == turn.session and each.ended > tries[0].began for each in world.events
    )


def _refused(world: World) -> list[str]:
    """Return the requests that were not answered although one store at least had been without any fault."""
    return [
        f"refused: {event}"
        for event in world.events
        if event.outcome == FAILED and event.error != KEY_EXPIRED and len(_troubled(world, event)) < len(ALIASES)
    ]


def _troubled(world: World, event: Event) -> set[str]:
    """Return the stores that had a fault while the event lasted, or so shortly before that it may still be unused."""
    faults = zip(world.began, world.disturbed, strict=True)
    recent = (fault for fault, (begun, end) in faults if begun < event.ended and end > event.began - UNUSED)
    return {alias for fault in recent for alias in ALIASES if alias in fault.target or fault.kind == "part"}


def _deadlines(world: World) -> list[str]:
    return [
        f"took {event.ended - event.began:.2f} s: {event}"
        for event in world.events
        if event.ended < float("inf") and event.ended - event.began > MOST_SECONDS
    ]


def _at_the_end(world: World) -> list[str]:
    """Return what repair should have ended by now."""
    if any(end > LENGTH for _, end in world.disturbed):
        return []
    lost: set[str] = set().union(*(loss.turns for loss in world.losses))
    sessions = by_session(world.events)
    wrong = [line for session in sessions for line in _not_repaired(world, session, lost)]
    return wrong + [line for events in sessions.values() for line in _lost(world, events, lost)]


def _not_repaired(world: World, session: str, lost: set[str]) -> Iterator[str]:
    """Yield what differs between the stores, and the flags that are left. A lost turn that a late write has brought
    back is in one store until it is asked for, or until a scrub; so is what was evicted, and what a lost deletion
    covers that the other store has applied late. What is trimmed in one store alone stays in the other, also where that
    was applied late, after the command had given up."""
    evicted = any(fault.kind == "evict" for fault in world.began)
    late = any(fault.kind == "apply late" for fault in world.began)
    trimmed = any(fault.kind.startswith("trim") and (fault.target in ALIASES or late) for fault in world.began)
    stores = {alias: world.backends[alias].store for alias in ALIASES}
    lost_deletion = late and any(session in loss.deletions for loss in world.losses)
    covered = max(store._tombstones.get(session, ("", 0.0))[0] for store in stores.values()) if lost_deletion else ""
    asked = {alias: store.values.get(session, ())[::2] for alias, store in stores.items()}
    every = sorted({message.id for messages in asked.values() for message in messages})
    # A lost turn that is back takes a place of the window, though in one store alone.
    back = any(message.content in lost for messages in asked.values() for message in messages)
    first = every[-world.plan.max_turns :][0] if back else ""
    held = {
        alias: tuple(
            message.content
            for message in messages
            if message.content not in lost and message.id > covered and message.id >= first
        )
        for alias, messages in asked.items()
    }
    if world.processes[0].state.routing.dual_write and len(set(held.values())) > 1 and not (evicted or trimmed):
        yield f"not repaired {session}: {held}"
    yield from (f"still flagged {session} in {alias}" for alias, store in stores.items() if session in store._flags)


def _lost(world: World, events: list[Event], lost: set[str]) -> Iterator[str]:
    """Yield the acknowledged turns of one session that no store has, though they were neither trimmed nor deleted."""
    held = set().union(*(questions(backend.store.values) for backend in world.backends.values()))
    later: set[str] = set()
    tries = 0  # each may have a place in the window
    for each in reversed([event for event in events if event.kind == "ask"]):
        acknowledged = each.outcome == OK and each.text not in later
        excused = each.text in lost or tries >= world.plan.max_turns or _maybe_deleted(world, each)
        if acknowledged and not excused and each.text not in held:
            yield f"lost {each.text}: {each}"
        later.add(each.text)
        tries += each.outcome != FAILED
