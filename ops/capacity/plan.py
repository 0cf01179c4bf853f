"""The model: values in, a plan out. It asks no store and reads no setting.

All sizes are bytes. What is measured is in measured.py; what is chosen, as how full a node may be, is here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

from conversations.background import scrub
from conversations.history import walk
from conversations.turns import Limits
from ops.capacity.measured import (
    BACKUP,
    HTTP_ASKS,
    MONGO_BYTE,
    MONGO_DOCUMENT,
    MONGO_TURN,
    RECONCILE,
    REDIS_GROWN,
    REDIS_IDEMPOTENCY,
    REDIS_KEY,
    REDIS_KEYS,
    REDIS_PLACE,
    REDIS_TURN,
    REDIS_TURN_BYTES,
    REPAIR,
    STATUS,
    TRIM,
)

DAY = 86_400
REDIS_MEMORY = 0.5 * 0.8
"""Part of a node's memory that conversations may take: maxmemory is half of it, and 80 % of that is the alert."""
DISK, CPU, NETWORK = 0.7, 0.6, 0.5
"""Parts of a node that may be used."""
MEMBERS = 3  # of a replica set
START = 0.9  # seconds of a command before it asks a store
CLUSTER = 1000  # servers, by Redis' own documentation
KEYS_KEPT = 1000  # Idempotency-Keys of a conversation
HOUR, NIGHT, OUTAGE = 3600, 8 * 3600, 60
"""Seconds in which a backup has to end, and those of the outage whose repair has to end within an hour."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What is to be held and answered."""

    conversations: int
    asks_per_second: float
    messages: int = 16
    """Of a conversation, on average."""
    bytes_per_message: int = 250
    """As it is stored, about 110 more than its text."""
    tenants: int = 1


@dataclass(frozen=True, slots=True)
class Node:
    """What a machine has, of each kind."""

    cores: int = 8
    memory: int = 64 * 10**9
    disk: int = 2 * 10**12
    network: float = 10 * 10**9 / 8
    """Bytes a second, in each direction."""


@dataclass(frozen=True, slots=True)
class Share:
    """A resource, and the part of it that is used: 1 is all that may be."""

    what: str
    used: float
    cure: str

    def times(self) -> float:
        """Return how many times as much the resource carries."""
        return 1 / self.used if self.used else float("inf")


@dataclass(frozen=True, slots=True)
class Nodes:
    """How many nodes of a kind, and what of them is used most."""

    kind: str
    number: int
    """Those among which the work is divided: masters, shards, machines."""
    servers: int
    """With replicas."""
    shares: tuple[Share, ...]

    @property
    def fullest(self) -> Share:
        return max(self.shares, key=lambda share: share.used)


@dataclass(frozen=True, slots=True)
class Plan:
    """What it takes."""

    demand: Demand
    node: Node
    stored: int
    """Bytes of messages that are kept of a conversation."""
    redis_each: int
    redis_keys: int
    """Bytes of the Idempotency-Keys of a day where each ask has one."""
    mongo_each: int
    turns_a_core: dict[str, int]
    redis: Nodes
    mongo: Nodes
    service: Nodes
    processes: int
    limits: tuple[Share, ...]
    """What more nodes do not widen."""
    commands: dict[str, float]
    """Seconds that the commands take which read every conversation."""
    turns_each: float
    """Turns that a conversation gets within its TTL."""

    @property
    def redis_bytes(self) -> int:
        return self.demand.conversations * self.redis_each + self.redis_keys

    @property
    def mongo_bytes(self) -> int:
        """On each member: a replica set has them three times."""
        return self.demand.conversations * self.mongo_each

    @property
    def shares(self) -> list[Share]:
        """All, the one that ends first before the others."""
        parts = [*self.limits, *(share for each in (self.redis, self.mongo, self.service) for share in each.shares)]
        return sorted(parts, key=lambda share: -share.used)


def foresee(demand: Demand, node: Node, window: Limits) -> Plan:
    """Return what the demand takes on such nodes."""
    stored, redis_each = stored_bytes(demand, window), redis_bytes(demand, window)
    keys, mongo_each = key_bytes(demand), mongo_bytes(demand, window)
    per_core = {"redis": _a_core(REDIS_TURN.value), "mongo": _a_core(MONGO_TURN.value), "service": HTTP_ASKS.value / 2}
    redis = _redis(demand, node, demand.conversations * redis_each + keys, stored)
    mongo = _mongo(demand, node, demand.conversations * mongo_each)
    processes = max(2, ceil(demand.asks_per_second / (per_core["service"] * CPU)))
    return Plan(
        demand, node, stored, redis_each, keys, mongo_each,
        {name: int(value) for name, value in per_core.items()},
        redis, mongo, _service(demand, node, processes, stored), processes,
        tuple(_limits(demand, node, redis.servers)), _commands(demand),
        demand.asks_per_second * window.ttl / demand.conversations,
    )  # fmt: skip


def stored_bytes(demand: Demand, window: Limits) -> int:
    """Return the bytes of messages that are kept of a conversation."""
    kept = min(demand.messages, 2 * window.max_turns)
    return min(kept * demand.bytes_per_message, max(window.max_bytes, 2 * demand.bytes_per_message))


def redis_bytes(demand: Demand, window: Limits) -> int:
    """Return what a conversation takes of Redis' memory, with its place in the list."""
    grown = REDIS_GROWN.value if demand.messages >= 2 * window.max_turns else 1.0
    string = allocated(ceil(stored_bytes(demand, window) * grown) + 6)  # the string's own head and end
    return string + int(REDIS_KEY.value + REDIS_PLACE.value)


def key_bytes(demand: Demand) -> int:
    """Return what a day's Idempotency-Keys take where each ask has one."""
    keys = min(demand.asks_per_second * DAY, demand.conversations * KEYS_KEPT)
    return ceil(min(demand.conversations, keys) * REDIS_KEYS.value + keys * REDIS_IDEMPOTENCY.value)


def mongo_bytes(demand: Demand, window: Limits) -> int:
    """Return what a conversation takes on the disk of a member."""
    return ceil(MONGO_DOCUMENT.value + MONGO_BYTE.value * stored_bytes(demand, window))


def allocated(size: int) -> int:
    """Return what jemalloc gives for so many bytes: four sizes from one power of two to the next, from 16 on."""
    if size <= 128:
        return max(16, -size // 16 * -16)
    step = 1 << ((size - 1).bit_length() - 3)
    return -size // step * -step


def _a_core(microseconds: float) -> float:
    return 1e6 / microseconds


def _redis(demand: Demand, node: Node, size: int, stored: int) -> Nodes:
    """Redis' servers: its work is done by one core of each."""
    turn = stored + 2 * demand.bytes_per_message + REDIS_TURN_BYTES.value
    whole = {
        "memory of Redis": size / (node.memory * REDIS_MEMORY),
        "the one core of Redis": demand.asks_per_second * REDIS_TURN.value / 1e6 / CPU,
        "network of Redis": demand.asks_per_second * turn / (node.network * NETWORK),
    }
    masters = max(1, ceil(max(whole.values())))
    masters = max(3, masters) if masters > 1 else 1
    servers = masters * 2 if masters > 1 else 3
    return Nodes("Redis", masters, servers, _shares(whole, masters, "more masters, and a resharding"))


def _mongo(demand: Demand, node: Node, size: int) -> Nodes:
    turn = 2 * demand.bytes_per_message + REDIS_TURN_BYTES.value  # as bytes on the network as in Redis, unread
    whole = {
        "disk of MongoDB": size / (node.disk * DISK),
        "cores of MongoDB": demand.asks_per_second * MONGO_TURN.value / 1e6 / (node.cores * CPU),
        "network of MongoDB": demand.asks_per_second * turn * MEMBERS / (node.network * NETWORK),
    }
    shards = max(1, ceil(max(whole.values())))
    servers = shards * MEMBERS + (MEMBERS if shards > 1 else 0)
    return Nodes("MongoDB", shards, servers, _shares(whole, shards, "more shards"))


def _service(demand: Demand, node: Node, processes: int, stored: int) -> Nodes:
    """The service's machines, a process a core."""
    turn = stored + 6 * demand.bytes_per_message + 3 * REDIS_TURN_BYTES.value  # its client, Redis and MongoDB
    asks = demand.asks_per_second
    whole = {
        "cores of the service": asks / (HTTP_ASKS.value / 2 * CPU * node.cores),
        "network of the service": asks * turn / (node.network * NETWORK),
    }
    machines = max(2, ceil(processes / node.cores), ceil(max(whole.values())))
    return Nodes("service", machines, machines, _shares(whole, machines, "more processes"))


def _shares(whole: dict[str, float], number: int, cure: str) -> tuple[Share, ...]:
    return tuple(Share(what, used / number, cure) for what, used in whole.items())


def _commands(demand: Demand) -> dict[str, float]:
    each = {"status": STATUS, "trim --older-than": TRIM, "reconcile": RECONCILE, "backup": BACKUP}
    return {name: START + demand.conversations * figure.value / 1000 for name, figure in each.items()}


def _limits(demand: Demand, node: Node, servers: int) -> Iterator[Share]:
    """Yield what more nodes do not widen: one sorted set, and what one process does at a time."""
    place = demand.conversations / demand.tenants * REDIS_PLACE.value / (node.memory * REDIS_MEMORY)
    yield Share("the list of a tenant, one key of Redis", place, "more tenants, or nodes of Redis with more memory")
    yield Share(
        "servers of one Redis Cluster", servers / CLUSTER, "nodes of Redis with more memory, or several services"
    )
    walks = 1 if demand.conversations <= walk.MOST_SEEN else 2  # what is no longer known is compared in both stores
    compared = demand.conversations * walks / walk.PAGE * scrub.PAUSE / scrub.EVERY
    yield Share("a scrub in a day, by one process", compared, "none: what it finds is found days later")
    unsynced = min(demand.asks_per_second * OUTAGE, demand.conversations)
    repaired = unsynced * REPAIR.value / 1000 / HOUR
    yield Share("repair of a minute's outage in an hour", repaired, "several services, with stores of their own")
    saved = demand.conversations * BACKUP.value / 1000 / NIGHT
    yield Share("`backup` in a night, by one process", saved, "snapshots by Redis and MongoDB themselves")
