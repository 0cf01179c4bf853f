"""A Redis Cluster of a test's own: three masters, each with a replica."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from redis import Redis, RedisCluster
from redis.cluster import ClusterNode
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import RedisClusterException, RedisError

from tests.servers import Group, RedisServer, eventually, free_port, start_at_once

MASTERS = 3
PATIENCE = 1_000  # milliseconds after which a node that does not answer is out


class NodeServer(RedisServer):
    """One node. Its log is written, but never waited for."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.bus = free_port()
        super().__init__(
            directory, "--cluster-enabled", "yes", "--cluster-port", str(self.bus),
            "--cluster-node-timeout", str(PATIENCE), "--appendfsync", "no", "--repl-diskless-sync-delay", "0",
            "--cluster-replica-validity-factor", "0", "--cluster-allow-replica-migration", "no", *options,
        )  # fmt: skip

    def id(self) -> str:
        with self.client() as client:
            return str(client.execute_command("CLUSTER MYID").decode())

    def known(self) -> str:
        """Return the nodes that it knows, itself among them."""
        with self.client() as client:
            return str(client.execute_command("CLUSTER NODES"))

    def follows(self, master: "NodeServer") -> bool:
        with self.client() as client:
            return bool(client.info("replication").get("master_port") == master.port)

    def role(self) -> str:
        with self.client() as client:
            try:
                return str(client.role()[0].decode())
            except RedisError:
                return "out"


class ClusterOfServers(Group):
    """The masters, and for each the replica with the same number."""

    def __init__(self, home: Path, *options: str, replicas: bool = True) -> None:
        self.masters = [NodeServer(home / f"master-{number}", *options) for number in range(MASTERS)]
        self.replicas = [
            NodeServer(home / f"replica-{number}", *options) for number in range(MASTERS if replicas else 0)
        ]
        self._is_made = False

    @property
    def nodes(self) -> list[NodeServer]:
        return [*self.masters, *self.replicas]

    @property
    def members(self) -> Sequence[NodeServer]:
        return self.nodes

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def start(self) -> "ClusterOfServers":
        """Return when every slot has a master, and every replica follows."""
        start_at_once(self.nodes)
        if not self._is_made:
            self._make()
            self._is_made = True
        eventually(self.is_whole, "the cluster is not whole")
        return self

    def _make(self) -> None:
        for number, node in enumerate(self.nodes):
            with node.client() as client:
                client.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
        for node, (first, last) in zip(self.masters, _ranges(), strict=True):
            with node.client() as client:
                client.execute_command("CLUSTER ADDSLOTSRANGE", first, last)
        with self.masters[0].client() as client:
            for node in self.nodes[1:]:
                client.execute_command("CLUSTER MEET", "127.0.0.1", node.port, node.bus)
        eventually(lambda: all(_knows(node, len(self.nodes)) for node in self.nodes), "not every node knows all")
        for replica, master in zip(self.replicas, self.masters, strict=False):
            with replica.client() as client:
                client.execute_command("CLUSTER REPLICATE", master.id())

    def client(self) -> Any:
        nodes = [ClusterNode("127.0.0.1", node.port) for node in self.nodes]
        return RedisCluster(startup_nodes=nodes, socket_timeout=5)

    def owner(self, key: str) -> NodeServer:
        """Return the master that has the key's slot, as the nodes see it that answer."""
        return self.owner_of(key_slot(key.encode()))

    def writable(self) -> list[NodeServer]:
        """Return the masters that have slots."""
        ports = {port for _, _, port in self._ranges_seen()}
        return [node for node in self.nodes if node.port in ports]

    def replicas_of(self, master: NodeServer) -> list[NodeServer]:
        return [node for node in self.nodes if node.follows(master)]

    def owner_of(self, slot: int) -> NodeServer:
        for first, last, port in self._ranges_seen():
            if first <= slot <= last:
                return next(node for node in self.nodes if node.port == port)
        raise AssertionError(f"slot {slot} has no master")

    def is_whole(self) -> bool:
        """Return whether all slots have a master that takes writes, and every replica that runs follows one."""
        with suppress(RedisError):
            return self._is_whole()
        return False

    def _is_whole(self) -> bool:
        for node in self.nodes:
            if node.process is None:
                continue
            with node.client() as client:
                if client.cluster("INFO")["cluster_state"] != "ok":
                    return False
                replication = client.info("replication")
            if replication["role"] == "slave" and replication["master_link_status"] != "up":
                return False
        return True

    def promoted(self, before: NodeServer) -> None:
        """Return once another node has the slots of this one, and the cluster takes writes again."""
        others = [node for node in self.nodes if node is not before]

        def is_promoted() -> bool:
            writable = self.writable()
            return len(writable) == MASTERS and before not in writable and all(_is_ok(node) for node in others)

        eventually(is_promoted, "no replica was promoted")

    def move(self, slot: int, source: NodeServer, target: NodeServer, *, pause: Any = None) -> None:
        """Move a slot with its keys, one key at a time; in between, call `pause`."""
        with source.client() as old, target.client() as new:
            new.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", source.id())
            old.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", target.id())
            while keys := old.execute_command("CLUSTER GETKEYSINSLOT", slot, 1):
                old.migrate("127.0.0.1", target.port, keys, 0, 5000)
                if pause:
                    pause()
            for node in (new, old):
                node.execute_command("CLUSTER SETSLOT", slot, "NODE", target.id())

    def _ranges_seen(self) -> Iterator[tuple[int, int, int]]:
        for node in self.nodes:
            with suppress(RedisError), Redis(port=node.port, socket_timeout=0.5) as client:
                seen: Sequence[Any] = client.execute_command("CLUSTER SLOTS")
                yield from ((int(one[0]), int(one[1]), int(one[2][1])) for one in seen)
                return


def _ranges() -> list[tuple[int, int]]:
    each = REDIS_CLUSTER_HASH_SLOTS // MASTERS
    ends = [number * each - 1 for number in range(1, MASTERS)] + [REDIS_CLUSTER_HASH_SLOTS - 1]
    return list(zip([0, *(end + 1 for end in ends[:-1])], ends, strict=True))


def _knows(node: NodeServer, number: int) -> bool:
    with node.client() as client:
        known = client.cluster("NODES")
    return len(known) == number and not any("handshake" in one["flags"] for one in known.values())


def _is_ok(node: NodeServer) -> bool:
    try:
        with Redis(port=node.port, socket_timeout=0.5) as client:
            return bool(client.cluster("INFO")["cluster_state"] == "ok")
    except (RedisError, RedisClusterException):
        return node.process is None
