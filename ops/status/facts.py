"""What the stores, and the server of this machine, say of themselves."""

import time
from typing import Any

from django.conf import settings
from django.db import connections
from prometheus_client.parser import text_string_to_metric_families
from pymongo.errors import OperationFailure
from redis.exceptions import ResponseError

from conversations.models import ALIAS
from conversations.policy import Routing
from conversations.runtime import switching
from conversations.stores import MONGO, REDIS, store
from ops import http
from ops.direct import documents, errors, turns_redis

_SAMPLE = 1000  # keys that tell which part of them are conversations


def routing() -> Routing:
    """Return where traffic goes: the newest switch, or else the environment."""
    newest = switching.newest_of(switching.read())
    return newest.routing if newest else switching.environment()


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
    with errors(alias):
        if alias == MONGO:
            return int(documents().estimated_document_count())
        client = turns_redis()
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
    with errors(REDIS):
        for section in ("memory", "clients", "replication", "persistence", "server"):
            try:
                said |= turns_redis().info(section)
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
    with errors(MONGO):
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
