"""HistoryStore: what every place that keeps histories promises; these docstrings are the specification.

A store answers a history, None for "no such conversation", or raises. An outage is never an answer.
`session` is a session_id, or `tenant:session_id`.
"""

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

from conversations import expiry
from conversations.errors import InvalidTurn
from conversations.ids import MESSAGE_ID, is_stamped
from conversations.stores.sessions import part_of_name
from conversations.turns import History, Limits, Turn
from conversations.used_keys import Keys
from telemetry import metrics
from telemetry.logs import event, hashed

logger = logging.getLogger(__name__)

MOST_SCANNED = 2_000  # sessions on a page, whatever is asked: a server does little else while it looks for them


@dataclass(frozen=True, slots=True)
class Receipt:
    """What an acknowledged append did."""

    stored: bool
    """Whether the turn is new; False when it, or another with its key, was there already."""
    created: bool
    """Whether the store held no turn of the conversation before."""
    tombstone: str | None = None
    """The tombstone that the turn is not later than; it was then not stored, and needs a later id."""
    expired: int | None = None
    """When the question was first asked, in milliseconds since 1970, where its turn is no longer there and only its
    Idempotency-Key is kept; the turn was then not stored."""

    @property
    def is_duplicate(self) -> bool:
        """Whether the turn, or another with its key, was there already."""
        return not (self.stored or self.tombstone or self.expired is not None)


@dataclass(frozen=True, slots=True)
class Contents:
    """All that a store holds of a conversation."""

    history: History | None
    tombstone: str | None
    """The id up to which everything was deleted, as long as the tombstone lives; None too where it is no id."""
    flag: str | None
    """Set when the other store is missing turns that this one has; a new value every time."""
    keys: Keys = field(default_factory=dict)
    """The Idempotency-Keys of the last 24 hours; those of turns that are gone too."""

    def validated(self) -> "Contents":
        """Return the same with every character of the history checked; raise CorruptHistory."""
        return replace(self, history=self.history.validated()) if self.history else self


@dataclass(frozen=True, slots=True)
class Page:
    """Some sessions of a store, and the cursor of the next page; "" when there is none."""

    sessions: tuple[str, ...]
    cursor: str


class Place(NamedTuple):
    """Where a conversation is in the list: later places come first."""

    at: str
    """The time of its last message; NO_TIME where what is stored is no history."""
    session: str


NO_TIME = "1970-01-01T00:00:00.000Z"


@dataclass(frozen=True, slots=True)
class Newest:
    """A part of a store's list, the newest first."""

    places: tuple[Place, ...]
    end: Place | None
    """Down to where these are all, that place included; None where there are no more."""
    whole: bool = True
    """Whether the list is known to have every conversation of the store."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What a list shows of a conversation; both are None where what is stored is no history."""

    messages: int | None
    at: str | None
    """The time of its last message."""
    place: str | None = field(default=None, compare=False)
    """The `at` of its place in the store's list; None where it has none yet."""
    user: str | None = None
    """Whose it is."""
    bytes: int | None = field(default=None, compare=False)
    """About how many its messages take as JSON lines."""
    question: str | None = field(default=None, compare=False)
    """The beginning of the newest question, where it was asked for."""

    @classmethod
    def of(cls, history: History) -> "Summary":
        return cls(len(history), history[-1].at, user=history.user)

    @classmethod
    def of_end(
        cls,
        messages: int,
        message_id: Any,
        at: Any,
        place: str | None = None,
        user: str | None = None,
        size: int | None = None,
        question: str | None = None,
    ) -> "Summary":
        """Return the summary of so many messages, of which the last has this id and this time."""
        whole = messages > 0 and messages % 2 == 0 and is_stamped(message_id, at)
        return cls(messages, at, place, user, size, question) if whole else cls(None, None, place)


CORRUPT = Summary(None, None)


class HistoryStore(ABC):
    """Keeps histories by session. Every method raises StoreUnavailable when the store cannot be used or
    did not answer in time; where its `unknown` is set, a write may have been applied all the same, so it is
    repeated by id."""

    cheap_reads: ClassVar[bool] = False
    """Whether reading a conversation costs next to nothing. Such a store is always read as the fallback too, so it sets
    no unsynced flags while it alone is wanted; another one is read as the fallback only where it has a flag."""

    @property
    def call_seconds(self) -> float:
        """How long one call may take by the settings."""
        return math.inf

    @property
    def tombstone_ttl(self) -> int:
        """How many seconds a tombstone lives: one TTL, and as long as any copy that was written before can live."""
        return expiry.tombstone_ttl(self.limits.ttl)

    def __init__(self, alias: str, limits: Limits) -> None:
        self.alias = alias
        self.limits = limits

    @abstractmethod
    def load(self, session: str) -> History | None:
        """Return the history, or None when there is none or it has expired; raise CorruptHistory when what is stored
        is not one. A store may decode the messages only when they are asked for, and raise CorruptHistory then."""

    @abstractmethod
    def inspect(self, session: str) -> Contents:
        """Return the history with its tombstone and flag, which matter when two stores are compared;
        raise CorruptHistory as `load` does."""

    def append(self, session: str, turn: Turn | None, missing: Sequence[Turn] = (), *, flag: bool = False) -> Receipt:
        """Add the turn, and missing turns of the same conversation, in the place of their
        ids; drop the oldest over the limits, never the newest; renew the TTL. A store that keeps the tombstone with
        the conversation keeps both for as long as the one that lives longer. All that is one atomic step,
        in which what is there already by id, or for `turn` by key, changes nothing, and what a tombstone
        covers is left out; so is `turn` where its key is kept and its turn is gone. Keys of turns that are added are
        kept. `flag` sets the unsynced flag, no later than the turn is there.
        Raise CorruptHistory, changing nothing, where what is there cannot take a turn, and InvalidTurn where one
        of these could not be read again: it would make the whole conversation unreadable."""
        for one in (*missing, turn) if turn else missing:
            _check(one)
        rest = [one for one in missing if turn is None or one.id != turn.id]
        return self._append(session, turn, rest, flag)

    def append_after(self, session: str, seen: History, turn: Turn, *, flag: bool = False) -> Receipt:
        """Add a turn that `make_turn` has made, as `append` does. Its writer has read `seen`: a store that has not
        changed since need not read the other turns."""
        return self._append(session, turn, (), flag)

    @abstractmethod
    def _append(self, session: str, turn: Turn | None, missing: Sequence[Turn], flag: bool) -> Receipt:
        """Do what `append` promises, with turns that can be read again."""

    @abstractmethod
    def keep_keys(self, session: str, keys: Keys) -> None:
        """Keep Idempotency-Keys of a conversation that the store holds something of, whose turns it may not hold: each
        for 24 hours from the time of its question, and used_keys.MOST of them at the most."""

    @abstractmethod
    def delete(self, session: str, upto: str, *, flag: bool = False) -> bool:
        """Delete every turn whose id is not later than `upto`, with its quarantined copies, and leave a tombstone, by
        which such turns are refused: one atomic step. It lives for `tombstone_ttl`, and no shorter than the one that
        was there; of the two the later one counts. Return whether there was anything. `flag` as for append."""

    @abstractmethod
    def ttl(self, session: str) -> int | None:
        """Return the whole seconds until the conversation expires, or None when there is none."""

    def scan(self, cursor: str = "", limit: int = 100, tenant: str | None = "") -> Page:
        """Return about `limit` sessions, of which MOST_SCANNED are the most, from the cursor on: the tenant's, ""
        for those of none and None for all. All pages together hold every such session that was there throughout, some
        perhaps twice; a page may be short, or empty, and not the last: only "" as its cursor marks the end."""
        return self._scan(cursor, max(1, min(limit, MOST_SCANNED)), tenant)

    @abstractmethod
    def _scan(self, cursor: str, limit: int, tenant: str | None) -> Page:
        """Do what `scan` promises, with a limit that is bounded."""

    def newest(
        self,
        tenant: str | None = "",
        before: Place | None = None,
        limit: int = 100,
        since: str = NO_TIME,
        contains: str = "",
        user: str = "",
    ) -> Newest:
        """Return about `limit` conversations, of which MOST_SCANNED are the most, by the time of their last message,
        the latest first, from that place on and without it: the tenant's, "" for those of none and None for all, none
        from before `since`, with that in their names, and where a user is given those that have had a turn of theirs.
        There may be more after fewer: only None as `end` marks the end
        of the list. What has gone may be among them, but has no summary. No turn needs the list: a store may bring it
        up to date a second later, where the conversation is not new. Raise InvalidSession when no name contains
        that."""
        part_of_name(contains)
        return self._newest(tenant, before, max(1, min(limit, MOST_SCANNED)), since, contains, user)

    @abstractmethod
    def _newest(
        self, tenant: str | None, before: Place | None, limit: int, since: str, contains: str, user: str
    ) -> Newest:
        """Do what `newest` promises, with arguments that are checked."""

    def write_list(self) -> None:  # noqa: B027
        """Write what is not yet in the list that `newest` reads. A store whose list is part of its conversations has
        nothing to do."""

    @abstractmethod
    def count(self, tenant: str | None, since: str = NO_TIME, until: str = "") -> int | None:
        """Return about how many conversations `newest` would list, those whose last message is from `since` on and
        before `until`; what has gone may be counted. None where counting them would take many calls, StoreUnavailable
        too where it takes long."""

    @abstractmethod
    def summaries(self, sessions: Collection[str], preview: int = 0) -> dict[str, Summary]:
        """Return a summary of each of the sessions that `load` would answer, CORRUPT where the ends of
        its messages are malformed; their content is not checked. All in one round trip, which fetches no content but,
        with `preview`, so many characters of the newest question of each."""

    @abstractmethod
    def quarantine(self, session: str) -> bool:
        """Quarantine a corrupt conversation: move it, whole and atomically, to a name where nothing overwrites it; it
        is kept there for one TTL. Return whether there was one."""

    @abstractmethod
    def ping(self) -> None:
        """Return when the store answers."""


def _check(turn: Turn) -> None:
    try:
        History.parse(turn.messages())
    except ValueError as error:
        raise InvalidTurn(error) from None


def tombstone_in(alias: str, session: str, value: Any) -> str | None:
    """Return what is stored as a tombstone, None where that is no id: it covers nothing, and is left there until a
    deletion replaces it, since it does not show what was deleted."""
    if value is None:
        return None
    text = value.decode(errors="replace") if isinstance(value, bytes) else value
    if isinstance(text, str) and MESSAGE_ID.fullmatch(text):
        return text
    report_tombstone(alias, session)
    return None


def report_tombstone(alias: str, session: str) -> None:
    """Log and count a tombstone that is no id."""
    metrics.corrupt.labels(store=alias).inc()
    event(logger, logging.ERROR, "corrupt_tombstone", store=alias, session=hashed(session))
