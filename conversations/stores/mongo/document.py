"""What is in the documents of MongoDB, whatever another program has written there."""

from typing import Any

from conversations.clock import now
from conversations.errors import CorruptHistory
from conversations.ids import MESSAGE_ID
from conversations.merge import digest_of
from conversations.models import ALIAS
from conversations.stores.base import Contents, tombstone_in
from conversations.stores.bulk_reader import Entry, Found
from conversations.stores.mongo.filters import expiry_in
from conversations.stores.mongo.format import last_fields, parse
from conversations.stores.mongo.keys import keys_in
from conversations.stores.mongo.patient import Document
from conversations.stores.sessions import is_key, session_of
from conversations.turns import History


def contents_of(document: Document) -> Contents:
    """Return all that the document holds; raise CorruptHistory."""
    history = parse(document.get("messages"))
    return Contents(history, _tombstone(document), document.get("mark"), keys_in(document))


def found_in(document: Document) -> Found:
    """Return the same, or the CorruptHistory."""
    try:
        return contents_of(document)
    except CorruptHistory as error:
        return error


def _tombstone(document: Document) -> str | None:
    return tombstone_in(ALIAS, session_of(document["_id"]), document.get("tombstone"))


def digest_in(document: Document, most_turns: int) -> bytes | None:
    """Return the digest of what the document holds, its newest turns; None where that is nothing, or no history."""
    tombstone, ids = _tombstone(document), _ids(document.get("messages"))
    return None if ids is None else digest_of(ids[::2][-most_turns:], tombstone)


def _ids(records: Any) -> list[str] | None:
    """Return the ids of all messages; None where they show that it is no history."""
    if not isinstance(records, list) or len(records) % 2:
        return None
    ids = (record.get("id") for record in records if isinstance(record, dict))
    found = [one for one in ids if isinstance(one, str)]
    return found if len(found) == len(records) else None


def entry_of(document: Document) -> Entry | None:
    """Return what a backup has of the document; None where it has expired, or has nothing."""
    key, expiry = document["_id"], expiry_in(document)
    if expiry <= now():
        return None
    if not is_key(key):
        return Entry(session_of(str(key)), History(), b"", None, None, corrupt=True)
    history, tombstone = history_of(document.get("messages")), _tombstone(document)
    corrupt = history is None or (document.get("tombstone") is not None and tombstone is None)
    history = history or History()
    if not (history or tombstone or corrupt):
        return None
    return Entry(session_of(key), history, history.lines(), expiry if history else None, tombstone, corrupt)


def last_ids_of(page: list[Document]) -> dict[str, str]:
    """Return the last id of each session that has one."""
    found = {session_of(one["_id"]): _last_id(one.get("messages")) for one in page if is_key(one["_id"])}
    return {session: last for session, last in found.items() if last}


def _last_id(records: Any) -> str:
    """Return the id of the last message; "" where there is none, or it has none."""
    id_ = last_fields(records).get("id")
    return id_ if isinstance(id_, str) and MESSAGE_ID.fullmatch(id_) else ""


def histories_of(page: list[Document]) -> dict[str, History]:
    """Return the histories of those that hold one."""
    found = {session_of(one["_id"]): history_of(one.get("messages")) for one in page if is_key(one["_id"])}
    return {session: history for session, history in found.items() if history}


def tombstones_of(page: list[Document]) -> dict[str, str]:
    """Return the tombstone of each session that has one."""
    found = {session_of(one["_id"]): _tombstone(one) for one in page if is_key(one["_id"])}
    return {session: tombstone for session, tombstone in found.items() if tombstone}


def history_of(records: Any) -> History | None:
    """Return the history of the records, empty for none; None where they are no history."""
    try:
        return parse(records) or History()
    except CorruptHistory:
        return None
