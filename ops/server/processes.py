"""The processes of the web server: workers for chat, one for the management port, each replaced when it ends."""

import errno
import logging
import multiprocessing
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from typing import NoReturn

from django.conf import settings
from django.utils.module_loading import import_string

from embedded import children
from ops.errors import CannotListen

RESPAWN_SECONDS = 1.0  # between two starts of a worker that does not stay up
_TICK_SECONDS = 0.2
_KILL_SECONDS = 5  # beyond what a worker has for its last answers
_BACKLOG = 2048
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# A forked worker would inherit settings from before the stores were up, and metrics without their folder.
_spawn = multiprocessing.get_context("spawn")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Listening:
    """Where a process listens; several share one port by SO_REUSEPORT."""

    address: str
    port: int
    probes_only: bool = False

    def open(self) -> socket.socket:
        """Return a listening socket; raise OSError."""
        listening = _socket(self.address)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.bind((self.address, self.port))
        listening.listen(_BACKLOG)
        return listening

    def answers(self) -> bool:
        """Return whether another program listens there."""
        try:
            socket.create_connection((self.address, self.port), timeout=1).close()
        except OSError:
            return False
        return True


def places() -> tuple[Listening, Listening]:
    """Return where to listen for everybody and for probes; raise CannotListen.

    Tried here: a second server would share the port by SO_REUSEPORT, without an error.
    """
    return (
        Listening(_free("PORT", settings.PORT), settings.PORT),
        Listening(_free("MANAGEMENT_PORT", settings.MANAGEMENT_PORT), settings.MANAGEMENT_PORT, probes_only=True),
    )


def serve(public: Listening, management: Listening, announce: Callable[[], None]) -> None:
    """Answer requests until a signal; return when the last one is answered.

    A worker has as long for its last answers as a model may take, then it is ended.
    """
    workers = [Worker(public) for _ in range(settings.WEB_CONCURRENCY)] + [Worker(management)]
    signals: list[int] = []  # an Event's lock would wait for ever in a handler that interrupts another one
    for each in _SIGNALS:
        if signal.getsignal(each) != signal.SIG_IGN:  # nohup stays nohup
            signal.signal(each, lambda number, _: signals.append(number))
    ending = threading.Event()
    opening = threading.Thread(target=_when_open, args=((public, management), ending, announce), daemon=True)
    opening.start()
    try:
        while not signals:
            for worker in workers:
                worker.keep()
            wait([worker.sentinel for worker in workers if worker.sentinel], _TICK_SECONDS)
    finally:
        ending.set()
        _end(workers)
        opening.join()


@dataclass
class Worker:
    """One process, started again whenever it has ended."""

    listening: Listening
    _process: SpawnProcess | None = None
    _started_at: float = field(default=-RESPAWN_SECONDS)

    @property
    def sentinel(self) -> int | None:
        """What becomes ready when the process ends; None while there is none."""
        return self._process.sentinel if self._process and self._process.is_alive() else None

    def keep(self) -> None:
        """Start the process if it is not running, at most once in RESPAWN_SECONDS."""
        if self.sentinel is not None or time.monotonic() < self._started_at + RESPAWN_SECONDS:
            return
        if self._process:
            fields = {"port": self.listening.port, "exit_code": self._process.exitcode}
            logger.error("worker_ended", extra=fields)
        self._started_at = time.monotonic()
        self._process = _spawn.Process(target=_work, args=(self.listening,), name=f"port {self.listening.port}")
        self._process.start()

    def terminate(self) -> None:
        if self._process:
            self._process.terminate()

    def join(self, deadline: float) -> None:
        """Wait for the end of the process until the deadline, then end it."""
        if self._process:
            self._process.join(max(0.0, deadline - time.monotonic()))
            self._process.kill()
            self._process.join()


def _end(workers: list[Worker]) -> None:
    deadline = time.monotonic() + drain_seconds() + _KILL_SECONDS
    for worker in workers:
        worker.terminate()
    for worker in workers:
        worker.join(deadline)


def drain_seconds() -> int:
    """Return how long a worker may go on answering after it was asked to stop, as a model's answer takes its time."""
    return int(settings.LLM_TIMEOUT_MS) // 1000 + 5


def _work(listening: Listening) -> None:
    """Be a worker. Django is imported here, where the settings know the embedded stores."""
    # The parent gets what the terminal sends, and ends us by SIGTERM, which waits until uvicorn handles it.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    # uvicorn raises it again at its end, and the default handler would skip what follows.
    signal.signal(signal.SIGTERM, _leave)
    parent = multiprocessing.parent_process()
    if parent and parent.pid:
        children.die_with_parent(parent.pid, signal.SIGKILL)  # nothing would stop or replace us
    application = import_string(settings.WSGI_APPLICATION)  # first: it sets Django up
    from conversations.background import watcher
    from ops import ledger
    from ops.server import asgi
    from ops.status import day, window
    from telemetry import traces

    watcher.start(repairs=listening.probes_only)  # in the process that answers no chat
    if listening.probes_only:
        ledger.start()  # there too: it is the only one that uses `default` by itself
        window.start()
        day.start()
    with traces.exported():
        asgi.run(application, listening)


def _leave(*_: object) -> NoReturn:
    """End this process in order; a second signal must not interrupt that."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit()


def _free(name: str, port: int) -> str:
    """Return BIND as an IP address where the port is free; raise CannotListen."""
    bind = settings.BIND.strip("[]")
    try:
        found = socket.getaddrinfo(bind, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise CannotListen(f"BIND={bind} is not usable: {error.strerror}") from None
    address = str(found[0][4][0])
    with _socket(address) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            problem = f"BIND={bind} is not usable with {name}={port}: {error.strerror}"
            if error.errno == errno.EADDRINUSE:
                also = " (script/server: --port)" if name == "PORT" else ""
                problem = f"port {port} is taken: another program listens on {bind}, stop it or set {name}{also}"
            raise CannotListen(problem) from None
    return address


def _socket(address: str) -> socket.socket:
    return socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)


def _when_open(places: tuple[Listening, ...], ending: threading.Event, then: Callable[[], None]) -> None:
    """Call `then` when every place has a worker that listens, unless the end comes first."""
    while not ending.is_set():
        if all(place.answers() for place in places):
            then()
            return
        ending.wait(0.1)
