"""What lists of conversations need from MongoDB: pages of sessions and summaries."""

from collections.abc import Collection
from datetime import datetime

from conversations.models import Conversation
from conversations.stores.base import Page, Summary
from conversations.stores.mongo.faults import failing_fast
from conversations.stores.mongo.filters import named
from conversations.stores.mongo.format import LAST, last_fields, question_field
from conversations.stores.mongo.patient import Document, documents
from conversations.stores.mongo.places import place_in
from conversations.stores.sessions import KEY_BEGINS, is_key, is_of, make_key, session_of

_WALK = 16  # times MONGO_TIMEOUT_MS: an operator's page of a list may take longer than a turn

_USERS = {"$map": {"input": "$messages", "as": "one", "in": "$$one.user"}}
_ENDS = {  # how many messages there are, -1 where they are no list, the last one's id and time, and the users
    "count": {"$cond": [{"$isArray": "$messages"}, {"$size": "$messages"}, -1]},
    "last": LAST,
    "place": 1,
    "bytes": 1,
    "users": {"$cond": [{"$isArray": "$messages"}, _USERS, []]},
}


def scan(cursor: str, limit: int, tenant: str | None) -> Page:
    """Return one page of sessions: see HistoryStore.scan."""
    first = f"{make_key(tenant)}:" if tenant else KEY_BEGINS
    with failing_fast(_WALK):
        keys = Conversation.objects.living().filter(pk__gt=cursor or first, pk__lt=first + "\uffff")
        if tenant == "":
            keys = keys.filter(pk__regex=f"^{KEY_BEGINS}[^:]+$")  # or the cursor would name other tenants' sessions
        page = list(keys.order_by("pk").as_stored("pk", "expires_at")[: limit + 1])
    sessions = [session_of(key) for key, expiry in page[:limit] if is_key(key) and isinstance(expiry, datetime)]
    found = tuple(session for session in sessions if is_of(session, tenant))
    return Page(found, page[limit - 1][0] if len(page) > limit else "")


def summaries(sessions: Collection[str], preview: int) -> dict[str, Summary]:
    """Return a summary of each of the sessions that there are."""
    if not sessions:
        return {}
    fields = _ENDS | {"question": question_field(preview)} if preview else _ENDS
    with failing_fast():
        found = list(documents().find(named(sessions), fields))
    # An empty document is kept for its tombstone.
    return {session_of(document["_id"]): _summary(document) for document in found if document["count"] != 0}


def _summary(document: Document) -> Summary:
    """Return the summary of a document that was read as _ENDS."""
    last, size, question = last_fields(document["last"]), document.get("bytes"), document.get("question")
    return Summary.of_end(
        document["count"],
        last.get("id"),
        last.get("at"),
        place_in(document),
        next((user for user in reversed(document["users"]) if user and isinstance(user, str)), None),
        size if isinstance(size, int) else None,
        question if isinstance(question, str) else None,
    )
