"""Everything that a row of the fault suite runs on: two real stores, a proxy before each, and the servers."""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.clusters import ClusterOfServers
from tests.faults.hosts import NAMES, MongoHost, Network, RedisHost
from tests.faults.proxy import Mode, Proxy
from tests.faults.service import ROOT, Service
from tests.sentinels import PASSWORD, Deployment
from tests.servers import MongoServer, RedisServer, Server, eventually

QUIET_SECONDS = 20.0  # breakers close within 5 s and count as recovering for 8 more; a watcher looks every second
_POLL_SECONDS = 0.2  # often enough for what happens every second
UNSHARED: AbstractContextManager[object] = nullcontext()  # no other process has a stack


@dataclass(frozen=True, slots=True)
class Route:
    """Where the servers send their traffic."""

    primary: str
    dual_write: bool = False

    def __str__(self) -> str:
        return f"{self.primary}{', dual write' if self.dual_write else ''}"


@dataclass(frozen=True, slots=True)
class Setup:
    """Which servers there are."""

    workers: int = 2
    clock_shifts: tuple[float, ...] = (0.0,)
    """A server for each, whose clock is so many seconds off."""
    hosts: bool = False
    """Whether two servers and the stores are on hosts of their own (hosts.py). Nothing is before the stores then."""
    sentinel: bool = False
    """Whether Redis is a primary with two replicas, which three sentinels watch. Nothing is before it then."""
    cluster: bool = False
    """Whether Redis is a cluster of three masters with a replica each. Nothing is before it then."""


class Stack:
    """Started once and used by one row after another, as a deployment lives through one fault after another."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.home = Path(tempfile.mkdtemp(prefix="onesource-faults-"))
        self.network = Network() if setup.hosts else None
        self.redis: RedisServer | Deployment | ClusterOfServers = self._redis()
        self.mongo = MongoHost(self.home / "mongo", self.network) if self.network else MongoServer(self.home / "mongo")
        self.links = [] if self.network else [self._link() for _ in setup.clock_shifts]
        """Each server's way to either store."""
        self.services = [
            Service(self.home / f"server{number}", clock_shift=shift, **self._place(number), **self._variables(number))
            for number, shift in enumerate(setup.clock_shifts)
        ]
        self.route = Route("redis")  # what is set where nothing is set
        self._operator: subprocess.Popen[str] | None = None

    @property
    def service(self) -> Service:
        return self.services[0]

    @property
    def ports(self) -> list[int]:
        return [service.port for service in self.services]

    def start(self) -> "Stack":
        if self.network:
            self.network.make()
        self.redis.start()
        self.mongo.start()
        for proxy in self._proxies:
            proxy.start()
        for service in self.services:
            service.start()
        self._start_operator()
        for service in self.services:
            service.wait()
        self._answer_line()
        return self

    def _redis(self) -> "RedisServer | Deployment | ClusterOfServers":
        if self.network:
            return RedisHost(self.home / "redis", self.network)
        if self.setup.cluster:
            return ClusterOfServers(self.home / "redis")
        return Deployment(self.home / "redis") if self.setup.sentinel else RedisServer(self.home / "redis")

    def _place(self, number: int) -> dict[str, Any]:
        """Return on which host a server is."""
        if not self.network:
            return {}
        return {"host": self.network.address(NAMES[number]), "on": self.network.on(NAMES[number])}

    def _link(self) -> dict[str, Proxy]:
        ports = {"mongo": self.mongo.port}
        if isinstance(self.redis, RedisServer):
            ports["redis"] = self.redis.port
        return {alias: Proxy(port) for alias, port in ports.items()}

    def nodes(self, alias: str) -> Sequence[Server]:
        """Return the servers that have the store's data."""
        return self.redis.nodes if alias == "redis" else [self.mongo]

    def freeze(self, alias: str) -> None:
        for node in self.nodes(alias):
            node.freeze()

    def thaw(self, alias: str) -> None:
        for node in self.nodes(alias):
            node.thaw()
        self.wait_until_whole(alias)

    def wait_until_whole(self, alias: str) -> None:
        """Return when all servers of a Redis are at work together again."""
        if alias == "redis":
            eventually(self.redis.is_whole, "the servers of Redis do not find each other", 30)

    def wire(self, alias: str, mode: Mode, milliseconds: int = 0) -> None:
        """Let every server's way to the store be so from now on. A Redis of several servers, which has no proxy before
        it, can be refused alone."""
        if alias == "redis" and not isinstance(self.redis, RedisServer):
            self._wire_itself(mode)
            return
        for link in self.links:
            link[alias].set(mode, milliseconds)

    def _wire_itself(self, mode: Mode) -> None:
        assert mode in (Mode.PASS, Mode.REFUSE)
        for node in self.redis.nodes:
            node.refuse() if mode is Mode.REFUSE else node.accept()
        if mode is Mode.PASS:
            self.wait_until_whole("redis")

    def uses_both(self, deadline: float) -> bool:
        """Return as soon as every server uses both stores again, or else False at the deadline."""
        return self._all(Service.uses_both, deadline)

    def is_quiet(self, deadline: float) -> bool:
        """Return as soon as nothing is left of a fault, or else False at the deadline."""
        return self._all(Service.is_quiet, deadline)

    def _all(self, true: Callable[[Service], bool], deadline: float) -> bool:
        while not all(true(service) for service in self.services):
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def is_repaired(self, route: Route) -> bool:
        """Return whether every server uses both stores, and reports that they have all that they should have."""
        return all(
            service.is_quiet()
            and not any(service.metric("unsynced_conversations"))
            and service.follows(route.primary, route.dual_write)
            for service in self.services
        )

    def make_quiet(self) -> None:
        """Return when nothing is left of an earlier row; servers that do not get there are started anew."""
        if self.is_quiet(time.monotonic() + QUIET_SECONDS):
            return
        for service in self.services:
            service.stop()
            service.start()
        for service in self.services:
            service.wait()

    def switch(self, route: Route) -> float:
        """Record a switch as an operator does; return when it was recorded, on the monotonic clock."""
        operator = self._operator
        assert operator and operator.stdin
        operator.stdin.write(f"{route.primary} {int(route.dual_write)}\n")
        operator.stdin.flush()
        at = float(self._answer_line())
        self.route = route
        return at

    def follow(self, route: Route) -> None:
        """Switch where that is needed, and return when every server follows."""
        if self.route != route:
            self.switch(route)
        deadline = time.monotonic() + QUIET_SECONDS
        while not all(service.follows(route.primary, route.dual_write) for service in self.services):
            assert time.monotonic() < deadline, f"a server does not follow a switch to {route}"
            time.sleep(_POLL_SECONDS)

    def stop(self) -> None:
        """Stop exactly what was started, and remove what it left."""
        if self._operator:
            self._operator.kill()  # it is idle, and a busy machine may let it take long to end by itself
            with suppress(OSError):
                self._operator.communicate()
        for service in self.services:
            service.stop()
        for proxy in self._proxies:
            proxy.stop()
        self.redis.kill()
        self.mongo.kill()
        if self.network:
            self.network.remove()
        shutil.rmtree(self.home, ignore_errors=True)

    @property
    def _proxies(self) -> list[Proxy]:
        return [proxy for link in self.links for proxy in link.values()]

    def _variables(self, number: int) -> dict[str, str]:
        if self.network:
            urls = {"REDIS_URL": self.redis.url, "MONGO_URL": self.mongo.url}
            return {**urls, "WEB_CONCURRENCY": str(self.setup.workers)}
        mongo = self.links[number]["mongo"].port
        if isinstance(self.redis, Deployment):
            redis = {"REDIS_URL": self.redis.url, "REDIS_SENTINEL_PASSWORD": PASSWORD}
        elif isinstance(self.redis, ClusterOfServers):
            redis = {"REDIS_URL": self.redis.url}
        else:
            redis = {"REDIS_URL": f"redis://127.0.0.1:{self.links[number]['redis'].port}/0"}
        return {
            **redis,
            # Direct, or the driver would ask where the replica set is and go round the proxy.
            "MONGO_URL": f"mongodb://127.0.0.1:{mongo}/onesource?directConnection=true",
            "WEB_CONCURRENCY": str(self.setup.workers),
        }

    def _start_operator(self) -> None:
        """Start it; it prints a line when it is ready."""
        with (self.home / "operator.log").open("ab") as log:
            self._operator = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.switcher"],
                cwd=ROOT,
                env=self.service.environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def _answer_line(self) -> str:
        assert self._operator and self._operator.stdout
        line = self._operator.stdout.readline()
        if not line:
            raise AssertionError(f"no switch could be recorded: {(self.home / 'operator.log').read_text()}")
        return line


class Stacks:
    """One stack at a time, kept for as long as rows ask for the same setup and nothing has spoiled it."""

    def __init__(self, alone: AbstractContextManager[object] = UNSHARED) -> None:
        """`alone` is held while a stack is started."""
        self._alone = alone
        self._stack: Stack | None = None

    def get(self, setup: Setup, route: Route) -> Stack:
        """Return a stack of this setup at rest, switched to that route."""
        if self._stack and self._stack.setup != setup:
            self.discard()
        if self._stack is None:
            self._stack = Stack(setup)
            with self._alone:
                self._stack.start()
        self._stack.make_quiet()
        self._stack.follow(route)
        return self._stack

    def discard(self) -> None:
        """Stop what runs: the next row begins with new stores and servers."""
        if self._stack:
            self._stack.stop()
            self._stack = None
