"""The stores that `manage.py serve` starts where no variable names one, so that one command is enough.

Settings import this module before Django is set up, so it imports nothing of Django.
"""

import fcntl
import json
import logging
import os
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from embedded.children import ADDRESS, Child, Mongo, Redis, keep_secret, make_private, write_private
from embedded.errors import EmbeddedError
from embedded.requests import FREEZE, START, STOP, Requests

UNUSED_PORT = 9  # "discard": privileged and unused, so a connection is refused and reaches no other program
HANDOVER_SECONDS = 5  # for a serve that is about to end
LOOK_SECONDS = 0.5  # between two looks at the children
RESTART_PAUSE_SECONDS = 3

logger = logging.getLogger(__name__)


def url(var_dir: Path, name: str) -> str:
    """Return where the running `manage.py serve` has this store; without one, an address that refuses."""
    if _is_held(var_dir / "serve.lock"):
        with suppress(OSError, ValueError, KeyError):
            return str(json.loads((var_dir / "embedded.json").read_text())[name])
    return ADDRESS[name].format(login="", port=UNUSED_PORT)


def dev_secret(var_dir: Path) -> str:
    """Return this folder's secret, made on first use; processes that start at once all get the same one."""
    make_private(var_dir)
    path = var_dir / "secret_key"
    try:
        return keep_secret(path)
    except OSError as error:
        raise EmbeddedError(f"{path} cannot be used: {error.strerror}; set SECRET_KEY or VAR_DIR") from None


def refuse_second(var_dir: Path) -> None:
    """Raise EmbeddedError where a serve that has this folder answers; `start` waits for one that is ending."""
    with suppress(FileNotFoundError, PermissionError), (var_dir / "serve.lock").open() as file:
        if not _try_lock(file.fileno(), fcntl.LOCK_SH):
            _refuse_served(file.fileno())


def start(var_dir: Path, *, redis: bool, mongo: bool, lasting: bool = True) -> "Stores":
    """Return the wanted stores once they answer; raise EmbeddedError with none of them left running.

    One serve at a time has a var_dir, whether or not it embeds anything: its files are in there too. Stores that
    are not `lasting` are for a trial: small, quick, and without data once their process has ended.
    """
    var_dir = var_dir.absolute()
    make_private(var_dir)
    stores = Stores(var_dir)
    wanted: list[type[Child]] = [Redis] * redis + [Mongo] * mongo
    try:
        stores.start([kind(var_dir, lasting=lasting) for kind in wanted])
    except BaseException as error:  # also the SystemExit of a signal: no child may be left
        stores.stop()
        if isinstance(error, OSError):
            raise EmbeddedError(f"the embedded stores cannot be started: {error}") from error
        raise
    return stores


class Stores:
    """The running children. One that crashes is started again; one that is shut down, by `revive` or a request."""

    def __init__(self, var_dir: Path) -> None:
        self._children: list[Child] = []
        self._lock = _take(var_dir / "serve.lock")
        self._requests = Requests(var_dir)
        self._file = var_dir / "embedded.json"
        self._stopping = threading.Event()
        self._revive = False  # no Event: its lock would wait for ever in a handler that interrupts another one
        self._to_start: set[str] = set()
        """Those that were shut down and are requested to start: they may not have ended yet."""
        # It must not end before this process: the kernel ends a child with the thread that started it.
        self._watcher = threading.Thread(target=self._watch, name="embedded", daemon=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    @property
    def urls(self) -> dict[str, str]:
        return {child.name: child.url for child in self._children}

    def start(self, children: list[Child]) -> None:
        self._file.unlink(missing_ok=True)  # left by a serve that was killed
        self._children = children
        for child in children:
            child.launch(self._lock)
        for child in children:
            child.wait_for_answer(self._lock)
        write_private(self._file, json.dumps({"pid": os.getpid(), **self.urls}))
        self._watcher.start()

    def publish(self, address: str) -> None:
        """Note in the lock where the web server answers, for who starts a second one."""
        os.pwrite(self._lock, f"{os.getpid()} {address}".encode(), 0)

    def revive(self) -> None:
        """Start again what was shut down on purpose; safe to call from a signal handler."""
        self._revive = True

    def stop(self) -> None:
        """End every child, and release the folder after that."""
        self._stopping.set()
        if self._watcher.is_alive():
            self._requests.wake()
            self._watcher.join()
        self._requests.close()
        self._file.unlink(missing_ok=True)
        for child in self._children:
            child.terminate()
        for child in self._children:
            child.wait_for_end()
        os.close(self._lock)

    def _watch(self) -> None:
        while True:
            requests = self._requests.wait(LOOK_SECONDS)
            if self._stopping.is_set():
                return
            if revive := self._revive:
                self._revive = False
            for child in self._children:
                self._carry_out([verb for verb, name in requests if name == child.name], child)
                self._look_at(child, revive)

    def _carry_out(self, verbs: list[str], child: Child) -> None:
        """Do what was requested; one that was shut down is started by `_look_at`."""
        for verb in verbs:
            if verb == STOP:
                self._to_start.discard(child.name)
                child.was_stopped = True
                child.terminate()
            elif verb == FREEZE:
                child.freeze()
            elif verb == START:
                child.thaw()
                if child.was_stopped or child.exit_code() == 0:
                    self._to_start.add(child.name)
            logger.warning("embedded_store_request", extra={"store": child.name, "request": verb})

    def _look_at(self, child: Child, revive: bool) -> None:
        code = child.exit_code()
        if code is None:
            return
        shut_down = code == 0 or child.was_stopped
        if shut_down and not child.was_shut_down:
            child.was_shut_down = True
            hint = f"kill -USR1 {os.getpid()} starts it again"
            logger.warning("embedded_store_shut_down", extra={"store": child.name, "hint": hint})
        if not shut_down or revive or child.name in self._to_start:
            self._restart(child, 0 if shut_down else code)

    def _restart(self, child: Child, code: int) -> None:
        if code:
            fields = {
                "store": child.name,
                "exit_code": code,
                "log": str(child.log),
                "said": child.last_words(),
            }
            logger.error("embedded_store_died", extra=fields)
            if self._stopping.wait(RESTART_PAUSE_SECONDS):
                return
        with suppress(OSError):  # out of memory or of processes: the next round tries again
            child.launch(self._lock)
            self._to_start.discard(child.name)
            logger.warning("embedded_store_restarted", extra={"store": child.name})


def _take(path: Path) -> int:
    """Return the lock, which is released when its last holder ends; raise EmbeddedError if another serve has it."""
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise EmbeddedError(f"{path} cannot be used: {error.strerror}; set VAR_DIR to another folder") from None
    deadline = time.monotonic() + HANDOVER_SECONDS
    while not _try_lock(lock, fcntl.LOCK_EX):
        try:
            _refuse_served(lock)
            if time.monotonic() > deadline:
                raise EmbeddedError(
                    f"{path.parent} is in use by another `manage.py serve` (process {_holder(lock)[0]}):"
                    " stop that one, or set VAR_DIR to another folder"
                )
        except EmbeddedError:
            os.close(lock)
            raise
        time.sleep(0.1)
    os.ftruncate(lock, 0)
    os.write(lock, str(os.getpid()).encode())
    return lock


def _holder(lock: int) -> tuple[str, str]:
    """Return the process that has the lock, and where its web server is, "" before that is open."""
    pid, _, address = os.pread(lock, 300, 0).decode(errors="replace").partition(" ")
    return pid, address


def _refuse_served(lock: int) -> None:
    """Raise EmbeddedError where the holder of the lock answers: one that is ending does not any more."""
    pid, address = _holder(lock)
    where = urlsplit(address)
    with suppress(OSError):
        if where.hostname and where.port:
            socket.create_connection((where.hostname, where.port), timeout=1).close()
            raise EmbeddedError(
                f"onesource is running here already: {address} (process {pid})."
                " Stop that one, or set VAR_DIR to another folder and PORT to another port"
            )


def _is_held(path: Path) -> bool:
    """Return whether a serve is running. Not by its process id: after a reboot another process may have that."""
    with suppress(OSError), path.open() as file:
        return not _try_lock(file.fileno(), fcntl.LOCK_SH)
    return False


def _try_lock(file: int, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
