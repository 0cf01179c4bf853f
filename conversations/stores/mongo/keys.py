"""The Idempotency-Keys in a document: an array of {key, at}, oldest first."""

from collections.abc import Iterable
from contextlib import suppress

from conversations.stores.mongo.patient import Document, Documents
from conversations.used_keys import MOST, Keys, unite


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


def remove_wrong(documents: Documents, ids: Iterable[str]) -> bool:
    """Remove what another program has written in place of the keys of these documents, to which nothing can be pushed;
    return whether there was any."""
    wrong = {"_id": {"$in": list(ids)}, "keys": {"$exists": True, "$not": {"$type": "array"}}}
    return documents.update_many(wrong, {"$unset": {"keys": ""}}).modified_count > 0
