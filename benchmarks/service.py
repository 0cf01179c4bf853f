"""Stores of a benchmark's own, and processes that are set up as those of the web server are, which measure in them.

Each process has Django, the settings of a deployment, the folder of metrics that the server's workers share, and a
watcher; one more process repairs, as that of MANAGEMENT_PORT does, so that coverage is known and a read asks one store.
"""

import multiprocessing
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tests.faults.proxy import Mode, Proxy
from tests.servers import MongoServer, RedisServer, eventually

ROOT = Path(__file__).resolve().parent.parent
PROCESSES = 4
COMPLETE_SECONDS = 60.0
_spawn = multiprocessing.get_context("spawn")


class Stack:
    """A Redis, a MongoDB, and processes that serve them, with a round trip of so many milliseconds; a context
    manager."""

    def __init__(self, home: Path, processes: int = PROCESSES, distance_ms: int = 0, **variables: str) -> None:
        home.mkdir(parents=True)
        self.redis = RedisServer(home / "redis", aof=False)
        self.mongo = MongoServer(home / "mongo")
        self._distance_ms = distance_ms
        self._proxies = [Proxy(server.port) for server in (self.redis, self.mongo)] if distance_ms else []
        redis_port, mongo_port = [one.port for one in self._proxies or (self.redis, self.mongo)]
        # Direct, or the driver would ask where the replica set is and go round the proxy.
        direct = "?directConnection=true" if distance_ms else ""
        self.environment = {
            "REDIS_URL": f"redis://127.0.0.1:{redis_port}/0",
            "MONGO_URL": f"mongodb://127.0.0.1:{mongo_port}/onesource{direct}",
            "VAR_DIR": str(home / "var"),
            "SECRET_KEY": secrets.token_urlsafe(64), "CHAT_AUTH": "open", "CONV_MAX_TURNS": "20",
            "REDIS_SOCKET_TIMEOUT_MS": "2000", "MONGO_TIMEOUT_MS": "5000",  # a busy machine must not be an outage
            "DJANGO_SETTINGS_MODULE": "onesource.settings", "PROMETHEUS_MULTIPROC_DIR": str(home / "metrics"),
            **variables,
        }  # fmt: skip
        (home / "var").mkdir()
        (home / "metrics").mkdir()
        self._number = processes
        self.processes: list[Process] = []
        self._repairing: list[Process] = []

    def __enter__(self) -> "Stack":
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self) -> None:
        self.redis.start()
        self.mongo.start()
        for proxy in self._proxies:
            proxy.start().set(Mode.SLOW, self._distance_ms // 2)  # each way
        for database in ("default", "mongo"):
            subprocess.run([sys.executable, "manage.py", "migrate", f"--database={database}", "-v0"],
                           cwd=ROOT, env=os.environ | self.environment, check=True)  # fmt: skip
        self._repairing = [Process(self.environment, repairs=True)]
        for _ in range(self._number):
            self.processes.append(Process(self.environment))
        for process in self.processes:
            eventually(partial(process.call, is_complete), "coverage is not known", COMPLETE_SECONDS)

    def __exit__(self, *exception: object) -> None:
        for process in [*self.processes, *self._repairing]:
            process.end()
        for proxy in self._proxies:
            proxy.stop()
        self.redis.kill()
        self.mongo.kill()

    def first(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Have it done in the first process; return its answer."""
        return self.processes[0].call(work, *arguments)


class Process:
    """One process, which does what it is sent and answers."""

    def __init__(self, environment: dict[str, str], repairs: bool = False) -> None:
        self._connection, theirs = _spawn.Pipe()
        self._process = _spawn.Process(target=_work, args=(theirs, repairs), daemon=True)
        with _environment(environment):  # from its first import on
            self._process.start()
        theirs.close()

    def begin(self, work: Callable[..., Any], *arguments: Any) -> None:
        self._connection.send((work, arguments))

    def answer(self) -> Any:
        """Return the answer; raise what was raised there."""
        answer = self._connection.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def call(self, work: Callable[..., Any], *arguments: Any) -> Any:
        self.begin(work, *arguments)
        return self.answer()

    def end(self) -> None:
        self._connection.close()
        self._process.join(10)
        self._process.kill()


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _work(connection: Connection, repairs: bool) -> None:
    log = os.open(Path(os.environ["VAR_DIR"]) / f"log-{os.getpid()}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, sys.stderr.fileno())  # where a worker's log goes: a file costs what it costs
    import django

    django.setup()
    from conversations import deadline
    from conversations.background import watcher

    deadline.SECONDS = 20.0  # as the timeouts
    watcher.start(repairs=repairs)
    while True:
        try:
            work, arguments = connection.recv()
        except EOFError:
            os._exit(0)
        try:
            answer = work(*arguments)
        except Exception as error:
            answer = RuntimeError(f"{type(error).__name__}: {error}")
        connection.send(answer)


def is_complete() -> bool:
    """Return whether this process knows that the stores which should have every turn do."""
    from conversations.runtime.state import state

    process = state()
    return set(process.routing.wanted) <= process.known.complete


def wait_until(at: float) -> None:
    """Return at that time of the monotonic clock, which all processes share."""
    time.sleep(max(0.0, at - time.monotonic()))


def versions(names: Sequence[str]) -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in names}
