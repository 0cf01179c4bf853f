"""What each answer shows, judged against what had been acknowledged when it was asked for: without I/O.

In the manner of Elle's checks of append-only lists: every answer shows the list of turns that it was given, and each
turn that was acknowledged before is in that list, once and in its place, unless something excuses it. The simulation
and the suite of faults both record events for it.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

FULL = "full"
OK, FAILED, UNKNOWN = "ok", "failed", "unknown"
CUT_OFF_KNOWN = 8.0
"""Seconds until a machine that reaches one store alone knows that another has been cut off from it."""
DOUBLED, FORGOTTEN, UNDELETED, DISORDERED = "doubled", "forgotten", "undeleted", "disordered"


@dataclass
class Event:
    """What a client did, and what came of it."""

    kind: str
    """`ask`, `read` or `delete`."""
    session: str
    machine: int
    began: float
    text: str = ""
    expected: str | None = None
    """The `last_message_id` that was sent."""
    ended: float = float("inf")
    outcome: str = UNKNOWN
    error: str = ""
    context: str = ""
    message_id: str | None = None
    stored_in: tuple[str, ...] = ()
    seen: tuple[str, ...] = ()
    """The questions that the answerer was shown, oldest first."""
    replayed: bool = False
    key: str = ""
    """The Idempotency-Key to ask again with, where the outcome is unknown."""
    cut_off: bool = False
    """Whether its machine could not reach a store just then."""
    client: int = 0
    """Which of the session's clients it was."""

    def __str__(self) -> str:
        what = f"{self.began:7.3f}-{self.ended:7.3f}  {self.kind} {self.session} on {self.machine} {self.text}"
        if self.expected:
            what += f" after {self.expected[:13]}"
        result = f"{self.outcome} {self.error}{self.context}"
        if self.kind == "ask" and self.outcome == OK:
            result += f" {(self.message_id or '')[:13]} in {'+'.join(self.stored_in)}{' replayed' * self.replayed}"
        return f"{what}: {result} saw [{' '.join(self.seen)}]"


@dataclass
class Loss:
    """Data that was lost for good, as only the one who destroyed it can know."""

    at: float
    alias: str
    turns: set[str] = field(default_factory=set)
    """The questions of turns that no other store had."""
    deletions: set[str] = field(default_factory=set)
    """Sessions whose tombstone no other store had."""


@dataclass(frozen=True, slots=True)
class Offence:
    """An answer that shows what it must not, or does not show what it must."""

    kind: str
    what: str
    event: Event

    def __str__(self) -> str:
        return f"{self.kind} {self.what}: {self.event}"


def carried(one: Event, two: Event) -> bool:
    """Return whether `one` was asked by a client that had been given the id of `two`, or a later one."""
    return bool(two.message_id and one.expected and two.message_id <= one.expected)


@dataclass(frozen=True)
class Recorded:
    """All that was done in one session, in the order in which it began."""

    events: Sequence[Event]
    losses: Sequence[Loss] = ()
    max_turns: int = 1000
    may_not_be_known: Callable[[Event, Event], bool] = lambda earlier, event: False
    """Whether the event was served where the earlier one cannot be known yet."""
    comes_after: Callable[[Event, Event], bool] = carried
    """Whether the first of two turns has to be after the second, which had been answered before it was asked."""

    def offences(self) -> list[Offence]:
        """Return what is wrong with the answers and reads."""
        answered = [event for event in self.events if event.outcome == OK and event.kind != "delete"]
        return [offence for event in answered for offence in self.of(event)]

    def of(self, event: Event) -> list[Offence]:
        """Return what is wrong with this answer. A replayed one shows what there was when it was first asked for."""
        wrong = [*self._doubled(event), *self._disordered(event)]
        if event.context == FULL and not event.replayed:
            wrong += [*self._forgotten(event), *self._undeleted(event)]
        return wrong

    @property
    def _asks(self) -> list[Event]:
        return [each for each in self.events if each.kind == "ask"]

    @property
    def _deletions(self) -> list[Event]:
        return [each for each in self.events if each.kind == "delete"]

    def _doubled(self, event: Event) -> list[Offence]:
        twice = sorted(text for text, number in Counter(event.seen).items() if number > 1)
        return [Offence(DOUBLED, str(twice), event)] if twice else []

    def _forgotten(self, event: Event) -> list[Offence]:
        """Return the turns that had been acknowledged, at the end or in the middle, and are not shown."""
        seen = set(event.seen)
        return [Offence(FORGOTTEN, each.text, event) for each in self.due(event) if each.text not in seen]

    def due(self, event: Event) -> list[Event]:
        """Return the acknowledged turns that the event has to show, the latest first."""
        lost = set().union(*(loss.turns for loss in self.losses if loss.at < event.ended))
        deletions = [each for each in self._deletions if each.began < event.ended]
        later: set[str] = set()
        tries = 0  # of later turns: each may have a place among those that are kept
        first = {each.text: each for each in reversed(self._asks)}  # a turn is as old as the first try to ask for it
        due = []
        for each in reversed(self._asks):
            if each.text == event.text:
                continue
            if each.outcome == OK and each.ended < event.began and each.text not in later and each.text not in lost:
                deleted = any(deletion.ended > first[each.text].began for deletion in deletions)
                trimmed = tries >= self.max_turns
                if not (deleted or trimmed or self.may_not_be_known(each, event)):
                    due.append(each)
            later.add(each.text)
            tries += each.outcome != FAILED
        return due

    def _undeleted(self, event: Event) -> Iterable[Offence]:
        """Return the turns that had been deleted before, and are shown."""
        if event.session in set().union(*(loss.deletions for loss in self.losses if loss.at < event.ended)):
            return
        for deletion in self._deletions:
            known = deletion.outcome == OK and deletion.ended < event.began
            if known and not self.may_not_be_known(deletion, event):
                back = self._gone(deletion) & set(event.seen)
                if back:
                    yield Offence(UNDELETED, str(sorted(back)), event)

    def _gone(self, deletion: Event) -> set[str]:
        """Return the questions that the deletion has removed: those answered before, and not asked again. One that no
        store had any more was not seen by it, and a late write can bring it back."""
        again = {each.text for each in self._asks if each.ended > deletion.began}
        before = {each.text for each in self._asks if each.outcome == OK and each.ended < deletion.began}
        lost = set().union(*(loss.turns for loss in self.losses if loss.at < deletion.ended))
        return before - again - lost

    def _disordered(self, event: Event) -> list[Offence]:
        """Return the turns that are shown before one that had been answered before they were asked."""
        first: dict[str, Event] = {}
        for each in self._asks:
            if each.outcome == OK and not each.replayed:
                first.setdefault(each.text, each)
        shown = [first[text] for text in event.seen if text in first]
        pairs = [pair for client in {each.client for each in shown} for pair in _neighbours(shown, client)]
        return [
            Offence(DISORDERED, f"{one.text} before {two.text}", event)
            for one, two in pairs
            if two.ended < one.began and self.comes_after(one, two)
        ]


def _neighbours(shown: list[Event], client: int) -> Iterable[tuple[Event, Event]]:
    own = [each for each in shown if each.client == client]
    return zip(own, own[1:], strict=False)


def by_session(events: Iterable[Event]) -> dict[str, list[Event]]:
    """Return the events of each session."""
    sessions: dict[str, list[Event]] = {}
    for event in events:
        sessions.setdefault(event.session, []).append(event)
    return sessions
