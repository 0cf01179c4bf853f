"""The verdict on a row: what its clients were answered, against what they had been answered before and against what
is stored afterwards, read in every way."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.answers import (
    CUT_OFF_KNOWN,
    DISORDERED,
    DOUBLED,
    FORGOTTEN,
    FULL,
    UNDELETED,
    Event,
    Loss,
    Offence,
    Recorded,
    by_session,
    carried,
)
from tests.faults.clients import Ask, Deletion, Talk
from tests.faults.evidence import Held
from tests.faults.recording import Shown, events_of

MOST_MILLISECONDS = 2000.0
MOST_REFUSAL_MILLISECONDS = 1000.0  # with both stores out
FOLLOW_SECONDS = 2.0
BACK_SECONDS = 1.0  # until a machine that reached no store looks again
_EXAMPLES = 3  # of each kind

View = Mapping[str, Held]


@dataclass
class Terms:
    """What a row may do to its clients; times are on the monotonic clock."""

    dual_write: bool
    injecting: float = 0.0
    injected: float = 0.0
    """When the fault was there."""
    ending: float = float("inf")
    """When its end began."""
    lost_connections: bool = False
    """Whether a process is killed: its clients' connections end, and they ask again."""
    clocks_apart: bool = False
    """Whether the servers' clocks differ. Without dual write, while the store with the last turn is out, a
    server then cannot know that its turn comes later, unless the client carries the last id."""
    both_out: bool = False
    """Whether no store could be reached: every answer must then be a 503, and none an acknowledgement."""
    stranded: frozenset[int] = frozenset()
    """The machines that reached no store, while others did: the same for their answers."""
    cut_off: bool = False
    """Whether each machine reached one store alone. Until a heartbeat is stale it cannot know what another stores,
    unless the client carries its id; from then on it must say that it is behind."""
    destroyed_at: float = 0.0
    """When the only copy of all that had been asked was destroyed, 0 for never."""
    switches: list[tuple[float, str, bool]] = field(default_factory=list)
    """When it was switched, to which primary, with dual write or not."""

    def reaches_none(self, machine: int) -> bool:
        """Return whether the machine could reach no store while the fault lasted."""
        return self.both_out or machine in self.stranded


@dataclass
class Verdict:
    """One row of the report."""

    asked: int = 0
    acknowledged: int = 0
    lost: int = 0
    doubled: int = 0
    """Questions that are stored twice, and answers that show one twice; the same for the next two."""
    disordered: int = 0
    revived: int = 0
    """Deleted and back."""
    forgotten: int = 0
    """Answers that do not show every acknowledged turn, at the end or in the middle, with context: full."""
    behind: int = 0
    """Answers with context: behind."""
    astray: int = 0
    """Turns not stored where a switch sends them, later than it may take to be followed."""
    errors: dict[str, int] = field(default_factory=dict)
    """How many of each kind."""
    unexpected: int = 0
    """Errors that a promise rules out."""
    slowest_ms: float = 0.0
    repair_seconds: float | None = None
    broken: list[str] = field(default_factory=list)
    """The promises that were broken."""
    beside: float = 0.0
    """Calls that failed meanwhile to the store which the row leaves alone."""
    examples: list[str] = field(default_factory=list)
    """Of the first few offences, what they were."""

    @property
    def disturbed(self) -> bool:
        """Whether all that is wrong is an honest `behind`, and a busy machine made the other store fail too: that is
        another fault than the row's."""
        return self.beside > 0 and bool(self.broken) and all(one.startswith("behind ") for one in self.broken)

    def example(self, kind: str, text: str) -> None:
        if sum(example.startswith(kind) for example in self.examples) < _EXAMPLES:
            self.examples.append(f"{kind}: {text}")


def judge(talks: list[Talk], views: Mapping[str, View], terms: Terms, shown: Shown) -> Verdict:
    """Return the verdict on what the clients were answered, and on every view of what is stored afterwards."""
    verdict = Verdict()
    for talk in talks:
        for ask in talk.asks:
            verdict.asked += 1
            verdict.acknowledged += ask.acknowledged
            _judge_answer(ask, terms, verdict)
        for gone in talk.deletions:
            _judge_request(gone, gone.session, terms, verdict)
        _judge_contents(talk, views, terms, verdict)
    _judge_shown(offences(talks, terms, shown), verdict)
    return verdict


def judge_last(asks: list[Ask], talks: list[Talk], terms: Terms, verdict: Verdict, shown: Shown) -> None:
    """Judge the questions that were asked when all was repaired: each is answered from everything."""
    wrong = {(one.event.session, one.event.text): str(one) for one in offences(talks, terms, shown)}
    for ask in asks:
        problem = ask.error or wrong.get((ask.session, ask.question))
        if problem or ask.body["context"] != FULL:
            verdict.broken.append("after repair something is missing still")
            verdict.example("after repair", f"{ask.session}: {problem or ask.body}")
            return


def conclude(verdict: Verdict, terms: Terms, apart: str) -> None:
    """Record which promises were broken; `apart` is how the stores still differ, "" where they do not."""
    names = ("lost", "doubled", "disordered", "revived", "forgotten", "astray")
    verdict.broken += [f"{name} {count}" for name in names if (count := getattr(verdict, name))]
    if terms.dual_write and verdict.behind and not (terms.both_out or terms.cut_off):
        verdict.broken.append(f"behind {verdict.behind} with dual write")
    if verdict.unexpected:
        verdict.broken.append(f"errors {verdict.unexpected}")
    if verdict.slowest_ms > MOST_MILLISECONDS:
        verdict.broken.append(f"slowest {verdict.slowest_ms:.0f} ms")
    if apart:
        verdict.broken.append(f"not repaired: {apart}")


def offences(talks: list[Talk], terms: Terms, shown: Shown) -> list[Offence]:
    """Return which answers show what they must not, or do not show what they must."""
    sessions = by_session(events_of(talks, shown)).values()
    return [offence for events in sessions for offence in _recorded(events, terms).offences()]


def _recorded(events: list[Event], terms: Terms) -> Recorded:
    lost = {event.text for event in events if event.began <= terms.destroyed_at}
    in_order = not terms.clocks_apart or terms.dual_write
    return Recorded(
        events,
        [Loss(terms.destroyed_at, "", lost)],
        may_not_be_known=lambda earlier, event: _may_not_be_known(earlier, event, terms),
        comes_after=lambda one, two: in_order or carried(one, two),
    )


def _may_not_be_known(earlier: Event, event: Event, terms: Terms) -> bool:
    if not terms.cut_off or earlier.machine == event.machine or carried(event, earlier):
        return False
    return earlier.ended > terms.injecting and event.began < terms.injected + CUT_OFF_KNOWN


def _judge_shown(found: list[Offence], verdict: Verdict) -> None:
    counts = Counter(kind for kind, _ in {(one.kind, id(one.event)) for one in found})
    verdict.doubled += counts[DOUBLED]
    verdict.disordered += counts[DISORDERED]
    verdict.revived += counts[UNDELETED]
    verdict.forgotten += counts[FORGOTTEN]
    for one in found:
        verdict.example(f"shown: {one.kind}", str(one))


def _judge_answer(ask: Ask, terms: Terms, verdict: Verdict) -> None:
    _judge_request(ask, f"{ask.session} {ask.question}", terms, verdict)
    if not ask.acknowledged:
        return
    if terms.reaches_none(ask.machine) and terms.injected < ask.started and ask.ended < terms.ending:
        verdict.unexpected += 1
        verdict.example("acknowledged with both stores out", f"{ask.session} {ask.question}: {ask.body}")
    behind = ask.body["context"] != FULL
    verdict.behind += behind
    if behind and terms.dual_write:
        verdict.example("behind", f"{ask.session} {ask.question}: {ask.body}")
    _judge_place(ask, terms, verdict)


def _judge_place(ask: Ask, terms: Terms, verdict: Verdict) -> None:
    """Judge whether a switch was followed: what was asked two seconds later is stored where it sends traffic."""
    before = [switch for switch in terms.switches if switch[0] <= ask.started]
    after = [switch for switch in terms.switches if switch[0] > ask.started]
    if not before or (after and after[0][0] < ask.ended):
        return
    at, primary, dual_write = before[-1]
    wanted = {"redis", "mongo"} if dual_write else {primary}
    if ask.started > at + FOLLOW_SECONDS and set(ask.body["stored_in"]) != wanted:
        verdict.astray += 1
        verdict.example("astray", f"{ask.started - at:.1f} s after the switch, {ask.session}: {ask.body}")


def _judge_request(request: Ask | Deletion, name: str, terms: Terms, verdict: Verdict) -> None:
    milliseconds = (request.ended - request.started) * 1000
    verdict.slowest_ms = max(verdict.slowest_ms, milliseconds)
    if not request.error:
        return
    verdict.errors[request.error] = verdict.errors.get(request.error, 0) + 1
    if request.error.startswith("connection"):
        expected = terms.lost_connections
    else:
        late = BACK_SECONDS if request.machine in terms.stranded else 0.0
        while_out = terms.injecting < request.ended and request.started < terms.ending + late
        under_way = request.started < terms.injected  # it may have been answered by one store before
        in_time = milliseconds <= (MOST_MILLISECONDS if under_way else MOST_REFUSAL_MILLISECONDS)
        expected = terms.reaches_none(request.machine) and while_out and in_time and request.error.startswith("503")
    if not expected:
        verdict.unexpected += 1
        since = request.started - terms.injected
        verdict.example("error", f"{since:+.2f} s from the fault, {name}: {request.error}, {milliseconds:.0f} ms")


def _judge_contents(talk: Talk, views: Mapping[str, View], terms: Terms, verdict: Verdict) -> None:
    """Judge whether every acknowledged turn is there once, in order, its answer beside it, and nothing deleted."""
    deleted_at = max((gone.started for gone in talk.deletions if not gone.error), default=0.0)
    kept = [one for one in talk.asks if one.acknowledged and one.started > max(deleted_at, terms.destroyed_at)]
    deleted = {ask.question for ask in talk.asks if ask.started < deleted_at}
    asked = {ask.question for ask in talk.asks}
    lost, doubled, revived, disordered = set(), set(), set(), 0
    for view, conversations in views.items():
        messages = conversations[talk.session].messages
        place = {message["id"]: number for number, message in enumerate(messages)}
        places = []
        for ask in kept:
            at = place.get(ask.body["message_id"], -1)
            if at < 1 or not _is(ask, messages[at - 1]["content"], messages[at]["content"]):
                lost.add(ask.question)
                verdict.example("lost", f"in {view}, {ask.session} {ask.question} {ask.body} (key {ask.key})")
                continue
            places.append(at)
        if talk.carries or terms.dual_write or not terms.clocks_apart:
            disordered = max(disordered, sum(one > other for one, other in zip(places, places[1:], strict=False)))
        counts = Counter(question["content"] for question in messages[::2])
        doubled |= {question for question in asked if counts[question] > 1}
        revived |= {question for question in deleted if counts[question]}
    verdict.lost += len(lost)
    verdict.doubled += len(doubled)
    verdict.revived += len(revived)
    verdict.disordered += disordered
    for what, questions in (("doubled", doubled), ("deleted and back", revived)):
        if questions:
            verdict.example(what, f"{talk.session} {sorted(questions)[:5]}")


def _is(ask: Ask, question: str, answer: str) -> bool:
    return bool(question == ask.question and answer == ask.body["answer"])
