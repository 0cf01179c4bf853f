"""What is on its way into both stores, written down where it outlives this process.

One that is killed between its two writes can mark nothing: the second store lacks the turn, and nobody knows. Its page
of memory stays on the disk, and the next process that looks marks the conversations that stand there.
"""

import fcntl
import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_SLOT = 264  # bytes: the longest name of a session has 257
_SLOTS = 512  # more at a time than a process has threads


class Journal:
    """One a process: a page with a slot for each conversation that is being written to both stores."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        while True:
            self._own = folder / f"{os.getpid()}-{os.urandom(4).hex()}"
            # The kernel lets the lock go when this process ends, however it ends.
            self._file = os.open(self._own, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX)
            if self._own.exists():
                break
            os.close(self._file)  # whoever looked before it was locked took it for a dead one's
        os.ftruncate(self._file, _SLOT * _SLOTS)
        self._page = mmap.mmap(self._file, _SLOT * _SLOTS)
        self._free = list(range(_SLOTS))

    @contextmanager
    def writing(self, session: str) -> Iterator[None]:
        """Have the session stand on the page until the end of the block."""
        try:
            slot = self._free.pop()
        except IndexError:  # so many at a time that this one goes without
            yield
            return
        place = slot * _SLOT
        self._page[place : place + _SLOT] = session.encode().ljust(_SLOT, b"\0")
        try:
            yield
        finally:
            self._page[place : place + _SLOT] = bytes(_SLOT)
            self._free.append(slot)

    def recover(self, mark: Callable[[str], None]) -> int:
        """Have every session marked that stands on the page of a process that is gone, and then remove the page;
        return how many there were. What `mark` raises is raised, and the page stays."""
        found = 0
        for path in self._folder.iterdir():
            if path != self._own:
                with suppress(BlockingIOError, FileNotFoundError):  # it lives, or another has adopted it
                    found += _recover(path, mark)
        return found

    def close(self) -> None:
        """Remove the page; whoever still writes on it harms nobody."""
        self._own.unlink(missing_ok=True)
        os.close(self._file)


def _recover(path: Path, mark: Callable[[str], None]) -> int:
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        slots = file.read()
        sessions = {slots[place : place + _SLOT].rstrip(b"\0") for place in range(0, len(slots), _SLOT)} - {b""}
        for session in sorted(sessions):
            mark(session.decode(errors="replace"))
        path.unlink()
        return len(sessions)
