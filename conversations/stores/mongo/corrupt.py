"""Quarantined documents as the admin shows them: their filter, their text, and a deadline for reading them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from io import StringIO
from typing import Any

import pymongo
from bson import ObjectId, json_util
from django.db import DatabaseError
from pymongo.errors import PyMongoError

from conversations.errors import StoreUnavailable
from conversations.models import ALIAS, CorruptConversation
from conversations.stores import store
from conversations.stores.mongo.patient import documents
from conversations.stores.sessions import KEY_BEGINS
from telemetry.escaping import visible

# What another program wrote is left out. MongoDB compares values of one type only, so a lower bound selects those
# whose fields are what the model says.
OURS = {"pk__gte": ObjectId("0" * 24), "key__gte": KEY_BEGINS, "expires_at__gte": datetime(1970, 1, 1, tzinfo=UTC)}

_SECONDS = 2.0  # a document of 16 MB takes longer than a turn's timeout
_SHOWN = 20_000  # characters of a document
_JSON = json.JSONEncoder(
    indent=2, ensure_ascii=False, default=partial(json_util.default, json_options=json_util.RELAXED_JSON_OPTIONS)
)


@contextmanager
def readable() -> Iterator[None]:
    """Allow more time than a turn has. Raise StoreUnavailable where MongoDB fails; an error of another database, which
    holds the admin's users, stays what it is."""
    store(ALIAS).ping()  # fails fast, where a query would wait for its whole timeout
    try:
        with pymongo.timeout(_SECONDS):
            yield
    except PyMongoError as error:
        raise StoreUnavailable(ALIAS, type(error).__name__) from error
    except DatabaseError as error:
        if not isinstance(error.__cause__, PyMongoError):
            raise
        raise StoreUnavailable(ALIAS, type(error.__cause__).__name__) from error


def document_of(corrupt: CorruptConversation) -> Any:
    """Return the document as it is in MongoDB."""
    found: Any = documents(corrupt._meta.db_table).find_one({"_id": corrupt.pk}, {"document": 1})
    return (found or {}).get("document")


def beginning(document: Any) -> str:
    """Return the beginning of the document as MongoDB's extended JSON, without making more than is shown."""
    text, size = StringIO(), 0
    for piece in _JSON.iterencode(document):
        size += text.write(piece[: _SHOWN + 1])
        if size > _SHOWN:
            break
    cut = f"\n… cut after {_SHOWN:,} characters" if size > _SHOWN else ""
    return visible(text.getvalue()[:_SHOWN]) + cut
