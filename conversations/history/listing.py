"""Listing the conversations of both stores as one list, a page at a time."""

import base64
import re
from dataclasses import dataclass

import orjson

from conversations.errors import CorruptHistory, NoStore, StoreUnavailable
from conversations.stores import ALIASES, MONGO, REDIS, other, store
from conversations.turns import SESSION

_NUMBER = re.compile(r"[0-9]{1,20}")


@dataclass(frozen=True, slots=True)
class Listed:
    """A conversation in a list; `messages` and `updated_at` are None where its value is corrupt."""

    session_id: str
    messages: int | None
    updated_at: str | None
    stores: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ListPage:
    """A page; `complete` is False when a store could not be asked, and conversations may be missing."""

    results: tuple[Listed, ...]
    next: str | None
    complete: bool


def page(tenant: str | None, cursor: str, limit: int, contains: str = "") -> ListPage:
    """Return a page of the tenant's conversations, or with None of all, named with their tenants: first of
    those in Redis, then of those in MongoDB alone. Raise ValueError on a cursor that is not ours, NoStore when
    neither store can be listed."""
    alias, position, complete = _decode(cursor, tenant) if cursor else (REDIS, "", True)
    if alias == REDIS:
        try:
            found = store(REDIS).scan(position, limit, tenant, contains)
        except StoreUnavailable:
            alias, position, complete = MONGO, "", False
        else:
            both, known = _known(MONGO, found.sessions)
            listed = tuple(_listed(REDIS, session, tenant, session in both) for session in found.sessions)
            after = _encode(REDIS, found.cursor, complete) if found.cursor else _encode(MONGO, "", complete)
            return ListPage(_present(listed), after, complete and known)
    try:
        found = store(MONGO).scan(position, limit, tenant, contains)
    except StoreUnavailable:
        if not complete:
            raise NoStore from None
        return ListPage((), None, False)
    both, known = _known(REDIS, found.sessions)
    listed = tuple(_listed(MONGO, session, tenant, False) for session in found.sessions if session not in both)
    after_mongo = _encode(MONGO, found.cursor, complete) if found.cursor else None
    return ListPage(_present(listed), after_mongo, complete and known)


def _known(alias: str, sessions: tuple[str, ...]) -> tuple[set[str], bool]:
    try:
        return set(store(alias).last_ids(sessions)), True
    except StoreUnavailable:
        return set(), False


def _listed(alias: str, session: str, tenant: str | None, in_both: bool) -> Listed | None:
    stores = (alias, other(alias)) if in_both else (alias,)
    session_id = session if tenant is None else session.rpartition(":")[2]
    try:
        history = store(alias).load(session)
    except CorruptHistory:
        return Listed(session_id, None, None, stores)
    if history is None:
        return None  # gone since it was found
    return Listed(session_id, len(history), history[-1].at if history else None, stores)


def _present(listed: tuple[Listed | None, ...]) -> tuple[Listed, ...]:
    return tuple({one.session_id: one for one in listed if one}.values())


def _encode(alias: str, position: str, complete: bool) -> str:
    return base64.urlsafe_b64encode(orjson.dumps([alias, position, complete])).decode().rstrip("=")


def _decode(cursor: str, tenant: str | None) -> tuple[str, str, bool]:
    try:
        alias, position, complete = orjson.loads(base64.urlsafe_b64decode(cursor + "==="))
    except (ValueError, TypeError):
        raise ValueError("not a cursor of ours") from None
    typed = alias in ALIASES and isinstance(position, str) and isinstance(complete, bool)
    if not typed or not (position == "" or _is_position(alias, position, tenant)):
        raise ValueError("not a cursor of ours")
    return alias, position, complete


def _is_position(alias: str, position: str, tenant: str | None) -> bool:
    """Return whether the store can go on from there, and the tenant may: MongoDB's position is a key."""
    if alias == REDIS:
        return _NUMBER.fullmatch(position) is not None and int(position) < 2**64
    prefix, _, session = position.partition(":")
    return (
        prefix == "conv" and SESSION.fullmatch(session) is not None and session.startswith(f"{tenant}:" * bool(tenant))
    )
