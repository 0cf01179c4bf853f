"""One request at a time for one Idempotency-Key on this machine, so that its question is answered once.

The stores refuse a second turn with the same key, but only when it has been answered already. A duplicate that
waits here finds the first one's turn stored. The lock is the kernel's: it ends with the process that held it.
"""

import fcntl
import hashlib
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from django.conf import settings

from conversations.errors import KeyInUse
from telemetry.logs import event

logger = logging.getLogger(__name__)

_EVERY = 0.02  # seconds between looks


@contextmanager
def idempotency_lock(session: str, key: str | None) -> Iterator[None]:
    """Wait until no other request has this session and key, and have them until the end of the block. Raise
    KeyInUse when that takes longer than a model may. Where there can be no file there is no waiting."""
    descriptor = _lock(session, key) if key else None
    try:
        yield
    finally:
        if descriptor is not None:
            with suppress(OSError):
                _path(session, key).unlink()  # before the lock is released: a waiting process looks for the file
            os.close(descriptor)


def _path(session: str, key: str | None) -> Path:
    name = hashlib.sha256(f"{session}\n{key}".encode()).hexdigest()
    return Path(settings.VAR_DIR) / "run" / "claims" / name


def _lock(session: str, key: str | None) -> int | None:
    path = _path(session, key)
    patience = time.monotonic() + settings.LLM_TIMEOUT_MS / 1000
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    return descriptor
            except (BlockingIOError, FileNotFoundError):
                pass  # taken, or the one before us took its file away
            os.close(descriptor)
            if time.monotonic() > patience:
                raise KeyInUse
            time.sleep(_EVERY)
    except OSError as error:
        event(logger, logging.ERROR, "claims_unusable", error=type(error).__name__)
        return None
