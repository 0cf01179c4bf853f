"""What Redis reports about itself, by INFO."""

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from redis.crc import REDIS_CLUSTER_HASH_SLOTS
from redis.exceptions import ConnectionError, ResponseError, TimeoutError

from conversations.stores.info import StoreInfo
from conversations.stores.redis.client import histories
from conversations.stores.redis.cluster import Cluster
from conversations.stores.redis.faults import as_unavailable

_SECTIONS = ("memory", "clients", "replication", "persistence", "server")


def read(alias: str) -> StoreInfo:
    """Return memory, clients, replication and persistence; what an ACL forbids is left out. Of a cluster return what
    all masters that answer have together, with the greatest lag. Raise StoreUnavailable."""
    with as_unavailable(alias):
        client = histories().client.get_client(write=True)
        return _of_cluster(client) if isinstance(client, Cluster) else _info(_fields(client))


def _info(fields: dict[str, Any]) -> StoreInfo:
    return StoreInfo(
        version=fields.get("redis_version"),
        memory_bytes=fields.get("used_memory"),
        data_bytes=_data_bytes(fields),
        max_memory_bytes=fields.get("maxmemory"),
        policy=fields.get("maxmemory_policy"),
        clients=fields.get("connected_clients"),
        role=fields.get("role"),
        replicas=fields.get("connected_slaves"),
        lag=_lag(fields),
        persistence=_persistence(fields),
    )


def _of_cluster(client: Cluster) -> StoreInfo:
    each: list[dict[str, Any]] = []
    covered = REDIS_CLUSTER_HASH_SLOTS
    masters = client.servers()
    for server in masters:
        with suppress(ConnectionError, TimeoutError):
            covered = min(covered, int(server.cluster("INFO")["cluster_slots_ok"]))
            each.append(_fields(server))
    if not each:
        raise ConnectionError("connecting to a cluster: no master answers")
    found = list(map(_info, each))
    behind = [one for one in map(_behind, each) if one is not None]
    limits = [one.max_memory_bytes for one in found]
    return StoreInfo(
        version=_words(one.version for one in found),
        memory_bytes=_sum(one.memory_bytes for one in found),
        data_bytes=_sum(one.data_bytes for one in found),
        max_memory_bytes=0 if 0 in limits else _sum(limits),
        policy=_words(one.policy for one in found),
        clients=_sum(one.clients for one in found),
        role=_masters(len(each), len(masters), REDIS_CLUSTER_HASH_SLOTS - covered),
        replicas=_sum(one.replicas for one in found),
        lag=f"{max(behind)} bytes" if behind else None,
        persistence=_words(one.persistence for one in found),
    )


def _masters(answering: int, number: int, uncovered: int) -> str:
    """Return how many masters there are, in words, and what is wrong with them."""
    text = f"{number} masters" if answering == number else f"{answering} of {number} masters answer"
    return f"{text}, {uncovered:,} slots have none" if uncovered else text


def _words(values: Iterable[str | None]) -> str | None:
    """Return what all have, or each that one of them has."""
    return " / ".join(sorted({value for value in values if value})) or None


def _sum(values: Iterable[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _fields(client: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for section in _SECTIONS:
        try:
            fields |= client.info(section)
        except ResponseError:  # an ACL may forbid it
            continue
    return fields


def _data_bytes(fields: dict[str, Any]) -> int | None:
    used = fields.get("used_memory")
    return None if used is None else used - fields.get("used_memory_startup", 0)


def _lag(fields: dict[str, Any]) -> str | None:
    """Return how far replication is behind, in words, None where there is none."""
    if fields.get("role") == "slave":
        if fields.get("master_link_status") != "up":
            return "the link to its primary is down"
        return f"{fields.get('master_last_io_seconds_ago')} s since its primary was heard"
    behind = _behind(fields)
    return None if behind is None else f"{behind} bytes"


def _behind(fields: dict[str, Any]) -> int | None:
    """Return by how many bytes the last of a master's replicas is behind, None where there is none."""
    behind = [
        fields["master_repl_offset"] - replica["offset"]
        for name, replica in fields.items()
        if name.startswith("slave") and isinstance(replica, dict) and "offset" in replica
    ]
    return max(behind, default=None)


def _persistence(fields: dict[str, Any]) -> str | None:
    if "aof_enabled" not in fields:
        return None
    rdb = f"RDB {fields.get('rdb_last_bgsave_status')}"
    return f"AOF {fields.get('aof_last_write_status')}, {rdb}" if fields["aof_enabled"] else f"no AOF, {rdb}"
