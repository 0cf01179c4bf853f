"""Judges a run by what its clients saw and what only the simulation knows: the promises of docs/guarantees.md.

`tests.answers` judges what each answer shows; what is stored when all is over is judged here.
"""

from collections import Counter

from tests.answers import CUT_OFF_KNOWN, DOUBLED, OK, Event, Offence, Recorded, by_session
from tests.simulation.plans import LENGTH
from tests.simulation.world import NOT_PERSISTED, World, questions

SEEN_BY_OTHERS = 2.5  # seconds until every machine knows what another flagged or switched
MOST_SECONDS = 2.0 + 0.3  # a request and the answerer's time


def check(world: World) -> list[str]:
    """Return what was promised and did not hold, one line each."""
    answers = [str(offence) for offence in _offences(world)]
    return [*world.violations, *answers, *_not_stored(world), *_deadlines(world), *_at_the_end(world)]


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
    return any(
        each.kind == "delete" and each.session == turn.session and each.ended > turn.began for each in world.events
    )


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
    redis, mongo = (world.backends[alias].store for alias in ("redis", "mongo"))
    routing = world.processes[0].state.routing
    lost = set().union(*(loss.turns for loss in world.losses))
    wrong = []
    held = {"redis": questions(redis.values), "mongo": questions(mongo.values)}
    for session in {event.session for event in world.events}:
        ours, theirs = (
            tuple(message.content for message in store.values.get(session, ())[::2]) for store in (redis, mongo)
        )
        if routing.dual_write and ours != theirs:
            wrong.append(f"not repaired {session}: redis {ours} mongo {theirs}")
        for alias, store in (("redis", redis), ("mongo", mongo)):
            if session in store._flags:
                wrong.append(f"still flagged {session} in {alias}")
    for session in {event.session for event in world.events}:
        asks = [each for each in world.events if each.kind == "ask" and each.session == session]
        later: set[str] = set()
        for each in reversed(asks):
            acknowledged = each.outcome == OK and each.text not in later
            excused = each.text in lost or len(later) >= world.plan.max_turns or _maybe_deleted(world, each)
            if acknowledged and not excused and not any(each.text in texts for texts in held.values()):
                wrong.append(f"lost {each.text}: {each}")
            later.add(each.text)
    return wrong
