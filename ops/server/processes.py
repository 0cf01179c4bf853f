"""The web server: granian, told how this service starts, drains and stops."""

import errno
import logging
import multiprocessing
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from granian import Granian
from granian.constants import Interfaces
from granian.log import LogLevels

from onesource import children


class CannotListen(Exception):
    """BIND and PORT name no place where this machine can listen."""


def listening_address() -> str:
    """Return BIND as an IP address; raise CannotListen, in one line for the person who starts the service.

    Tried here: the workers share the port by SO_REUSEPORT, so a second server would get it without an error.
    """
    bind, port = settings.BIND.strip("[]"), settings.PORT
    try:
        found = socket.getaddrinfo(bind, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise CannotListen(f"BIND={bind} is not usable: {error.strerror}") from None
    family, *_, where = found[0]
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(where)
        except OSError as error:
            problem = f"BIND={bind} is not usable with PORT={port}: {error.strerror}"
            if error.errno == errno.EADDRINUSE:
                problem = f"port {port} is taken: another program listens on {bind}, stop it or set PORT"
            raise CannotListen(problem) from None
    return str(where[0])


def serve(address: str, announce: Callable[[], None]) -> None:
    """Answer requests until a signal; return when the last one is answered."""
    # A forked worker would inherit settings from before the stores were up, and metrics without their folder.
    multiprocessing.set_start_method("spawn", force=True)
    logging_config: dict[str, Any] = dict(settings.LOGGING)
    logging_config["loggers"] = {**logging_config["loggers"], "_granian": {}}  # it sets a level in there
    server = Granian(
        "onesource.wsgi:application",
        address=address,
        port=settings.PORT,
        interface=Interfaces.WSGI,
        workers=settings.WEB_CONCURRENCY,
        blocking_threads=settings.WEB_THREADS,
        backlog=2048,
        backpressure=1024,  # it counts open connections, idle ones too, so it is far above the threads
        respawn_failed_workers=True,
        workers_kill_timeout=settings.LLM_TIMEOUT_MS // 1000 + 5,  # an answer under way is worth waiting for
        log_level=LogLevels.error,  # until it has started: it would advise on numbers that we chose
        log_dictconfig=logging_config,
    )
    nohup = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN

    @server.on_startup
    def _() -> None:
        logging.getLogger("_granian").setLevel(logging.INFO)
        # Granian reloads on a hangup; for us the terminal is gone and so are we.
        signal.signal(signal.SIGHUP, signal.SIG_IGN if nohup else server.signal_handler_interrupt)
        threading.Thread(target=_when_open, args=(address, announce), daemon=True).start()

    try:
        server.serve(target_loader=_application, wrap_loader=False)
    except SystemExit:
        if not server.interrupt_signal:  # a worker that ended just before it was told to is no failure
            raise


def _application() -> WSGIHandler:
    """Return what a worker runs; called first thing in the worker."""
    # The parent hears what the terminal says and stops us by SIGTERM; a worker that is told twice hangs.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    parent = multiprocessing.parent_process()
    if parent and parent.pid:
        children.die_with_parent(parent.pid, signal.SIGKILL)  # nobody would be left to stop or replace us
    from onesource.wsgi import application

    return application


def _when_open(address: str, then: Callable[[], None]) -> None:
    """Call `then` when the first worker listens."""
    while True:
        try:
            socket.create_connection((address, settings.PORT), timeout=1).close()
            break
        except OSError:
            time.sleep(0.1)
    then()
