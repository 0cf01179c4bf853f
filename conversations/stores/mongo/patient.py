"""MongoDB as operators' work needs it: the collections beneath the models, and more time for each batch."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice
from typing import Any

import pymongo
from django.conf import settings
from django.db import connections

from conversations.models import ALIAS, Conversation
from conversations.stores.batches import PATIENCE, retried
from conversations.stores.mongo.faults import as_unavailable, fail_fast

NOTES = "onesource_notes"
"""The collection of what processes agree on."""
_TIMEOUTS = ("serverSelectionTimeoutMS", "connectTimeoutMS", "socketTimeoutMS", "timeoutMS")
_FIRST = 3  # round trips of a first call: the driver looks at the server, makes a connection, and asks
_COUNTING = 16  # times a call's time, in which flags are counted: that can be 48 calls
_WALK_SECONDS, _LONG_WALK_SECONDS = 120, 3600
"""For a page of a walk over a whole collection, in a server and in a command. The embedded MongoDB makes the whole
answer before the first page, in minutes where there are a million; MongoDB counts the time of all pages together. The
driver, which looks at the server all the time, ends the call of one that does not answer."""


_given = False

errors = partial(as_unavailable, ALIAS)

Document = dict[str, Any]
Documents = pymongo.collection.Collection[Document]


def documents(table: str = Conversation._meta.db_table, database: str = ALIAS) -> Documents:
    """Return the collection beneath a model; raise StoreUnavailable."""
    with errors():
        connection: Any = connections[database]
        found: Documents = connection.get_collection(table)
        return found


@contextmanager
def patient(seconds: float = PATIENCE, database: str = ALIAS) -> Iterator[None]:
    """Give one batch its time; raise StoreUnavailable as `errors` does, and at once where the server is known to be
    out: with a timeout set, the driver would wait for one all that time."""
    fail_fast(database)
    with errors(), pymongo.timeout(seconds):
        yield


def pages(
    where: Document,
    size: int,
    fields: Document | None = None,
    database: str = ALIAS,
    table: str = Conversation._meta.db_table,
) -> Iterator[list[Document]]:
    """Return the documents, by the page, from a cursor that is opened now; raise StoreUnavailable.

    One cursor instead of one query a page: where a range of keys is no use of an index, as in the embedded MongoDB,
    every page would read the whole collection.
    """
    with patient(database=database):
        cursor = documents(table, database).find(where, fields, batch_size=size)
    return _pages(cursor, size, database)


def _pages(cursor: Any, size: int, database: str) -> Iterator[list[Document]]:
    # Not around the yield: what is done with a page has its own limits.
    def next_page() -> list[Document]:
        with patient(_LONG_WALK_SECONDS if _given else _WALK_SECONDS, database):
            return list(islice(cursor, size))

    def first_page() -> list[Document]:
        cursor.rewind()  # the server closes the cursor of a query that has failed
        return next_page()

    with cursor:
        page = retried(first_page)
        while page:
            yield page
            page = next_page()


def give_time(seconds: float) -> None:
    """Give every call of this process so many seconds, instead of a turn's; to be called before the first one. Once the
    driver knows a server to be out, calls do not wait for it."""
    global _given
    _given = True
    options: dict[str, Any] = settings.DATABASES[ALIAS]["OPTIONS"]  # type: ignore[assignment]
    most = int(_FIRST * seconds * 1000)
    options |= {name: max(options[name], most) for name in _TIMEOUTS}
    settings.MONGO_TIMEOUT_MS = max(settings.MONGO_TIMEOUT_MS, most)


def counting() -> int:
    """Return how many times a call's time the counting of flags may take: once, where requests wait for the process."""
    return _COUNTING if _given else 1


def connect() -> None:
    """Make the client of MongoDB, without a call to the server: several threads that need one first would each make
    their own, with threads that watch the server."""
    wrapper = connections[ALIAS]
    with suppress(OSError, pymongo.errors.PyMongoError):  # a file for TLS: the first call raises it again
        wrapper.get_new_connection(wrapper.get_connection_params())
