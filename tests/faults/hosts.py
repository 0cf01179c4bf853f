"""Hosts of a test's own: a network namespace each, on one bridge, between which links can be cut.

A cut link drops what is sent over it, and nothing refuses or resets: the deadlines have to find out.
"""

import os
import secrets
import shutil
import subprocess
from contextlib import suppress
from functools import cache
from pathlib import Path

from tests.servers import MongoServer, RedisServer

NAMES = ("a", "b", "redis", "mongo")
"""Two servers of onesource, and the two stores."""
_NOBODY = "02:00:00:00:00:99"  # an address of the link that no host has


@cache
def impossible() -> str:
    """Return why no network namespace can be made here, "" where one can."""
    if os.geteuid() or not shutil.which("ip"):
        return "it needs root, and ip of iproute2"
    network = Network()
    try:
        network.make()
    except subprocess.CalledProcessError as error:
        return f"{' '.join(error.cmd)}: {error.stderr.strip()}"
    finally:
        network.remove()
    return ""


class Network:
    """The hosts, whose names begin alike and differ from those of every other network."""

    def __init__(self) -> None:
        word = secrets.token_hex(3)
        self._bridge = f"osf{word}"
        self._subnet = f"10.{secrets.randbelow(64) + 160}.{secrets.randbelow(256)}"

    def make(self) -> "Network":
        """Make all of it; raise CalledProcessError."""
        _ip("link", "add", self._bridge, "type", "bridge")
        _ip("addr", "add", f"{self._subnet}.1/24", "dev", self._bridge)
        _ip("link", "set", self._bridge, "up")
        for name in NAMES:
            here, there = self._cable(name), self.namespace(name)
            _ip("netns", "add", there)
            _ip("link", "add", here, "type", "veth", "peer", "name", "eth0", "netns", there)
            _ip("link", "set", here, "master", self._bridge, "up")
            _ip("-n", there, "addr", "add", f"{self.address(name)}/24", "dev", "eth0")
            _ip("-n", there, "link", "set", "eth0", "up")
            _ip("-n", there, "link", "set", "lo", "up")
        return self

    def remove(self) -> None:
        """Remove what there is of it."""
        for name in NAMES:
            with suppress(subprocess.CalledProcessError):
                _ip("netns", "del", self.namespace(name))  # and its cable with it
        with suppress(subprocess.CalledProcessError):
            _ip("link", "del", self._bridge)

    def namespace(self, name: str) -> str:
        return f"{self._bridge}-{name}"

    def address(self, name: str) -> str:
        return f"{self._subnet}.{NAMES.index(name) + 2}"

    def on(self, name: str) -> tuple[str, ...]:
        """Return what a command begins with that runs on the host, under a host name of its own."""
        named = 'hostname "$0"; exec "$@"'
        return ("ip", "netns", "exec", self.namespace(name), "unshare", "--uts", "sh", "-c", named, f"host-{name}")

    def cut(self, one: str, other: str) -> None:
        """Drop all that two hosts send each other from now on, both ways."""
        for here, there in ((one, other), (other, one)):
            where = ("neigh", "replace", self.address(there), "lladdr", _NOBODY, "dev", "eth0", "nud", "permanent")
            _ip("-n", self.namespace(here), *where)

    def mend(self, one: str, other: str) -> None:
        """Let them reach each other again."""
        for here, there in ((one, other), (other, one)):
            _ip("-n", self.namespace(here), "neigh", "del", self.address(there), "dev", "eth0")

    def _cable(self, name: str) -> str:
        return f"{self._bridge}{NAMES.index(name)}"


class RedisHost(RedisServer):
    """A redis-server on a host of its own."""

    def __init__(self, directory: Path, network: Network) -> None:
        super().__init__(directory, "--protected-mode", "no")
        self._network = network

    @property
    def url(self) -> str:
        return f"redis://{self._network.address('redis')}:{self.port}/0"

    def command(self) -> list[str]:
        return [*self._network.on("redis"), *super().command(), "--bind", self._network.address("redis")]


class MongoHost(MongoServer):
    """A MongoDB on a host of its own."""

    def __init__(self, directory: Path, network: Network) -> None:
        super().__init__(directory, "--host", network.address("mongo"))
        self._network = network
        self.host = network.address("mongo")

    @property
    def url(self) -> str:
        return f"mongodb://{self.host}:{self.port}/onesource?directConnection=true"

    def command(self) -> list[str]:
        return [*self._network.on("mongo"), *super().command()]


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)
