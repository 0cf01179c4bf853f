"""How many questions of one client are being answered at once, in all processes of this machine: CHAT_CONCURRENT.

A slow model holds a thread for each of them, and one client must not have all threads. Each has a place, which is a
byte of a file that the process has locked: the kernel unlocks what a killed process held. The file stays empty.
"""

import errno
import fcntl
import logging
import os
import threading
from contextlib import suppress
from functools import cache
from hashlib import blake2b
from itertools import chain
from pathlib import Path

from django.conf import settings

from conversations.errors import TooManyAsks
from telemetry import metrics
from telemetry.logs import event

logger = logging.getLogger(__name__)

_PLACES = 1 << 14  # for each client: more than CHAT_CONCURRENT can be
_TAKEN = (errno.EACCES, errno.EAGAIN)


class Places:
    """The places of all clients, as this process has them; any thread may take one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None
        """Never closed: that would unlock all of them."""
        self._mine: dict[str, set[int]] = {}
        self._lock = threading.Lock()
        self._fails = False

    def take(self, asker: str, most: int) -> int:
        """Return a place that nobody has; raise TooManyAsks where all are taken. Where the file cannot be used the
        process counts its own alone."""
        with self._lock:
            mine = self._mine.setdefault(asker, set())
            begin: int = os.getpid() * 40_503 % most  # another process begins elsewhere, and so finds a free one sooner
            for place in chain(range(begin, most), range(begin)):
                if place not in mine and self._has_locked(asker, place):
                    mine.add(place)
                    return place
            if not mine:
                del self._mine[asker]
        metrics.requests_limited.labels(limit="concurrent").inc()
        raise TooManyAsks

    def give(self, asker: str, place: int) -> None:
        """Give it back."""
        with self._lock:
            mine = self._mine[asker]
            mine.remove(place)
            if not mine:
                del self._mine[asker]
            if self._file is not None:
                with suppress(OSError):
                    fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _byte(asker, place))

    def _has_locked(self, asker: str, place: int) -> bool:
        """Lock the place; return whether no other process has it."""
        try:
            if self._file is None:
                self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _byte(asker, place))
        except OSError as error:
            if self._file is not None and error.errno in _TAKEN:
                return False
            if not self._fails:
                event(logger, logging.ERROR, "asking_uncounted", error=type(error).__name__)
            self._fails = True
        return True


class asking:  # noqa: N801  (used as a function; every ask pays for it)
    """Have a place in the block, for a client that has a name; raise TooManyAsks."""

    __slots__ = ("_asker", "_place", "_places")

    def __init__(self, asker: str) -> None:
        self._asker = asker
        self._places: Places | None = None

    def __enter__(self) -> None:
        if self._asker and settings.CHAT_CONCURRENT:
            places = _places(Path(settings.VAR_DIR) / "run" / "asking")
            self._place = places.take(self._asker, settings.CHAT_CONCURRENT)
            self._places = places

    def __exit__(self, *error: object) -> None:
        if self._places:
            self._places.give(self._asker, self._place)


@cache
def _places(path: Path) -> Places:
    return Places(path)


def _byte(asker: str, place: int) -> int:
    """Return the byte of a client's place. No client has it but this one: 48 bits are of the digest of its name."""
    digest = blake2b(asker.encode(errors="replace"), digest_size=6).digest()
    return int.from_bytes(digest, "big") * _PLACES + place
