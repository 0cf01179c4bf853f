"""One request at a time for one Idempotency-Key on this machine, so that its question is answered once.

The stores refuse a second turn with the same key, but only when it has been answered already. A duplicate request that
waits here finds the first one's turn stored. The lock is the kernel's: it ends with the process that held it.
"""

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from django.conf import settings
from filelock import FileLock, Timeout

from conversations import deadline
from conversations.errors import KeyInUse
from telemetry.logs import event

logger = logging.getLogger(__name__)

_EVERY = 0.02  # seconds between two tries


@contextmanager
def idempotency_lock(session: str, key: str | None) -> Iterator[None]:
    """Wait until no other request has this session and key, and have them until the end of the block. Raise
    KeyInUse when that takes longer than a model may. Where there can be no file there is no waiting."""
    lock = _acquired(session, key) if key else None
    try:
        yield
    finally:
        if lock:
            with suppress(OSError):
                # While it is held: a lock that is then acquired on a file without a name is tried again by filelock.
                Path(lock.lock_file).unlink()
            lock.release()


def _acquired(session: str, key: str | None) -> FileLock | None:
    path = _path(session, key)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Not of one thread: the thread that streams an answer releases what another one has acquired.
        lock = FileLock(path, mode=0o600, thread_local=False, fallback_to_soft=False, poll_interval=_EVERY)
        with deadline.excluded():  # the other request waits for a model
            lock.acquire(timeout=settings.LLM_TIMEOUT_MS / 1000)
    except Timeout:
        raise KeyInUse from None
    except OSError as error:
        event(logger, logging.ERROR, "idempotency_locks_unusable", error=type(error).__name__)
        return None
    return lock


def _path(session: str, key: str | None) -> Path:
    name = hashlib.sha256(f"{session}\n{key}".encode()).hexdigest()
    return Path(settings.VAR_DIR) / "run" / "idempotency" / name
