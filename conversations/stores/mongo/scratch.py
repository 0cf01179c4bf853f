"""Room in a MongoDB of our own: a database of that name, which Django knows meanwhile."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connections

from conversations.models import ALIAS, Conversation, CorruptConversation
from conversations.stores.mongo.bulk import MongoBulk
from conversations.stores.mongo.patient import documents, patient
from conversations.stores.scratch import Scratch, Unused

_TABLES = (Conversation._meta.db_table, CorruptConversation._meta.db_table)


@contextmanager
def opened(url: str, number: int) -> Iterator[Scratch]:
    """Yield the room with that number."""
    name = f"scratch{number}"
    # Its data has to last no longer than its server: nothing waits for a disk.
    options = {"journal": False, "retryWrites": False, "retryReads": False}
    known: dict[str, Any] = connections.settings
    known[name] = known[ALIAS] | {"HOST": url, "NAME": name, "OPTIONS": options}

    def clear() -> None:
        for table in _TABLES:
            with patient(database=name):
                documents(table, name).drop()

    connection: Any = connections[name]
    connection.connect()  # before any other thread: each that was the first would make a client of its own
    try:
        yield Scratch(MongoBulk(Unused(ALIAS), name), clear)
    finally:
        connection.close_pool()
        del connections[name], known[name]
