"""The stores by alias, built from settings; imports no driver until one is asked for."""

import threading
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import BinaryIO

from django.conf import settings
from django.utils.module_loading import import_string

from conversations.errors import StoreUnavailable
from conversations.stores.bulk import BulkStore
from conversations.stores.control import ControlStore
from conversations.stores.info import StoreInfo
from conversations.stores.measured import MeasuredStore
from conversations.turns import Limits

REDIS, MONGO = "redis", "mongo"
ALIASES = (REDIS, MONGO)
_BACKENDS = {
    REDIS: "conversations.stores.redis.turns.CacheStore",
    MONGO: "conversations.stores.mongo.turns.DocumentStore",
}
_BULK = {
    REDIS: "conversations.stores.redis.bulk.RedisBulk",
    MONGO: "conversations.stores.mongo.bulk.MongoBulk",
}
_INFO = {
    REDIS: "conversations.stores.redis.info.read",
    MONGO: "conversations.stores.mongo.info.read",
}
_CONNECT = ("conversations.stores.mongo.patient.connect",)
_AT_EXIT = ("conversations.stores.mongo.exit.do_not_wait",)
_SNAPSHOTS = {  # the stores that have one of their own, beside the conversations that a backup reads from them
    REDIS: ("conversations.stores.redis.snapshot.opened", "conversations.stores.redis.rdb.count_keys"),
}


def limits() -> Limits:
    """Return what a history may grow to, as the settings say."""
    return Limits(settings.CONV_TTL_SECONDS, settings.CONV_MAX_TURNS, settings.CONV_MAX_BYTES)


def store(alias: str) -> MeasuredStore:
    """Return the store of that alias, measured for whoever calls it; every thread gets the same one."""
    with _building:  # `cache` alone lets two threads that are the first build two, each with breakers of its own
        return _build(alias)


@cache
def _build(alias: str) -> MeasuredStore:
    built = import_string(_BACKENDS[alias])(alias, limits())
    return MeasuredStore(built, control=built)


_building = threading.Lock()


def control(alias: str) -> ControlStore:
    """Return what processes agree on through that store."""
    return store(alias)


def info(alias: str) -> StoreInfo:
    """Return what the store's server says of itself; raise StoreUnavailable."""
    read: StoreInfo = import_string(_INFO[alias])(alias)
    return read


def open_snapshot(alias: str, folder: Path) -> AbstractContextManager[tuple[BinaryIO, str]]:
    """Return what has the store save, and yields its snapshot with how it was reached; one that has to be fetched is
    a file in the folder meanwhile. It raises NoSnapshot."""
    opened: AbstractContextManager[tuple[BinaryIO, str]] = import_string(_SNAPSHOTS[alias][0])(folder)
    return opened


def count_keys(alias: str, snapshot: Path) -> int | None:
    """Return how many keys the store finds in such a snapshot, every one read; None where only a later version of its
    server can read them, and the checksum is right. Raise BadSnapshot."""
    number: int | None = import_string(_SNAPSHOTS[alias][1])(snapshot)
    return number


def connect() -> None:
    """Make the drivers' clients, which asks nothing of the stores yet. Several threads that are the first to need one
    would each make their own."""
    for path in _CONNECT:
        import_string(path)()


def do_not_wait_at_exit() -> None:
    """Have this process end at once, whatever threads the stores' drivers have; for a command, which is done with
    them."""
    for path in _AT_EXIT:
        import_string(path)()


def other(alias: str) -> str:
    """Return the alias of the other store."""
    return MONGO if alias == REDIS else REDIS


@cache
def bulk(alias: str) -> BulkStore:
    """Return the store of that alias as operators' commands need it."""
    built: BulkStore = import_string(_BULK[alias])(store(alias))
    return built


def reachable() -> tuple[str, ...]:
    """Return the aliases of the stores that answer now."""
    return tuple(alias for alias in ALIASES if _answers(alias))


def _answers(alias: str) -> bool:
    try:
        store(alias).ping()
    except StoreUnavailable:
        return False
    return True
