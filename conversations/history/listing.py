"""The conversations of both stores as one list, page by page.

A store is scanned for about as many as are wanted, and may find more: a page has those that fit, and its cursor names
them, so that the next page scans from the same position and leaves them out. No position in Redis lies between them.
"""

import base64
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple

import orjson

from conversations.errors import InvalidCursor, NoStore, StoreUnavailable
from conversations.runtime.state import state
from conversations.stores import ALIASES, other, store
from conversations.stores.base import MOST_SCANNED, Summary
from conversations.stores.sessions import id_of
from conversations.turns import SESSION

_FIRST, _SECOND = ALIASES
_LOOKS = 4  # for one page, at the most: it is short where they find too few
_WIDE = 500  # sessions of a later look at the second store: the first one has most of them too
_DIGEST = 6  # bytes
_TAKEN = re.compile(r"(?:[A-Za-z0-9_-]{8})*")  # digests as base64


@dataclass(frozen=True, slots=True)
class Listed:
    """A conversation in a list; `messages` and `updated_at` are None where the stored value is corrupt."""

    session_id: str
    messages: int | None
    updated_at: str | None
    stores: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ListPage:
    """A page; `complete` is False when a store could not be listed, so that conversations may be missing."""

    results: tuple[Listed, ...]
    next: str | None
    complete: bool


class Cursor(NamedTuple):
    """Where a list continues: in which store, after which position, and whether nothing was missing so far."""

    alias: str = _FIRST
    position: str = ""
    complete: bool = True
    size: int = 0
    """How many were asked for after the position when it was scanned before, 0 where it was not."""
    taken: str = ""
    """Digests of those that a page before has of what was found then."""

    def encode(self) -> str:
        fields = list(self) if self.taken else list(self)[:3]
        return base64.urlsafe_b64encode(orjson.dumps(fields)).decode().rstrip("=")

    def without(self, sessions: Iterable[str], size: int) -> "Cursor":
        """Return where the next page begins when it leaves these out, and those that this one leaves out."""
        return self._replace(size=size, taken=self.taken + "".join(map(_digest, sessions)))

    def new(self, sessions: Iterable[str]) -> list[str]:
        """Return the sessions that are not left out, each once: a scan may name one twice."""
        taken = {self.taken[start : start + 8] for start in range(0, len(self.taken), 8)}
        return [session for session in dict.fromkeys(sessions) if not taken or _digest(session) not in taken]

    def after(self, position: str) -> "Cursor | None":
        """Return where the next page begins, None after the last."""
        if position:
            return Cursor(self.alias, position, self.complete)
        return Cursor(_SECOND, "", self.complete) if self.alias == _FIRST else None


class Look(NamedTuple):
    """What one scan of a store gave for a page."""

    listed: list[Listed]
    next: Cursor | None
    known: bool
    """Whether the other store could be asked too."""


def page(tenant: str | None, cursor: str, limit: int, contains: str = "") -> ListPage:
    """Return a page of the tenant's conversations, or with None of all tenants', named tenant:session_id: first
    those in the first store, Redis, then those only in the second. It has as many as the limit where there are as many,
    unless looking for them takes too long; the last one has no `next`. Raise InvalidCursor, or NoStore when no store
    can be listed."""
    start = _decode(cursor, tenant) if cursor else Cursor()
    for one in _starts(start):
        with suppress(StoreUnavailable):
            return _page(one, limit, tenant, contains)
    _require(_FIRST)
    return ListPage((), None, complete=False)


def _starts(start: Cursor) -> tuple[Cursor, ...]:
    """Return where the page may begin: in the first store, or without it, first where the breaker is open."""
    if start.alias != _FIRST:
        return (start,)
    without = Cursor(_SECOND, "", complete=False)
    return (start, without) if _allows(_FIRST) else (without, start)


def _page(start: Cursor, limit: int, tenant: str | None, contains: str) -> ListPage:
    """Return a page that begins there. Raise StoreUnavailable when the store fails before anything is known; where a
    later look fails, the next page begins with it."""
    listed: list[Listed] = []
    known, cursor = True, start
    for number in range(_LOOKS):
        try:
            look = _look(cursor, limit - len(listed), tenant, contains, wide=number > 0)
        except StoreUnavailable:
            if not number:
                raise
            break
        listed += look.listed
        known = known and look.known
        if look.next is None:
            return ListPage(tuple(listed), None, start.complete and known)
        cursor = look.next
        if len(listed) == limit or not _allows(cursor.alias):
            break
    return ListPage(tuple(listed), cursor.encode(), start.complete and known)


def _look(start: Cursor, wanted: int, tenant: str | None, contains: str, *, wide: bool) -> Look:
    """Return up to so many conversations in one store; of the second's only those that the first does not have."""
    alias = start.alias
    size = start.size or (_WIDE if wide and alias == _SECOND else wanted)
    found = store(alias).scan(start.position, size, tenant, contains)
    # Another program may have written other keys to the store; they are no conversations.
    sessions = start.new(filter(SESSION.fullmatch, found.sessions))
    theirs, known = _summaries(other(alias), sessions[:wanted] if alias == _FIRST else sessions)
    if alias == _SECOND:
        sessions = [session for session in sessions if session not in theirs]
    fitting, more = sessions[:wanted], sessions[wanted:]
    ours = store(alias).summaries(fitting)
    listed = [
        _listed(session, ours[session], (alias, other(alias)) if session in theirs else (alias,), tenant)
        for session in fitting
        if session in ours
    ]
    return Look(listed, start.without(fitting, size) if more else start.after(found.cursor), known)


def _digest(session: str) -> str:
    return base64.urlsafe_b64encode(blake2b(session.encode(), digest_size=_DIGEST).digest()).decode()


def _summaries(alias: str, sessions: list[str]) -> tuple[dict[str, Summary], bool]:
    """Return the summaries, and whether the store was available."""
    if not _allows(alias):
        return {}, False
    try:
        return store(alias).summaries(sessions), True
    except StoreUnavailable:
        return {}, False


def _allows(alias: str) -> bool:
    """Return whether the store's breaker allows reads."""
    return state().stores[alias].reads.allows()


def _listed(session: str, summary: Summary, stores: tuple[str, ...], tenant: str | None) -> Listed:
    session_id = session if tenant is None else id_of(session)
    return Listed(session_id, summary.messages, summary.at, stores)


def _require(alias: str) -> None:
    """Raise NoStore when this store is unavailable too."""
    try:
        store(alias).ping()
    except StoreUnavailable:
        raise NoStore from None


def _decode(cursor: str, tenant: str | None) -> Cursor:
    try:
        alias, position, complete, *again = orjson.loads(base64.urlsafe_b64decode(cursor + "==="))
        size, taken = again or (0, "")
    except (ValueError, TypeError):
        raise InvalidCursor from None
    typed = alias in ALIASES and isinstance(position, str) and isinstance(complete, bool)
    known = type(size) is int and 0 <= size <= MOST_SCANNED and isinstance(taken, str) and _TAKEN.fullmatch(taken)
    if not (typed and known) or not (position == "" or store(alias).is_cursor(position, tenant)):
        raise InvalidCursor
    return Cursor(alias, position, complete, size, taken)
