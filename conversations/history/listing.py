"""The conversations of both stores as one list, page by page."""

import base64
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import orjson

from conversations.errors import InvalidCursor, NoStore, StoreUnavailable
from conversations.runtime.state import state
from conversations.stores import ALIASES, other, store
from conversations.stores.base import Summary
from conversations.stores.sessions import id_of
from conversations.turns import SESSION

_FIRST, _SECOND = ALIASES


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

    def encode(self) -> str:
        return base64.urlsafe_b64encode(orjson.dumps(list(self))).decode().rstrip("=")

    def after(self, position: str) -> "Cursor | None":
        """Return where the next page begins, None after the last."""
        if position:
            return self._replace(position=position)
        return Cursor(_SECOND, "", self.complete) if self.alias == _FIRST else None


def page(tenant: str | None, cursor: str, limit: int, contains: str = "") -> ListPage:
    """Return a page of the tenant's conversations, or with None of all tenants', named tenant:session_id: first
    those in the first store, Redis, then those only in the second. Raise InvalidCursor, or NoStore when no store can
    be listed."""
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
    """Return a page of the conversations in one store; of the second's only those that the first does not have.
    Raise StoreUnavailable when the store fails, before the page or in the middle of it."""
    alias = start.alias
    found = store(alias).scan(start.position, limit, tenant, contains)
    # Another program may have written other keys to the store; they are no conversations.
    sessions = tuple(filter(SESSION.fullmatch, found.sessions))
    ours = store(alias).summaries(sessions)
    theirs, known = _summaries(other(alias), sessions)
    listed = [
        _listed(session, ours[session], (alias, other(alias)) if session in theirs else (alias,), tenant)
        for session in dict.fromkeys(sessions)  # SCAN may name one twice
        if session in ours and (alias == _FIRST or session not in theirs)
    ]
    after = start.after(found.cursor)
    return ListPage(tuple(listed), after.encode() if after else None, start.complete and known)


def _summaries(alias: str, sessions: tuple[str, ...]) -> tuple[dict[str, Summary], bool]:
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
        alias, position, complete = orjson.loads(base64.urlsafe_b64decode(cursor + "==="))
    except (ValueError, TypeError):
        raise InvalidCursor from None
    typed = alias in ALIASES and isinstance(position, str) and isinstance(complete, bool)
    if not typed or not (position == "" or store(alias).is_cursor(position, tenant)):
        raise InvalidCursor
    return Cursor(alias, position, complete)
