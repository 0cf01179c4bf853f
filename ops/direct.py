"""The two stores as operators' work needs them: many conversations at a time, with more patience than a turn has.

Asked of the drivers, beneath the contract of a HistoryStore, which speaks of one conversation and hides what keeps it.
"""

import gc
import time
from collections.abc import Callable, Collection, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import pymongo
from django.db import DatabaseError, connections
from django_redis.exceptions import ConnectionInterrupted
from pymongo.errors import PyMongoError
from redis import BlockingConnectionPool, ConnectionPool, Redis
from redis.exceptions import RedisClusterException, RedisError, ResponseError

from conversations.errors import CorruptHistory, StoreUnavailable
from conversations.models import ALIAS, Conversation
from conversations.stores import ALIASES, MONGO, REDIS, store
from conversations.stores.base import Contents, tombstone_in
from conversations.stores.redis.client import MARKS, histories, tombstone_key
from conversations.stores.sessions import make_key, session_of
from conversations.turns import History, now

PATIENCE = 30.0  # seconds for one batch
_LONG_SECONDS = 120  # for what reads a whole collection, and holds up nobody's question
_TRIES = 4
_PAUSE = 0.25  # seconds

Documents = pymongo.collection.Collection[dict[str, Any]]
Found = Contents | CorruptHistory
T = TypeVar("T")


def reachable() -> tuple[str, ...]:
    """Return the stores that answer now."""
    return tuple(alias for alias in ALIASES if _answers(alias))


def redis() -> Any:
    """Return a client of the configured Redis whose socket timeout is ours, not a turn's."""
    client = turns_redis()
    pool = client.connection_pool
    if type(pool) not in (ConnectionPool, BlockingConnectionPool):
        return client  # Sentinel's, or a cluster's: it finds its server itself
    options = {**pool.connection_kwargs, "socket_timeout": PATIENCE}
    return Redis(connection_pool=ConnectionPool(pool.connection_class, **options))


def turns_redis() -> Any:
    """Return the client that turns use, with their timeouts."""
    return histories().client.get_client(write=True)


def documents(table: str = Conversation._meta.db_table) -> Documents:
    """Return the collection beneath the model; raise StoreUnavailable."""
    with errors(ALIAS):
        connection: Any = connections[ALIAS]
        found: Documents = connection.get_collection(table)
        return found


@contextmanager
def errors(alias: str) -> Iterator[None]:
    """Raise StoreUnavailable for every way in which a driver reports a fault."""
    try:
        yield
    except (ConnectionInterrupted, RedisError, RedisClusterException, DatabaseError, PyMongoError) as error:
        cause = error.__cause__ if isinstance(error, (ConnectionInterrupted, DatabaseError)) else error
        raise StoreUnavailable(alias, type(cause or error).__name__) from error


@contextmanager
def patient(alias: str, seconds: float = PATIENCE) -> Iterator[None]:
    """Give one batch its time; raise StoreUnavailable as `errors` does."""
    with errors(alias), pymongo.timeout(seconds):
        yield


def patiently(call: Callable[[], T]) -> T:
    """Return what the call returns, tried again for about a second: to an operator's long work one slow answer of
    a busy store is no outage."""
    for _ in range(_TRIES - 1):
        try:
            return call()
        except StoreUnavailable:
            time.sleep(_PAUSE)
    return call()


def collect_seldom() -> None:
    """Have this process look for garbage in cycles seldom: work on many conversations makes millions of objects and
    hardly a cycle, and looking among them took an eighth of its time."""
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)


def meet() -> None:
    """Make the client of MongoDB, which asks nothing of it yet: of several threads that are the first to need one each
    would make its own, with threads that watch the server."""
    wrapper = connections[ALIAS]
    wrapper.get_new_connection(wrapper.get_connection_params())


def ahead(items: Iterator[T]) -> Generator[T]:
    """Yield the items, each fetched while the one before it is used; raise what fetching raises."""
    with ThreadPoolExecutor(1) as hand:
        coming = hand.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = hand.submit(next, items, None)
            yield item


def pages(where: dict[str, Any], size: int, fields: dict[str, Any] | None = None) -> Iterator[list[dict[str, Any]]]:
    """Return the documents, by the page, from a cursor that is opened now; raise StoreUnavailable."""
    with patient(MONGO):
        cursor = documents().find(where, fields, batch_size=size)
    return _pages(cursor, size)


def _pages(cursor: Any, size: int) -> Iterator[list[dict[str, Any]]]:
    with cursor:
        while True:
            # Not around the yield: what is done with a page has its own limits.
            with patient(MONGO, _LONG_SECONDS):
                page = list(islice(cursor, size))
            if not page:
                return
            yield page


def step(client: Any, pattern: str, cursor: int, count: int) -> tuple[int, list[bytes]]:
    """Return the next cursor of a SCAN, 0 at the end, and the keys of one step."""
    with patient(REDIS):
        after, keys = client.scan(cursor, match=pattern, count=count)
        return int(after), keys


def ask(pipeline: Any) -> list[Any]:
    """Return the answers of a pipeline to Redis."""
    with patient(REDIS):
        answers: list[Any] = pipeline.execute()
        return answers


def contents(alias: str, sessions: Collection[str]) -> dict[str, Found]:
    """Return what the store holds of each session; where that is no history, the CorruptHistory that reading it
    would raise. Nothing is set aside. Raise StoreUnavailable."""
    names = list(sessions)
    if not names:
        return {}
    try:
        with errors(alias):
            return _from_redis(names) if alias == REDIS else _from_mongo(names)
    except StoreUnavailable:
        if len(names) == 1:
            raise
        half = len(names) // 2  # a batch of long ones may take longer than one answer may
        return contents(alias, names[:half]) | contents(alias, names[half:])


def names(alias: str, size: int) -> Iterator[tuple[str, ...]]:
    """Yield every conversation's name that the store holds, in batches of about so many; raise StoreUnavailable.

    MongoDB is asked by one cursor instead of page by page: where a range of keys is no use of an index, as in the
    embedded one, every page would read the whole collection.
    """
    if alias == MONGO:
        yield from _mongo_names(size)
        return
    cursor = ""
    while True:
        page = patiently(partial(store(alias).scan, cursor, size, tenant=None))
        yield page.sessions
        if not page.cursor:
            return
        cursor = page.cursor


def in_mongo(sessions: Collection[str]) -> set[str]:
    """Return those of the sessions that MongoDB's `scan` would name; raise StoreUnavailable."""
    where = {"_id": {"$in": [make_key(session) for session in sessions]}, "expires_at": {"$gt": now()}}
    with errors(MONGO):
        found = documents().find({**where, "bytes": {"$gt": 0}}, {"_id": 1})
        return {session_of(document["_id"]) for document in found}


def _from_redis(names: list[str]) -> dict[str, Found]:
    pipeline = turns_redis().pipeline(transaction=False)
    for session in names:
        key = make_key(session)
        pipeline.get(key).get(tombstone_key(key)).hget(MARKS, session)
    answers = pipeline.execute(raise_on_error=False)
    return {
        session: _redis_contents(session, *answers[place : place + 3])
        for session, place in zip(names, range(0, len(answers), 3), strict=True)
    }


def _redis_contents(session: str, value: Any, tombstone: Any, mark: Any) -> Found:
    wrong = isinstance(tombstone, ResponseError) and str(tombstone).startswith("WRONGTYPE")
    for answer in (value, None if wrong else tombstone, mark):
        if isinstance(answer, ResponseError) and str(answer).startswith("WRONGTYPE"):
            return CorruptHistory(REDIS, "ResponseError")
        if isinstance(answer, Exception):
            raise answer
    try:
        history = None if value is None else histories().client.decode(value)
    except CorruptHistory as error:
        return error
    return Contents(history, tombstone_in(REDIS, session, tombstone), mark.decode() if mark else None)


def _from_mongo(names: list[str]) -> dict[str, Found]:
    where = {"_id": {"$in": [make_key(session) for session in names]}, "expires_at": {"$gt": now()}}
    found: dict[str, Found] = {session: Contents(None, None, None) for session in names}
    return found | {session_of(document["_id"]): _mongo_contents(document) for document in documents().find(where)}


def _mongo_names(size: int) -> Iterator[tuple[str, ...]]:
    store(MONGO).ping()  # which fails fast
    living = {"expires_at": {"$gt": now()}, "bytes": {"$gt": 0}}
    for page in pages(living, size, {"_id": 1}):
        yield tuple(session_of(document["_id"]) for document in page)


def _mongo_contents(document: dict[str, Any]) -> Found:
    records = document.get("messages")
    try:
        history = None if records == [] else History.parse(records)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        return CorruptHistory(MONGO, error)
    tombstone = tombstone_in(MONGO, session_of(document["_id"]), document.get("tombstone"))
    return Contents(history, tombstone, document.get("mark"))


def _answers(alias: str) -> bool:
    try:
        store(alias).ping()
    except StoreUnavailable:
        return False
    return True
