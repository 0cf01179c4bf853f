"""How another process of this user has an embedded store stopped, frozen or started.

Only the process that started a store can signal it safely: a process id that was read from a file may belong to
another program by now. So the others write what they want into a FIFO in the stores' folder.
"""

import os
import select
import threading
from contextlib import suppress
from pathlib import Path

from embedded.errors import EmbeddedError

STOP, FREEZE, START = "stop", "freeze", "start"
VERBS = (STOP, FREEZE, START)
_FIFO = "requests"


def request(var_dir: Path, name: str, verb: str) -> None:
    """Ask the running `manage.py serve` to do this to the store; raise EmbeddedError where none runs."""
    try:
        fifo = os.open(var_dir / _FIFO, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        raise EmbeddedError(f"no `manage.py serve` takes requests at {var_dir}: {error.strerror}") from None
    try:
        os.write(fifo, f"{verb} {name}\n".encode())  # in one write, which another's cannot interrupt
    except OSError as error:
        raise EmbeddedError(f"`manage.py serve` takes no request now: {error.strerror}") from None
    finally:
        os.close(fifo)


class Requests:
    """The requests to this process; made by the one holder of the folder's lock."""

    def __init__(self, var_dir: Path) -> None:
        self._path = var_dir / _FIFO
        self._woken = threading.Event()
        self._fifo = _made(self._path)

    def wait(self, seconds: float) -> list[tuple[str, str]]:
        """Return the next requests, each as (verb, store); none where none comes in so many seconds."""
        if self._fifo is None:
            self._woken.wait(seconds)
            return []
        poll = select.poll()
        poll.register(self._fifo, select.POLLIN)
        if not poll.poll(seconds * 1000):
            return []
        lines = os.read(self._fifo, select.PIPE_BUF).decode(errors="replace").splitlines()
        words = [line.split() for line in lines]
        return [(each[0], each[1]) for each in words if len(each) == 2]

    def wake(self) -> None:
        """End a `wait` of another thread at once."""
        self._woken.set()
        if self._fifo is not None:
            with suppress(BlockingIOError):  # full: there is something to read
                os.write(self._fifo, b"\n")

    def close(self) -> None:
        if self._fifo is not None:
            self._path.unlink(missing_ok=True)
            os.close(self._fifo)


def _made(path: Path) -> int | None:
    """Return the FIFO, open; None where the file system has none: the stores then take no requests."""
    try:
        path.unlink(missing_ok=True)  # left by a serve that was killed
        os.mkfifo(path, 0o600)
        # Written to as well as read: a FIFO without a writer would always be ready, with nothing to read.
        return os.open(path, os.O_RDWR | os.O_NONBLOCK)
    except OSError:
        return None
