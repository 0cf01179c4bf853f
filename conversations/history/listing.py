"""The conversations of both stores as one list, page by page."""

import base64
import re
from dataclasses import dataclass

import orjson

from conversations.errors import InvalidCursor, NoStore, StoreUnavailable
from conversations.stores import ALIASES, MONGO, REDIS, other, store
from conversations.stores.base import Summary
from conversations.turns import SESSION

_NUMBER = re.compile(r"[0-9]{1,20}")


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


def page(tenant: str | None, cursor: str, limit: int, contains: str = "") -> ListPage:
    """Return a page of the tenant's conversations, or with None of all tenants', named tenant:session_id: first
    those in Redis, then those only in MongoDB. Raise InvalidCursor, or NoStore when no store can be listed."""
    alias, position, complete = _decode(cursor, tenant) if cursor else (REDIS, "", True)
    if alias == REDIS:
        try:
            return _page(REDIS, position, limit, tenant, contains, complete)
        except StoreUnavailable:
            position, complete = "", False
    try:
        return _page(MONGO, position, limit, tenant, contains, complete)
    except StoreUnavailable:
        _need(REDIS)
        return ListPage((), None, complete=False)


def _page(alias: str, position: str, limit: int, tenant: str | None, contains: str, complete: bool) -> ListPage:
    """Return a page of those that a store holds, of MongoDB's those alone that Redis does not list. Raise
    StoreUnavailable when this store goes out, before the page or half way."""
    found = store(alias).scan(position, limit, tenant, contains)
    # Whoever can write to the store may have put another key there; it is no conversation.
    sessions = tuple(filter(SESSION.fullmatch, found.sessions))
    ours = store(alias).summaries(sessions)
    theirs, known = _summaries(other(alias), sessions)
    listed = [
        _listed(session, ours[session], (alias, other(alias)) if session in theirs else (alias,), tenant)
        for session in dict.fromkeys(sessions)  # SCAN may name one twice
        if session in ours and (alias == REDIS or session not in theirs)
    ]
    return ListPage(tuple(listed), _after(alias, found.cursor, complete), complete and known)


def _after(alias: str, position: str, complete: bool) -> str | None:
    if position:
        return _encode(alias, position, complete)
    return _encode(MONGO, "", complete) if alias == REDIS else None


def _summaries(alias: str, sessions: tuple[str, ...]) -> tuple[dict[str, Summary], bool]:
    """Return the summaries, and whether the store could be asked."""
    try:
        return store(alias).summaries(sessions), True
    except StoreUnavailable:
        return {}, False


def _listed(session: str, summary: Summary, stores: tuple[str, ...], tenant: str | None) -> Listed:
    session_id = session if tenant is None else session.rpartition(":")[2]
    return Listed(session_id, summary.messages, summary.at, stores)


def _need(alias: str) -> None:
    """Raise NoStore when this store is out too."""
    try:
        store(alias).ping()
    except StoreUnavailable:
        raise NoStore from None


def _encode(alias: str, position: str, complete: bool) -> str:
    return base64.urlsafe_b64encode(orjson.dumps([alias, position, complete])).decode().rstrip("=")


def _decode(cursor: str, tenant: str | None) -> tuple[str, str, bool]:
    try:
        alias, position, complete = orjson.loads(base64.urlsafe_b64decode(cursor + "==="))
    except (ValueError, TypeError):
        raise InvalidCursor from None
    typed = alias in ALIASES and isinstance(position, str) and isinstance(complete, bool)
    if not typed or not (position == "" or _is_position(alias, position, tenant)):
        raise InvalidCursor
    return alias, position, complete


def _is_position(alias: str, position: str, tenant: str | None) -> bool:
    """Return whether the store can go on from there, and the tenant may: MongoDB's position is a key."""
    if alias == REDIS:
        return _NUMBER.fullmatch(position) is not None and int(position) < 2**64
    prefix, _, session = position.partition(":")
    return (
        prefix == "conv" and SESSION.fullmatch(session) is not None and session.startswith(f"{tenant}:" * bool(tenant))
    )
