"""How far a run has come, written to its row about once a second, whatever it does meanwhile."""

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import DatabaseError, connection
from django.db.models.functions import Now

from ops.long_work import Advance
from ops.models import Run
from telemetry.logs import event

EVERY = 1.0  # seconds
_LINES = 300
_LONGEST = 1_000  # characters of a line
_PATIENCE = 30.0  # seconds in which the end is written, where the database is out

logger = logging.getLogger(__name__)


class Following:
    """What a command prints and how far it is. That the row cannot be written is logged and stops nothing."""

    def __init__(self, row: Run) -> None:
        self.report: dict[str, Any] = {}
        self.code: int | None = None
        self._rows = Run.objects.filter(pk=row.pk)
        self._lines: deque[str] = deque(maxlen=_LINES)
        self._progress: tuple[str, int, int] = ("", 0, 0)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep_writing, name="following", daemon=True)

    def __enter__(self) -> "Following":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def write(self, text: str) -> None:
        """Take what the command prints: it is called as a stream is."""
        self._lines.extend(line[:_LONGEST] for line in text.splitlines())

    def flush(self) -> None:
        """Do nothing: the thread writes."""

    @contextmanager
    def progress(self, what: str) -> Iterator[Advance]:
        """Show how far this step is."""

        def advance(done: int, of: int) -> None:
            self._progress = (what, done, of)

        advance(0, 0)
        yield advance

    def end(self, state: Run.State, code: int, outcome: str) -> None:
        """Write how it ended; where that fails for long, the row shows no sign of life, and is judged by that."""
        self.code = code
        self._over.set()
        self._thread.join()
        ends = time.monotonic() + _PATIENCE
        fields = {"state": state, "exit_code": code, "outcome": outcome[:500], "report": self.report, "ended_at": Now()}
        while not self._write(fields) and time.monotonic() < ends:
            time.sleep(EVERY)

    def _keep_writing(self) -> None:
        # The state too: a pause of this process may have been taken for its end.
        going = {"state": Run.State.RUNNING, "ended_at": None}
        try:
            self._write(going)
            while not self._over.wait(EVERY):
                self._write(going)
        finally:
            connection.close()

    def _write(self, fields: dict[str, Any]) -> bool:
        """Return whether the row has it."""
        step, done, of = self._progress
        try:
            self._rows.update(step=step, done=done, of=of, lines=list(self._lines), beat_at=Now(), **fields)
        except DatabaseError as error:
            event(logger, logging.WARNING, "run_not_written", error=type(error).__name__)
            connection.close()
            return False
        return True
