"""The conversations of both stores as one list, the newest first, page by page.

Both stores are asked for their newest from a place on. A page has what both, or those that can be reached, have told
all of; a conversation is at the later of its two places. The cursor is the last place of the page: one that goes on
meanwhile moves to the front, before it.
"""

import base64
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

import orjson
from django.conf import settings

from conversations.clock import now
from conversations.errors import InvalidCursor, NoStore, StoreUnavailable
from conversations.ids import AT, milliseconds, stamp
from conversations.runtime.state import state
from conversations.stores import ALIASES, store
from conversations.stores.base import NO_TIME, Newest, Place, Summary
from conversations.stores.sessions import id_of, is_of
from conversations.turns import SESSION

_LOOKS = 4  # for one page, at the most: it is short where they find too few


@dataclass(frozen=True, slots=True)
class Listed:
    """A conversation in a list; `messages` and `updated_at` are None where the stored value is corrupt."""

    session_id: str
    messages: int | None
    updated_at: str | None
    stores: tuple[str, ...]
    bytes: int | None = None
    """About how many its messages take."""
    question: str | None = None
    """The beginning of the newest question, where previews were asked for."""
    user: str | None = None


@dataclass(frozen=True, slots=True)
class ListPage:
    """A page; `complete` is False when a store could not be listed, so that conversations may be missing."""

    results: tuple[Listed, ...]
    next: str | None
    complete: bool
    unseen: tuple[str, ...] = ()
    """The stores that could not be asked."""


class Wanted(NamedTuple):
    """What is listed: the tenant's, or with None all tenants', from `since` on and before `until`, with a text in
    their names, of one user where that is given. Both times are as messages have them."""

    tenant: str | None
    since: str = NO_TIME
    until: str = ""
    contains: str = ""
    user: str = ""


class Cursor(NamedTuple):
    """Where a list continues: after which place, from which time on, and whether nothing was missing so far."""

    at: str
    session: str
    since: str = NO_TIME
    complete: bool = True

    def encode(self) -> str:
        return base64.urlsafe_b64encode(orjson.dumps(list(self))).decode().rstrip("=")

    @property
    def place(self) -> Place:
        return Place(self.at, self.session)


class Look(NamedTuple):
    """What the stores have next: conversations, down to a place."""

    places: list[Place]
    """Of each conversation the latest."""
    end: Place | None
    """Down to where these are all; None where there are no more."""
    aliases: list[str]
    """The stores that have answered."""
    complete: bool


def page(wanted: Wanted, cursor: str, limit: int, preview: int = 0) -> ListPage:
    """Return a page of the conversations, the one with the newest message first; those of all tenants are named
    tenant:session_id, with so many characters of the newest question as `preview` says. It has as many as the limit
    where there are as many, unless looking for them takes too long; the last one has no `next`. Raise InvalidCursor, or
    NoStore when no store can be listed."""
    start = _decode(cursor, wanted.tenant) if cursor else None
    if start:
        wanted = wanted._replace(since=max(start.since, wanted.since))
    first = before = start.place if start else Place(wanted.until, "") if wanted.until else None
    listed: dict[str, Listed] = {}
    complete = start is None or start.complete
    unseen: set[str] = set()
    for number in range(_LOOKS):
        try:
            look = _look(wanted, before, limit - len(listed))
        except NoStore:
            if not number:
                raise
            break
        shown, asked = _shown(look, first, wanted, preview)
        unseen |= {alias for alias in ALIASES if alias not in asked}
        complete = complete and look.complete and not unseen
        new = [place for place in look.places if place.session in shown and place.session not in listed]
        here = new[: limit - len(listed)]
        listed |= {place.session: shown[place.session] for place in here}
        before = here[-1] if len(new) > len(here) else look.end
        if before is None or len(listed) == limit:
            break
    following = Cursor(*before, wanted.since, complete).encode() if before else None
    return ListPage(tuple(listed.values()), following, complete, tuple(alias for alias in ALIASES if alias in unseen))


def total(wanted: Wanted) -> int | None:
    """Return about how many conversations the list has, as the first store says that can count them; None where none
    can, or where each would have to be looked at, as for a search."""
    if wanted.contains or wanted.user:
        return None
    # What has expired since may be in a list still.
    since = max(wanted.since, stamp(now() - timedelta(seconds=settings.CONV_TTL_SECONDS)))
    for alias in sorted(ALIASES, key=lambda alias: not state().stores[alias].reads.allows()):
        with suppress(StoreUnavailable):
            if (number := store(alias).count(wanted.tenant, since, wanted.until)) is not None:
                return number
    return None


def _look(wanted: Wanted, before: Place | None, limit: int) -> Look:
    """Return what the stores have next; raise NoStore. A store whose breaker is open is asked only where no other
    answers."""
    allowed = [alias for alias in ALIASES if state().stores[alias].reads.allows()]
    found: dict[str, Newest] = {}
    since = wanted.since
    for aliases in (allowed, [alias for alias in ALIASES if alias not in allowed]):
        for alias in aliases:
            with suppress(StoreUnavailable):
                found[alias] = one = store(alias).newest(
                    wanted.tenant, before, limit, since, wanted.contains, wanted.user
                )
                since = max(since, one.end.at) if one.end else since  # no page goes further back
        if found:
            return _merged(found)
    raise NoStore


def _merged(found: dict[str, Newest]) -> Look:
    end = max((one.end for one in found.values() if one.end), default=None)
    every = {place for one in found.values() for place in one.places if end is None or place >= end}
    latest: dict[str, Place] = {}
    for place in sorted(every, reverse=True):
        latest.setdefault(place.session, place)
    whole = len(found) == len(ALIASES) and all(one.whole for one in found.values())
    return Look(list(latest.values()), end, list(found), whole)


def _shown(look: Look, first: Place | None, wanted: Wanted, preview: int) -> tuple[dict[str, Listed], list[str]]:
    """Return what is shown of these conversations, and the stores that could still be asked. One that has a place
    before the first of this page, in either store, was on a page before, or has gone on since. A store's list may still
    have one as the user's that was deleted, and begun anew by another."""
    held: dict[str, dict[str, Summary]] = {place.session: {} for place in look.places}
    asked: list[str] = []
    for alias in look.aliases:
        with suppress(StoreUnavailable):
            for session, summary in store(alias).summaries(held, preview).items():
                held[session][alias] = summary
            asked.append(alias)
    shown: dict[str, Listed] = {}
    for session, summaries in held.items():
        latest = max((summary.place or "" for summary in summaries.values()), default="")
        if not summaries or (first and Place(latest, session) >= first):
            continue
        if wanted.user in ("", *(summary.user for summary in summaries.values())):
            shown[session] = _listed(session, summaries, wanted.tenant)
    return shown, asked


def _listed(session: str, held: dict[str, Summary], tenant: str | None) -> Listed:
    """Return what the list shows of a conversation: what the store has that has the latest of it, unless what one has
    is corrupt."""
    summary = max(held.values(), key=lambda one: one.at or "~")
    name = session if tenant is None else id_of(session)
    user = summary.user or next((one.user for one in held.values() if one.user), None)
    return Listed(name, summary.messages, summary.at, tuple(held), summary.bytes, summary.question, user)


def _decode(cursor: str, tenant: str | None) -> Cursor:
    try:
        at, session, since, complete = orjson.loads(base64.urlsafe_b64decode(cursor + "==="))
        valid = _is_time(at) and _is_time(since) and isinstance(complete, bool)
        named = session == "" or (SESSION.fullmatch(session) is not None and is_of(session, tenant))
    except (ValueError, TypeError):
        raise InvalidCursor from None
    if not (valid and named):
        raise InvalidCursor
    return Cursor(at, session, since, complete)


def _is_time(at: str) -> bool:
    """Return whether it is a time as messages have it; raise ValueError or TypeError."""
    return AT.fullmatch(at) is not None and milliseconds(at) >= 0
