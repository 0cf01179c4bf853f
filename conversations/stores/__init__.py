"""The stores by alias, built from settings; imports no driver until one is asked for."""

import threading
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

from django.conf import settings
from django.utils.module_loading import import_string

from conversations.errors import StoreUnavailable
from conversations.stores.batches import try_longer
from conversations.stores.bulk import BulkStore
from conversations.stores.control import ControlStore
from conversations.stores.info import StoreInfo
from conversations.stores.measured import MeasuredStore
from conversations.stores.scratch import Scratch
from conversations.turns import Limits

REDIS, MONGO = "redis", "mongo"


@dataclass(frozen=True, slots=True)
class Backend:
    """The parts of a store, each by the path from which it is imported when it is first asked for; "" where it needs
    none."""

    label: str
    """Its name for people."""
    store: str
    """A HistoryStore that is a ControlStore too."""
    bulk: str
    """A BulkStore of it."""
    info: str
    """Returns the StoreInfo of an alias."""
    misconfigured: str = ""
    """A module that finds out why it cannot be used where that is a fault of configuration."""
    schemes: tuple[str, ...] = ()
    """Those of its address, which the environment has as ALIAS_URL and settings.STORE_URLS by alias. None where it has
    no address, or Django's own settings have it."""
    check: str = ""
    """Raises WrongServer where its address is that of another kind of server than the one that answers there."""
    at_start: str = ""
    """A module that is imported when Django starts, before the driver's client is made."""
    connect: str = ""
    """Makes the driver's client."""
    give_time: str = ""
    """Gives each call of this process more time than a turn's."""
    at_exit: str = ""
    """Has the process not wait for the driver's threads."""
    snapshot: str = ""
    """Opens the snapshots of its servers' own, beside the conversations that a backup reads."""
    snapshot_begin: bytes = b""
    """How such a snapshot begins."""
    snapshot_keys: str = ""
    """Counts the keys in such a snapshot."""
    scratch: str = ""
    """Opens room in a server of our own, in which a backup is verified."""

    @property
    def owner(self) -> str:
        """Its label before what it has: Redis', MongoDB's."""
        return f"{self.label}'" if self.label.endswith("s") else f"{self.label}'s"


BACKENDS = {
    REDIS: Backend(
        label="Redis",
        store="conversations.stores.redis.turns.CacheStore",
        bulk="conversations.stores.redis.bulk.RedisBulk",
        info="conversations.stores.redis.info.read",
        misconfigured="conversations.stores.redis.misconfigured",
        snapshot="conversations.stores.redis.snapshot.of_each",
        snapshot_begin=b"REDIS",
        snapshot_keys="conversations.stores.redis.rdb.count_keys",
        scratch="conversations.stores.redis.scratch.opened",
        give_time="conversations.stores.redis.patient.give_time",
        check="conversations.stores.redis.kind.check",
    ),
    MONGO: Backend(
        label="MongoDB",
        store="conversations.stores.mongo.turns.DocumentStore",
        bulk="conversations.stores.mongo.bulk.MongoBulk",
        info="conversations.stores.mongo.info.read",
        misconfigured="conversations.stores.mongo.misconfigured",
        at_start="conversations.stores.mongo.connection",
        connect="conversations.stores.mongo.patient.connect",
        at_exit="conversations.stores.mongo.exit.do_not_wait",
        scratch="conversations.stores.mongo.scratch.opened",
        give_time="conversations.stores.mongo.patient.give_time",
    ),
}
"""Every store that can be used. The first two are in use: one is the primary, the other its fallback."""

ALIASES = tuple(BACKENDS)[:2]
"""The stores in use."""


def limits() -> Limits:
    """Return what a history may grow to, as the settings say."""
    return Limits(settings.CONV_TTL_SECONDS, settings.CONV_MAX_TURNS, settings.CONV_MAX_BYTES)


def store(alias: str) -> MeasuredStore:
    """Return the store of that alias, measured; every thread gets the same one."""
    return _built.get(alias) or _build(alias)


@cache
def store_class(alias: str) -> type[Any]:
    """Return the class of that store, whose flags say what kind of store it is."""
    found: type[Any] = import_string(BACKENDS[alias].store)
    return found


def _build(alias: str) -> MeasuredStore:
    with _building:  # two threads that are the first would build two, each with breakers of its own
        if alias not in _built:
            built = store_class(alias)(alias, limits())
            _built[alias] = MeasuredStore(built, control=built)
        return _built[alias]


_building = threading.Lock()
_built: dict[str, MeasuredStore] = {}


def control(alias: str) -> ControlStore:
    """Return what processes agree on through that store."""
    return store(alias)


def write_note(name: str, text: str) -> tuple[str, ...]:
    """Write the note to every store in use that can be reached; return their aliases."""
    written = []
    for alias in ALIASES:
        with suppress(StoreUnavailable):
            control(alias).write_note(name, text)
            written.append(alias)
    return tuple(written)


def info(alias: str) -> StoreInfo:
    """Return what the store's server reports of itself; raise StoreUnavailable."""
    read: StoreInfo = import_string(BACKENDS[alias].info)(alias)
    return read


def unusable_files(alias: str) -> str:
    """Return what is wrong with the files that the store's address names, in one line, "" for nothing; no server is
    asked."""
    path = BACKENDS[alias].misconfigured
    return str(import_module(path).unusable_files()) if path else ""


def misconfigured(alias: str, error: StoreUnavailable) -> str:
    """Return what an operator has to set right, in one line, where the store is not merely down; "" where that is not
    known. The server may be asked again."""
    path = BACKENDS[alias].misconfigured
    return str(import_module(path).why(alias, error)) if path else ""


def missing_rights(alias: str) -> str:
    """Return which rights the service's user lacks in a store that answers, in one line, "" for none that is known.
    Raise StoreUnavailable."""
    path = BACKENDS[alias].misconfigured
    return str(import_module(path).missing_rights(alias)) if path else ""


def snapshot_store() -> str | None:
    """Return the alias of the store in use that has a snapshot of its own, for which a backup has room; None where
    neither has."""
    return next((alias for alias in ALIASES if BACKENDS[alias].snapshot), None)


def open_snapshots(alias: str, folder: Path) -> list[AbstractContextManager[tuple[BinaryIO, str]]]:
    """Return for each server that the store consists of what has it save, and yields its snapshot with how it was
    reached; one that has to be fetched is a file in the folder meanwhile. It raises NoSnapshot."""
    opened: list[AbstractContextManager[tuple[BinaryIO, str]]] = import_string(BACKENDS[alias].snapshot)(folder)
    return opened


def count_keys(alias: str, snapshot: Path) -> int | None:
    """Return how many keys the store finds in such a snapshot, every one read; None where only a later version of its
    server can read them, and the checksum is right. Raise BadSnapshot."""
    number: int | None = import_string(BACKENDS[alias].snapshot_keys)(snapshot)
    return number


def load() -> None:
    """Import what has to be there before the drivers' clients are made. Of every store: Django has a client of a store
    that is not in use too."""
    for backend in BACKENDS.values():
        if backend.at_start:
            import_module(backend.at_start)


def connect() -> None:
    """Make the drivers' clients, which asks nothing of the stores yet. Several threads that are the first to need one
    would each make their own."""
    for alias in ALIASES:
        if path := BACKENDS[alias].connect:
            import_string(path)()


def check_servers() -> None:
    """Raise WrongServer where the address of a store in use is that of another kind of server than the one that
    answers there; a store that does not answer is none."""
    for alias in ALIASES:
        if path := BACKENDS[alias].check:
            import_string(path)()


def give_time(seconds: float) -> None:
    """Give each call to a store so many seconds, instead of a turn's, and more tries to what is tried again: for a
    process that answers no turn, before its first call."""
    for alias in ALIASES:
        if path := BACKENDS[alias].give_time:
            import_string(path)(seconds)
    try_longer()


def do_not_wait_at_exit() -> None:
    """Have this process end at once, whatever threads the stores' drivers have; for a command, which is done with
    them."""
    for alias in ALIASES:
        if path := BACKENDS[alias].at_exit:
            import_string(path)()


def other(alias: str) -> str:
    """Return the alias of the other store in use."""
    return ALIASES[1] if alias == ALIASES[0] else ALIASES[0]


def bulk(alias: str) -> BulkStore:
    """Return the store of that alias as operators' commands, and repair, need it."""
    return _build_bulk(alias)


@cache
def _build_bulk(alias: str) -> BulkStore:
    return _bulk_class(alias)(store(alias))


def _bulk_class(alias: str) -> type[BulkStore]:
    found: type[BulkStore] = import_string(BACKENDS[alias].bulk)
    return found


def memory_store() -> str | None:
    """Return the alias of the store in use that keeps conversations in a memory that can be full; None where neither
    does."""
    return next((alias for alias in ALIASES if _bulk_class(alias).supports_memory), None)


def permitting_store() -> str | None:
    """Return the alias of the store in use that counts the asks of clients; None where neither does."""
    return next((alias for alias in ALIASES if store_class(alias).gives_permits), None)


def scratch(alias: str, url: str, number: int) -> AbstractContextManager[Scratch]:
    """Return what yields room, one of each number at a time, in a server of our own at that URL, which is as that
    store's are; it is "" where `embedded` has no such server, and the store brings the room itself."""
    opened: AbstractContextManager[Scratch] = import_string(BACKENDS[alias].scratch)(url, number)
    return opened


def reachable() -> tuple[str, ...]:
    """Return the aliases of the stores that answer now."""
    return tuple(alias for alias in ALIASES if _answers(alias))


def _answers(alias: str) -> bool:
    try:
        store(alias).ping()
    except StoreUnavailable:
        return False
    return True
