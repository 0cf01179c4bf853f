"""Judges a run by what its clients saw and what only the simulation knows: the promises of docs/guarantees.md.

In the manner of Elle's checks of append-only lists: every read shows a list of turns, from which what came before
what is known, and each acknowledged turn has to be in every later list unless something excuses it.
"""

from collections import Counter

from conversations.policy import FULL
from tests.simulation.plans import LENGTH, QUIET
from tests.simulation.world import NOT_PERSISTED, OK, Event, World, questions

SEEN_BY_OTHERS = 2.5  # seconds until every machine knows what another flagged or switched
CUT_OFF_KNOWN = 8.0  # seconds until a machine that reaches one store alone knows that another has been cut off
MOST_SECONDS = 2.0 + 0.3  # a request and the answerer's time


def check(world: World) -> list[str]:
    """Return what was promised and did not hold, one line each."""
    return [*world.violations, *stored_twice(world), *_answers(world), *_deadlines(world), *_at_the_end(world)]


def stored_twice(world: World) -> list[str]:
    """Return the answers that show a question twice, and the turns that are stored although that was denied."""
    return [*_doubled(world), *_not_stored(world)]


def _doubled(world: World) -> list[str]:
    answered = [event for event in world.events if event.outcome == OK]
    return [f"doubled: {event}" for event in answered if len(set(event.seen)) < len(event.seen)]


def _answers(world: World) -> list[str]:
    wrong = []
    for event in world.events:
        if event.outcome != OK or event.kind == "delete":
            continue
        if event.context == FULL and not event.replayed:  # that one saw what there was when it was first asked
            wrong += _forgotten(world, event) + _undeleted(world, event)
        wrong += _disordered(world, event)
    return wrong


def _forgotten(world: World, event: Event) -> list[str]:
    asks = [each for each in world.events if each.kind == "ask" and each.session == event.session]
    lost = set().union(*(loss.turns for loss in world.losses if loss.at < event.ended))
    later: set[str] = set()
    wrong = []
    for each in reversed(asks):
        if each.text == event.text:
            continue
        if each.outcome == OK and each.ended < event.began and each.text not in later:
            excused = (
                each.text in lost
                or _maybe_deleted(world, each, event)
                or len(later) >= world.plan.max_turns
                or _may_not_be_known(each, event)
            )
            if each.text not in event.seen and not excused:
                wrong.append(f"forgotten {each.text}: {event}")
        later.add(each.text)
    return wrong


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


def _maybe_deleted(world: World, turn: Event, event: Event) -> bool:
    return any(
        each.kind == "delete" and each.session == turn.session and each.ended > turn.began and each.began < event.ended
        for each in world.events
    )


def _undeleted(world: World, event: Event) -> list[str]:
    lost = set().union(*(loss.deletions for loss in world.losses if loss.at < event.ended))
    if event.session in lost:
        return []
    wrong = []
    for deletion in world.events:
        acknowledged = deletion.kind == "delete" and deletion.outcome == OK and deletion.session == event.session
        if not acknowledged or deletion.ended >= event.began or _may_not_be_known(deletion, event):
            continue
        gone = {
            each.text for each in world.events
            if each.kind == "ask" and each.session == event.session and each.outcome == OK
            and each.ended < deletion.began and not _asked_again(world, each, deletion)
        }  # fmt: skip
        if gone & set(event.seen):
            wrong.append(f"undeleted {sorted(gone & set(event.seen))}: {event}")
    return wrong


def _asked_again(world: World, turn: Event, deletion: Event) -> bool:
    return any(each.text == turn.text and each.ended > deletion.began for each in world.events)


def _disordered(world: World, event: Event) -> list[str]:
    """Return the turns that are shown before one that their client had been answered before it asked them."""
    first = {}
    for each in world.events:
        if each.kind == "ask" and each.outcome == OK and each.session == event.session and not each.replayed:
            first.setdefault(each.text, each)
    shown = [first[text] for text in event.seen if text in first]
    return [
        f"disordered {one.text} before {two.text}: {event}"
        for one, two in zip(shown, shown[1:], strict=False)
        if two.message_id and one.expected and two.message_id <= one.expected and two.ended < one.began
    ]


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
    end = Event("read", "", 0, LENGTH + QUIET)
    for session in {event.session for event in world.events}:
        asks = [each for each in world.events if each.kind == "ask" and each.session == session]
        later: set[str] = set()
        for each in reversed(asks):
            acknowledged = each.outcome == OK and each.text not in later
            excused = each.text in lost or len(later) >= world.plan.max_turns or _maybe_deleted(world, each, end)
            if acknowledged and not excused and not any(each.text in texts for texts in held.values()):
                wrong.append(f"lost {each.text}: {each}")
            later.add(each.text)
    return wrong
