"""One request at a time for one Idempotency-Key on this machine, so that its question is answered once.

The stores refuse a second turn with the same key, but only when it has been answered already. A twin that
waits here finds the first one's turn stored. The lock is the kernel's: it ends with the process that held it.
"""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from django.conf import settings


@contextmanager
def claim(session: str, key: str | None) -> Iterator[None]:
    """Wait until no other request has this session and key, and have them until the end of the block."""
    if key is None:
        yield
        return
    folder = Path(settings.VAR_DIR) / "run" / "claims"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / hashlib.sha256(f"{session}\n{key}".encode()).hexdigest()
    descriptor = _lock(path)
    try:
        yield
    finally:
        with suppress(FileNotFoundError):
            path.unlink()  # before it is let go, so that whoever waited sees that its file is gone
        os.close(descriptor)


def _lock(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        os.close(descriptor)  # the one before us took its file away
