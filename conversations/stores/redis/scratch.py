"""Room in a Redis of our own: one of its numbered databases."""

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from django.conf import settings
from django.utils.module_loading import import_string

from conversations.stores.batches import PATIENCE
from conversations.stores.redis.bulk import RedisBulk
from conversations.stores.redis.patient import errors, patient_client, turns_client
from conversations.stores.scratch import Scratch, Unused


@contextmanager
def opened(url: str, number: int) -> Iterator[Scratch]:
    """Yield the room with that number."""
    usual = settings.CACHES["conversations"]
    location = urlsplit(url)._replace(path=f"/{number}").geturl()
    options = usual["OPTIONS"] | {"SOCKET_TIMEOUT": PATIENCE, "SOCKET_CONNECT_TIMEOUT": PATIENCE}
    backend = import_string(usual["BACKEND"])((location,), usual | {"OPTIONS": options})
    client = patient_client(lambda: backend)

    def clear() -> None:
        with errors():
            client.flushdb()

    try:
        yield Scratch(RedisBulk(Unused("redis"), lambda: backend), clear)
    finally:
        client.connection_pool.disconnect()
        turns_client(lambda: backend).connection_pool.disconnect()
