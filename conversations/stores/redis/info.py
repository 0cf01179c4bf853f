"""What Redis reports about itself, by INFO."""

from typing import Any

from redis.exceptions import ResponseError

from conversations.stores.info import StoreInfo
from conversations.stores.redis.client import histories
from conversations.stores.redis.faults import as_unavailable

_SECTIONS = ("memory", "clients", "replication", "persistence", "server")


def read(alias: str) -> StoreInfo:
    """Return memory, clients, replication and persistence; what an ACL forbids is left out. Raise StoreUnavailable."""
    fields = _fields(alias)
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


def _fields(alias: str) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    with as_unavailable(alias):
        client = histories().client.get_client(write=True)
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
    behind = [
        fields["master_repl_offset"] - replica["offset"]
        for name, replica in fields.items()
        if name.startswith("slave") and isinstance(replica, dict) and "offset" in replica
    ]
    return f"{max(behind)} bytes" if behind else None


def _persistence(fields: dict[str, Any]) -> str | None:
    if "aof_enabled" not in fields:
        return None
    rdb = f"RDB {fields.get('rdb_last_bgsave_status')}"
    return f"AOF {fields.get('aof_last_write_status')}, {rdb}" if fields["aof_enabled"] else f"no AOF, {rdb}"
