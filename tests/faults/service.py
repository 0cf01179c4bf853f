"""`manage.py serve` as a process of its own, on stores that it did not start: asked, killed, started again."""

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from tests.faults.answering import SHOWN
from tests.servers import eventually, free_port

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0  # seconds: two busy cores start a server slowly
_OURS = ("ADMIN_", "BACKUP_", "REDIS_", "MONGO_", "CONV_", "CHAT_", "OIDC_", "TENANT_", "WEB_", "LLM_", "DATABASE_URL",
         "PROMETHEUS_", "DJANGO_", "ANSWERER", "SECRET_KEY", "VAR_DIR", "REPLICAS", "PORT", "MANAGEMENT_PORT", "BIND",
         "HTTPS", "DEBUG", "PYTHONPATH", "CLOCK_", "OTEL_")  # fmt: skip


class Service:
    """One server with its workers, its own folder and port, as on a machine of its own."""

    def __init__(
        self,
        home: Path,
        *,
        clock_shift: float = 0.0,
        host: str = "127.0.0.1",
        on: tuple[str, ...] = (),
        **variables: str,
    ) -> None:
        """`host` is the address of the host that it is on, and `on` what a command begins with that runs there."""
        self.home = home
        self.host = host
        self._on = on
        self.home.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.management_port = free_port()
        self.log = home / "server.log"
        self.shown = home / SHOWN
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
        self.environment = inherited | {
            "VAR_DIR": str(home),
            "PORT": str(self.port),
            "MANAGEMENT_PORT": str(self.management_port),
            "BIND": host,
            "ALLOWED_HOSTS": f"localhost,{host}",
            "SECRET_KEY": "of the fault suite, which no other deployment has as its own",
            "CHAT_AUTH": "open",
            "ANSWERER": "tests.faults.answering.Unique",
            "CONV_MAX_TURNS": "1000",  # nothing is trimmed, so what is missing is lost
            "CONV_MAX_BYTES": "10000000",
            "WEB_THREADS": "24",
            **variables,
        }
        if clock_shift:
            self.environment |= {
                "CLOCK_SHIFT": str(clock_shift),
                "PYTHONPATH": str(Path(__file__).parent / "clock"),
            }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> "Service":
        """Start the process; `wait` returns when it serves."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._on, sys.executable, "manage.py", "serve"],
                env=self.environment,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        return self

    def wait(self, status: str = "ok") -> None:
        """Return once every worker answers, with its stores in this state."""
        eventually(lambda: self._all(lambda health: health["status"] == status),
                   f"the server is not {status}: see {self.log}", PATIENCE)  # fmt: skip

    def follows(self, primary: str, dual_write: bool) -> bool:
        """Return whether every worker sends traffic there, and knows that the stores which are wanted hold everything:
        as sure as a dozen new connections make it."""
        wanted = ("redis", "mongo") if dual_write else (primary,)
        return self._all(
            lambda health: (
                (health["primary"], health["dual_write"]) == (primary, dual_write)
                and all(health["stores"][alias]["complete"] for alias in wanted)
            )
        )

    def uses_both(self) -> bool:
        """Return whether no worker holds back calls of a store, and all see both stores."""
        return self._none("breaker_open") and self._all(lambda health: health["status"] == "ok")

    def is_quiet(self) -> bool:
        """Return whether nor has any in the last seconds: what is broken now is no second fault."""
        return self.uses_both() and self._none("store_recovering")

    def _none(self, name: str) -> bool:
        try:
            values = list(self.metric(name))
        except (OSError, http.client.HTTPException):
            return False
        return values != [] and not any(values)

    def metric(self, name: str) -> Iterator[float]:
        """Yield the metric's values, one a series, of all workers together."""
        _, _, body = self.request("GET", "/metrics")
        for line in body.decode().splitlines():
            if line.startswith((f"{name}{{", f"{name} ")):
                yield float(line.rpartition(" ")[2])

    def errors_of(self, alias: str) -> float:
        """Return how many calls to the store have failed in all workers together."""
        _, _, body = self.request("GET", "/metrics")
        lines = [line for line in body.decode().splitlines() if line.startswith("store_errors_total{")]
        return sum(float(line.rpartition(" ")[2]) for line in lines if f'store="{alias}"' in line)

    def request(self, method: str, path: str, *, port: int | None = None) -> tuple[int, Any, bytes]:
        """Return status, headers and body of a request on a connection of its own; the port is the public one."""
        connection = http.client.HTTPConnection(self.host, port or self.port, timeout=10)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, response.headers, response.read()
        finally:
            connection.close()

    def workers(self) -> list[psutil.Process]:
        """Return the worker processes; beside them multiprocessing has one that serves no client."""
        if not self._process:
            return []
        children = psutil.Process(self._process.pid).children(recursive=True)
        return [child for child in children if _is_worker(child)]

    def kill_worker(self) -> None:
        """End the oldest worker at once; the server replaces it."""
        victim = min(self.workers(), key=lambda worker: worker.create_time())
        victim.kill()
        with suppress(psutil.TimeoutExpired):
            victim.wait(5)  # its parent reaps it

    def kill(self) -> None:
        """End the server at once; return when its workers, which do not outlive it, are gone too."""
        self._end(signal.SIGKILL)

    def ask_to_stop(self) -> "subprocess.Popen[bytes]":
        """Tell the server to stop; return its process, which ends when its last answer is sent."""
        assert self._process
        self._process.terminate()
        return self._process

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def _end(self, sig: int) -> None:
        if not self._process:
            return
        tree: list[psutil.Process] = []
        with suppress(psutil.NoSuchProcess):
            tree = psutil.Process(self._process.pid).children(recursive=True)
        self._process.send_signal(sig)
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        _, left = psutil.wait_procs(tree, timeout=5)
        for child in left:
            child.kill()
        self._process = None

    def _all(self, true: Any) -> bool:
        """Return whether a dozen answers of /healthz in a row, each on a new connection, are so."""
        try:
            for _ in range(12):
                _, _, body = self.request("GET", "/healthz")
                if not true(json.loads(body)):
                    return False
        except (OSError, http.client.HTTPException, ValueError, KeyError):
            return False
        return True


def _is_worker(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        command = process.cmdline()
        return any("spawn_main" in word for word in command)
    return False
