"""The Idempotency-Keys in a document: an array of {key, at}, oldest first."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TypeVar

from pymongo.errors import BulkWriteError, DuplicateKeyError, WriteError

from conversations.stores.mongo.patient import Document, Documents
from conversations.used_keys import MOST, Keys, unite

T = TypeVar("T")


def keys_in(document: Document) -> Keys:
    """Return the keys that are kept, whatever else another program has written there."""
    found: dict[str, int] = {}
    records = document.get("keys")
    for record in records if isinstance(records, list) else ():
        with suppress(TypeError, KeyError, ValueError):
            found[str(record["key"])] = int(record["at"])
    return unite(found)


def keys_pushed(keys: Keys) -> Document:
    """Return what an update pushes to keep these keys, nothing where there are none."""
    each = [{"key": key, "at": at} for key, at in keys.items()]
    return {"keys": {"$each": each, "$sort": {"at": 1}, "$slice": -MOST}} if each else {}


def retried_without_wrong(
    write: Callable[[], T], documents: Documents, ids: Iterable[str], check: Callable[[], object] = lambda: None
) -> T:
    """Return what a write that pushes keys to these documents returns. Where it fails because another program has
    written something else in place of their keys, that is removed and the write is done once more. `check` is called
    before anything is removed, and may raise."""
    try:
        return write()
    except DuplicateKeyError:
        raise  # nothing was pushed: the document is not as the write expects it
    except (WriteError, BulkWriteError):
        check()
        if not _remove_wrong(documents, ids):
            raise
    return write()


def _remove_wrong(documents: Documents, ids: Iterable[str]) -> bool:
    """Remove what is in place of the keys and is no array; return whether there was any."""
    wrong = {"_id": {"$in": list(ids)}, "keys": {"$exists": True, "$not": {"$type": "array"}}}
    return documents.update_many(wrong, {"$unset": {"keys": ""}}).modified_count > 0
