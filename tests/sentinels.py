"""A Redis behind sentinels of a test's own: redis-server runs as all of them."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from tests.servers import Group, RedisServer, Server, eventually, redis_binary, start_at_once

SERVICE = "mymaster"
# Without spaces: a sentinel writes it into its file unquoted, and could not start again.
PASSWORD = "of-the-sentinels-alone"  # noqa: S105


class SentinelServer(RedisServer):
    """One sentinel, with a password of its own. It takes a server that does not answer for out after `patience`
    milliseconds."""

    def __init__(self, directory: Path, primary: RedisServer, *, quorum: int = 1, patience: int = 60_000) -> None:
        super().__init__(directory)
        lines = (
            f"port {self.port}",
            "bind 127.0.0.1",
            f'requirepass "{PASSWORD}"',
            f'sentinel sentinel-pass "{PASSWORD}"',
            f"sentinel monitor {SERVICE} 127.0.0.1 {primary.port} {quorum}",
            f"sentinel down-after-milliseconds {SERVICE} {patience}",
            f"sentinel failover-timeout {SERVICE} 6000",
        )
        (directory / "sentinel.conf").write_text("\n".join(lines) + "\n")

    def command(self) -> list[str]:
        return [redis_binary(), str(self.directory / "sentinel.conf"), "--sentinel"]

    def client(self) -> "Redis":
        return Redis(host="127.0.0.1", port=self.port, password=PASSWORD, socket_timeout=5, decode_responses=True)


def url_of(sentinels: list[SentinelServer]) -> str:
    """Return the REDIS_URL of the service that these sentinels watch."""
    hosts = ",".join(f"127.0.0.1:{one.port}" for one in sentinels)
    return f"redis+sentinel://{hosts}/{SERVICE}/0"


class WatchedServer(RedisServer):
    """One server. Sentinels note in its file whom it follows, so that it is what it was when it starts again."""

    def __init__(self, directory: Path, *options: str, follows: RedisServer | None = None) -> None:
        super().__init__(directory, "--repl-diskless-sync-delay", "0", *options)
        self._file = directory / "redis.conf"
        self._file.write_text(f"replicaof 127.0.0.1 {follows.port}\n" if follows else "")

    def command(self) -> list[str]:
        binary, *options = super().command()
        return [binary, str(self._file), *options]


class Deployment(Group):
    """A primary, two replicas, and three sentinels of which two decide."""

    def __init__(self, home: Path, *options: str, patience: int = 1_000) -> None:
        first = WatchedServer(home / "redis-1", *options)
        self.nodes: list[RedisServer] = [
            first,
            *(WatchedServer(home / f"redis-{number}", *options, follows=first) for number in (2, 3)),
        ]
        self.sentinels = [
            SentinelServer(home / f"sentinel-{number}", first, quorum=2, patience=patience) for number in (1, 2, 3)
        ]

    @property
    def members(self) -> Sequence[Server]:
        return [*self.nodes, *self.sentinels]  # no sentinel sees a server that is not there yet, or is killed

    @property
    def masters(self) -> Sequence[RedisServer]:
        return [self.primary()]

    @property
    def url(self) -> str:
        return url_of(self.sentinels)

    def start(self) -> "Deployment":
        """Return when every replica follows and every sentinel knows them all."""
        start_at_once(self.nodes)
        start_at_once(self.sentinels)
        eventually(self.is_whole, "the sentinels do not know all")
        return self

    def client(self) -> "Redis":
        """Return a client of the primary."""
        return self.primary().client()

    def primary(self) -> RedisServer:
        """Return the server that the sentinels name."""
        with self.sentinels[0].client() as client:
            _, port = client.sentinel_get_master_addr_by_name(SERVICE)
        return next(server for server in self.nodes if server.port == int(port))

    def writable(self) -> list[RedisServer]:
        return [self.primary()]

    def owner(self, key: str) -> RedisServer:
        return self.primary()

    def replicas_of(self, server: RedisServer) -> list[RedisServer]:
        return [node for node in self.nodes if node is not server]

    @property
    def replicas(self) -> Sequence[RedisServer]:
        return self.replicas_of(self.primary())

    def promoted(self, before: RedisServer) -> RedisServer:
        """Return the server that is named in the place of this one, once it takes writes."""
        eventually(lambda: self.primary() is not before, "the sentinels name no other server")
        after = self.primary()
        eventually(lambda: _role(after) == "master", "the server that is named takes no writes")
        return after

    def fail_over(self) -> RedisServer:
        """Have the sentinels name another server while the primary answers; return that one."""
        before = self.primary()
        with self.sentinels[0].client() as client:
            client.execute_command("SENTINEL", "FAILOVER", SERVICE)
        return self.promoted(before)

    def is_whole(self) -> bool:
        """Return whether both replicas follow the primary, and every sentinel knows of all."""
        with suppress(RedisError):
            return self._is_whole()
        return False

    def _is_whole(self) -> bool:
        for sentinel in self.sentinels:
            with sentinel.client() as client:
                state = client.sentinel_master(SERVICE)
                if (state["num-slaves"], state["num-other-sentinels"]) != (2, 2):
                    return False
        with self.client() as client:
            replicas = client.info("replication")
        return [replicas.get(f"slave{number}", {}).get("state") for number in (0, 1)] == ["online"] * 2


def _role(server: RedisServer) -> str:
    with server.client() as client:
        try:
            return str(client.role()[0].decode())
        except RedisError:
            return "out"
