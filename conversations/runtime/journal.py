"""The in-flight journal: which conversations this process is writing to both stores, kept in a file.

A process that is killed between its two writes cannot set the unsynced flag, so the turn would stay missing in the
second store. Its journal stays on the disk, and the next process that looks flags the conversations in it.
"""

import fcntl
import mmap
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_SLOT = 264  # bytes: the longest name of a session has 257
_SLOTS = 512  # more than a process has threads
_EMPTY = bytes(_SLOT)


class Journal:
    """A memory-mapped file of this process, with a slot for each conversation that is being written."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        while True:
            self._own = folder / f"{os.getpid()}-{os.urandom(4).hex()}"
            # The kernel releases the lock when this process ends, however it ends.
            self._file = os.open(self._own, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX)
            if self._own.exists():
                break
            os.close(self._file)  # another process may have removed the file between open and lock
        os.ftruncate(self._file, _SLOT * _SLOTS)
        self._page = mmap.mmap(self._file, _SLOT * _SLOTS)
        self._free = [slot * _SLOT for slot in range(_SLOTS)]

    def writing(self, session: str) -> "Entry":
        """Return what keeps the session in the journal in its block."""
        return Entry(self._page, self._free, session)

    def recover(self, flag: Callable[[str], None]) -> int:
        """Call `flag` with every session in the journals of ended processes, then remove these; return how many
        sessions there were. An exception of `flag` is passed on, and that journal stays."""
        found = 0
        for path in self._folder.iterdir():
            if path != self._own:
                with suppress(BlockingIOError, FileNotFoundError):  # its process runs, or another has recovered it
                    found += _recover(path, flag)
        return found

    def close(self) -> None:
        """Remove the journal; a thread that still writes to it does no harm."""
        self._own.unlink(missing_ok=True)
        os.close(self._file)


class Entry:
    """A slot with a session. Where every slot is taken, the session is written without a journal."""

    __slots__ = ("_free", "_offset", "_page", "_session")

    def __init__(self, page: mmap.mmap, free: list[int], session: str) -> None:
        self._page, self._free, self._session = page, free, session
        self._offset: int | None = None

    def __enter__(self) -> None:
        try:
            self._offset = self._free.pop()
        except IndexError:
            return
        self._page[self._offset : self._offset + _SLOT] = self._session.encode().ljust(_SLOT, b"\0")

    def __exit__(self, *error: object) -> None:
        if self._offset is not None:
            self._page[self._offset : self._offset + _SLOT] = _EMPTY
            self._free.append(self._offset)


def _recover(path: Path, flag: Callable[[str], None]) -> int:
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        slots = file.read()
        sessions = {slots[offset : offset + _SLOT].rstrip(b"\0") for offset in range(0, len(slots), _SLOT)} - {b""}
        for session in sorted(sessions):
            flag(session.decode(errors="replace"))
        path.unlink()
        return len(sessions)
