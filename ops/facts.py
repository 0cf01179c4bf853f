"""What the stores say of themselves, and many conversations at a time: asked of the drivers, beneath the contract
of a HistoryStore, which speaks of one conversation and hides what keeps it."""

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import pymongo
from django.conf import settings
from django.db import DatabaseError, connections
from prometheus_client.parser import text_string_to_metric_families
from pymongo.errors import OperationFailure, PyMongoError
from redis.exceptions import RedisError, ResponseError

from conversations.cache import MARKS, _tombstone, histories, make_key, session_of
from conversations.errors import CorruptHistory, StoreUnavailable
from conversations.failover import Routing
from conversations.models import ALIAS, Conversation
from conversations.stores import MONGO, REDIS, store
from conversations.stores.base import Contents
from conversations.turns import History, now
from ops import http, switching

Found = Contents | CorruptHistory
T = TypeVar("T")

_SAMPLE = 1000  # keys that tell which part of them are conversations
_TRIES = 4
_PAUSE = 0.25  # seconds
_LONG_SECONDS = 120  # for what reads a whole collection, and holds up nobody's question


def routing() -> Routing:
    """Return where traffic goes: the newest switch, or else the environment."""
    newest = switching.newest_of(switching.read())
    return newest.routing if newest else switching.environment()


def patiently(call: Callable[[], T]) -> T:
    """Return what the call returns, tried again for about a second: to an operator's long work one slow answer of
    a busy store is no outage."""
    for _ in range(_TRIES - 1):
        try:
            return call()
        except StoreUnavailable:
            time.sleep(_PAUSE)
    return call()


def contents(alias: str, sessions: Collection[str]) -> dict[str, Found]:
    """Return what the store holds of each session; where that is no history, the CorruptHistory that reading it
    would raise. Nothing is set aside. Raise StoreUnavailable."""
    names = list(sessions)
    if not names:
        return {}
    try:
        with _errors(alias):
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
    with _errors(MONGO):
        found = _mongo().find({**where, "bytes": {"$gt": 0}}, {"_id": 1})
        return {session_of(document["_id"]) for document in found}


def ping_ms(alias: str, times: int = 20) -> list[float]:
    """Return how long so many pings took, in milliseconds, shortest first; raise StoreUnavailable."""
    took = []
    store(alias).ping()  # the first one connects
    for _ in range(times):
        begun = time.perf_counter()
        store(alias).ping()
        took.append((time.perf_counter() - begun) * 1000)
    return sorted(took)


def p95(ordered: list[float]) -> float:
    """Return the 95th percentile of values in ascending order."""
    return ordered[int(0.95 * (len(ordered) - 1))]


def estimate(alias: str) -> int:
    """Return about how many conversations the store holds, without looking at each; raise StoreUnavailable."""
    store(alias).ping()  # which fails fast
    with _errors(alias):
        if alias == MONGO:
            return int(_mongo().estimated_document_count())
        client = _redis()
        seen: list[bytes] = []
        size, cursor = int(client.dbsize()), 0
        while len(seen) < _SAMPLE:
            cursor, keys = client.scan(cursor, count=_SAMPLE)
            seen += keys
            if not cursor:
                break
        ours = sum(1 for key in seen if key.startswith(b"conv:"))
        return ours if not cursor else round(size * ours / len(seen))


def redis_says() -> dict[str, Any]:
    """Return memory, clients, replication and persistence as Redis tells them; what it refuses to tell is left
    out. Raise StoreUnavailable."""
    said: dict[str, Any] = {}
    with _errors(REDIS):
        for section in ("memory", "clients", "replication", "persistence", "server"):
            try:
                said |= _redis().info(section)
            except ResponseError:  # an ACL may forbid it
                continue
    facts: dict[str, Any] = {
        "version": said.get("redis_version"),
        "memory_bytes": said.get("used_memory"),
        "data_bytes": said["used_memory"] - said.get("used_memory_startup", 0) if "used_memory" in said else None,
        "max_memory_bytes": said.get("maxmemory"),
        "policy": said.get("maxmemory_policy"),
        "clients": said.get("connected_clients"),
        "role": said.get("role"),
        "replicas": said.get("connected_slaves"),
    }
    return facts | {"lag": _redis_lag(said), "persistence": _redis_persistence(said)}


def mongo_says() -> dict[str, Any]:
    """Return the same of MongoDB, as far as it tells. Raise StoreUnavailable."""
    with _errors(MONGO):
        connections[ALIAS].ensure_connection()
        admin = connections[ALIAS].connection.admin
        said, hello, members = {}, admin.command("hello"), []
        try:
            said = admin.command("serverStatus")
            members = admin.command("replSetGetStatus").get("members", [])
        except OperationFailure:  # it needs a right of its own, and a replica set
            pass
    resident = said.get("mem", {}).get("resident")
    role = "primary" if hello.get("isWritablePrimary") else "secondary" if hello.get("secondary") else "other"
    engine = said.get("storageEngine", {})
    return {
        "version": said.get("version"),
        "memory_bytes": resident * 1_048_576 if resident else None,
        "data_bytes": None,
        "max_memory_bytes": None,
        "policy": None,
        "clients": said.get("connections", {}).get("current"),
        "role": f"{role} of {hello['setName']}" if hello.get("setName") else role,
        "replicas": max(len(members) - 1, 0) if members else None,
        "lag": _mongo_lag(members),
        "persistence": f"{engine['name']}, journaled majority writes" if engine.get("persistent") else None,
    }


def served_metrics() -> dict[tuple[str, str, str], float] | None:
    """Return what the server of this machine counts, by name, store, and outcome or kind; None when no
    server answers on PORT."""
    try:
        status, body = http.call(f"{server_url()}/metrics", seconds=2)
    except http.NoServer:
        return None
    if status != 200:
        return None
    try:
        return in_page(body.decode())
    except ValueError:
        return None  # somebody else's server


def in_page(page: str) -> dict[tuple[str, str, str], float]:
    """Return what a page of metrics says, by name, store, and outcome or kind; raise ValueError if it is none."""
    return {
        (sample.name, sample.labels.get("store", ""), sample.labels.get("outcome") or sample.labels.get("kind", "")): (
            sample.value
        )
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def server_url() -> str:
    """Return where the server of this machine answers, if there is one."""
    return f"http://localhost:{settings.PORT}"


def _from_redis(names: list[str]) -> dict[str, Found]:
    pipeline = _redis().pipeline(transaction=False)
    for session in names:
        key = make_key(session)
        pipeline.get(key).get(_tombstone(key)).hget(MARKS, session)
    answers = pipeline.execute(raise_on_error=False)
    return {
        session: _redis_contents(*answers[place : place + 3])
        for session, place in zip(names, range(0, len(answers), 3), strict=True)
    }


def _redis_contents(value: Any, tombstone: Any, mark: Any) -> Found:
    for answer in (value, tombstone, mark):
        if isinstance(answer, ResponseError) and str(answer).startswith("WRONGTYPE"):
            return CorruptHistory(REDIS, "ResponseError")
        if isinstance(answer, Exception):
            raise answer
    try:
        history = None if value is None else histories().client.decode(value)
    except CorruptHistory as error:
        return error
    return Contents(history, tombstone.decode() if tombstone else None, mark.decode() if mark else None)


def _from_mongo(names: list[str]) -> dict[str, Found]:
    where = {"_id": {"$in": [make_key(session) for session in names]}, "expires_at": {"$gt": now()}}
    documents = _mongo().find(where)
    found: dict[str, Found] = {session: Contents(None, None, None) for session in names}
    return found | {session_of(document["_id"]): _mongo_contents(document) for document in documents}


def _mongo_names(size: int) -> Iterator[tuple[str, ...]]:
    store(MONGO).ping()  # which fails fast
    with _errors(MONGO):
        cursor = _mongo().find({"expires_at": {"$gt": now()}, "bytes": {"$gt": 0}}, {"_id": 1}).batch_size(_SAMPLE)
    with cursor:
        while True:
            # Not around the yield: what is done with the names has its own limits.
            with _errors(MONGO), pymongo.timeout(_LONG_SECONDS):
                page = tuple(session_of(document["_id"]) for document in islice(cursor, size))
            if not page:
                return
            yield page


def _mongo_contents(document: dict[str, Any]) -> Found:
    records = document.get("messages")
    try:
        history = None if records == [] else History.parse(records)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        return CorruptHistory(MONGO, error)
    return Contents(history, document.get("tombstone"), document.get("mark"))


def _redis_lag(said: dict[str, Any]) -> str | None:
    """Return how far replication is behind, in words, None where there is none."""
    if said.get("role") == "slave":
        if said.get("master_link_status") != "up":
            return "the link to its primary is down"
        return f"{said.get('master_last_io_seconds_ago')} s since its primary was heard"
    behind = [
        said["master_repl_offset"] - replica["offset"]
        for name, replica in said.items()
        if name.startswith("slave") and isinstance(replica, dict) and "offset" in replica
    ]
    return f"{max(behind)} bytes" if behind else None


def _redis_persistence(said: dict[str, Any]) -> str | None:
    if "aof_enabled" not in said:
        return None
    rdb = f"RDB {said.get('rdb_last_bgsave_status')}"
    return f"AOF {said.get('aof_last_write_status')}, {rdb}" if said["aof_enabled"] else f"no AOF, {rdb}"


def _mongo_lag(members: list[dict[str, Any]]) -> str | None:
    dates = [member["optimeDate"] for member in members if "optimeDate" in member]
    return f"{(max(dates) - min(dates)).total_seconds():.0f} s" if len(dates) > 1 else None


def _redis() -> Any:
    return histories().client.get_client(write=True)


def _mongo() -> Any:
    connection: Any = connections[ALIAS]
    return connection.get_collection(Conversation._meta.db_table)


@contextmanager
def _errors(alias: str) -> Iterator[None]:
    """Turn every way a driver reports a fault into the one of ours."""
    try:
        yield
    except (RedisError, DatabaseError, PyMongoError) as error:
        raise StoreUnavailable(alias, type(error).__name__) from error
