"""The list of conversations in MongoDB, the newest first: two fields of each document, with an index each.

`place` is the tenant and the time of the newest message, in one text: an index of two fields would be no use to the
embedded MongoDB. `updated_at` is that time alone, for the list of all tenants. Both change in the update of the turn.

That server reads and sorts all documents that match, however few it is to return. So the list is read by spans of time,
each longer than the one before, and no further back than the caller needs. The list of one user is read at once, by the
index of users.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from conversations import deadline
from conversations.clock import now
from conversations.ids import AT, stamp, whole_milliseconds
from conversations.stores.base import NO_TIME, Newest, Place
from conversations.stores.control import LISTED
from conversations.stores.mongo.faults import failing_fast
from conversations.stores.mongo.filters import living
from conversations.stores.mongo.format import last_fields
from conversations.stores.mongo.patient import NOTES, Document, documents, patient
from conversations.stores.sessions import KEY_BEGINS, is_key, make_key, session_of, tenant_of

_WALK = 16  # times MONGO_TIMEOUT_MS, as for scan
_FIRST = timedelta(seconds=0.125)
_LONGER = 8  # times the span before
_COUNT_SECONDS = 0.2
_AHEAD = timedelta(minutes=5)  # of a clock
_MILLISECOND = timedelta(milliseconds=1)


def place_of(session: str, at: str = NO_TIME) -> Document:
    """Return the fields that say where the session is in the list, with a last message of that time."""
    return {"place": f"{tenant_of(session)}:{at}", "updated_at": datetime.fromisoformat(at)}


def place_in(document: Document) -> str | None:
    """Return the time in the document's place; None where it has none."""
    place = document.get("place")
    at = place[-len(NO_TIME) :] if isinstance(place, str) else ""
    return at if AT.fullmatch(at) else None


def end_of(records: Any) -> str:
    """Return the time of the last message, NO_TIME where there is none."""
    at = last_fields(records).get("at")
    try:
        return stamp(datetime.fromisoformat(at))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return NO_TIME


def newest(tenant: str | None, before: Place | None, limit: int, since: str, contains: str, user: str = "") -> Newest:
    """Return a part of the list: see HistoryStore.newest."""
    enough, found = deadline.left() / 2, list[Place]()
    end: Place | None = None
    with failing_fast(_WALK):
        whole = documents(NOTES).find_one({"_id": LISTED}) is not None
        for where, last in _spans(tenant, before, since, bool(user)):
            part, more = _find(tenant, where, limit + 1 - len(found), contains, user)
            found += part
            end = found[-1] if more and found else last
            if more or deadline.left() < enough:
                break
        else:
            end = None
    if len(found) > limit:
        found, end = found[:limit], found[limit - 1]
    return Newest(tuple(found), end, whole)


def count(tenant: str | None, since: str, until: str) -> int:
    """Return about how many there are: see HistoryStore.count. The embedded server counts documents one by one; more
    than a moment is not given to it."""
    name = "updated_at" if tenant is None else "place"
    upto: Document = {"$lt": _value(tenant, until)} if until else _latest(tenant)
    with patient(_COUNT_SECONDS):
        return int(documents().count_documents({name: {"$gte": _value(tenant, since)} | upto}))


def _spans(
    tenant: str | None, before: Place | None, since: str, at_once: bool = False
) -> Iterator[tuple[Document, Place | None]]:
    """Yield filters of parts of the list, from the place on, each with the place down to which that is; None at the
    end. With `at_once` all is one part."""
    name = "updated_at" if tenant is None else "place"
    least = datetime.fromisoformat(since)
    if before and before.session and before.at >= since:
        # Those of the same time; they can be many, where they are no histories.
        yield {name: _value(tenant, before.at), "_id": {"$lt": make_key(before.session)}}, Place(before.at, "")
    ahead = max(whole_milliseconds(now()) + _AHEAD, least + _MILLISECOND)
    last = datetime.fromisoformat(before.at) if before else ahead
    upto: Document = {"$lt": _value(tenant, before.at)} if before else _latest(tenant)
    span = last - least if at_once else _FIRST if before else _AHEAD + _FIRST
    while last > least:
        first = last - span if last - least > span else least
        lowest = first == least
        edge = {("$gte" if lowest else "$gt"): _value(tenant, stamp(first))}
        yield {name: edge | upto}, None if lowest else Place(stamp(first + _MILLISECOND), "")
        last, upto, span = first, {"$lte": _value(tenant, stamp(first))}, span * _LONGER


def _latest(tenant: str | None) -> Document:
    """Return the condition that each value of the tenant meets."""
    return (
        {"$lt": datetime.max.replace(tzinfo=UTC)} if tenant is None else {"$lt": f"{tenant};"}
    )  # it follows the colon


def _value(tenant: str | None, at: str) -> Any:
    return datetime.fromisoformat(at) if tenant is None else f"{tenant}:{at}"


def _find(tenant: str | None, where: Document, limit: int, contains: str, user: str) -> tuple[list[Place], bool]:
    """Return the places of at most so many documents that match, and whether there may be more. Another program's are
    left out."""
    where = _narrowed(where, contains, user)
    order = [("updated_at" if tenant is None else "place", -1), ("_id", -1)]
    page = list(documents().find(where | living(), {"place": 1, "updated_at": 1}).sort(order).limit(limit))
    found = ((one["_id"], _updated(one) if tenant is None else place_in(one)) for one in page if is_key(one["_id"]))
    return [Place(at, session_of(key)) for key, at in found if at], len(page) == limit


def _narrowed(where: Document, contains: str, user: str) -> Document:
    """Return the filter for those alone with that in their names, of that user."""
    if contains:
        where = where | {"_id": where.get("_id", {}) | {"$regex": f"^{KEY_BEGINS}.*{re.escape(contains)}"}}
    # First: the embedded MongoDB takes the index of what comes first.
    return {"messages.user": user} | where if user else where


def _updated(document: Document) -> str | None:
    """Return that time; None where another program's is a list, in which MongoDB looks too."""
    at = document["updated_at"]
    return stamp(at.replace(tzinfo=UTC)) if isinstance(at, datetime) else None
