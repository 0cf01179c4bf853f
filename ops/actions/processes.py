"""Starting the process of a run in a worker of the server, and what becomes of it when it ends or the worker does.

It is a process and not a thread: it compares every conversation, and this worker would answer late meanwhile, and take
its own stores for slow.
"""

import atexit
import logging
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress

from django.conf import settings
from django.db import DatabaseError, connections

from embedded import children
from ops.actions import rows
from telemetry.logs import event

_STOP_SECONDS = 4.0  # less than the server waits for a worker after its last answer
_BEAT_SECONDS = 5.0

logger = logging.getLogger(__name__)

_living: set["subprocess.Popen[bytes]"] = set()


def start(pk: int) -> None:
    """Start the process of the run; what becomes of it stands in the row."""
    # The thread lives as long as the process: the kernel ends a child with the thread that has started it.
    threading.Thread(target=_follow, args=(pk,), name=f"run-{pk}", daemon=True).start()


@atexit.register
def stop() -> None:
    """Ask the processes that are left to stop, as Ctrl-C would, and wait until they have done it in order."""
    ends = time.monotonic() + _STOP_SECONDS
    for process in list(_living):
        process.terminate()
    for process in list(_living):
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, ends - time.monotonic()))


def _follow(pk: int) -> None:
    """Start it and wait for it. One that ended without a word, as by kill -9, is interrupted."""
    try:
        why = _wait(pk)
        with suppress(DatabaseError):  # then it is judged by its age
            rows.interrupted(pk, why)
    finally:
        connections.close_all()


def _wait(pk: int) -> str:
    """Return how the process ended, once it has."""
    try:
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "ops.actions", str(pk)],
            stdin=subprocess.DEVNULL,
            env=_environment(),
            preexec_fn=children.parent_death_hook(),
        )
    except OSError as error:
        event(logger, logging.ERROR, "action_not_started", error=type(error).__name__)
        return f"its process could not be started: {error.strerror}"
    _living.add(process)
    try:
        code = _ended(process, pk)
    finally:
        _living.discard(process)
    return f"its process was ended by signal {-code}" if code < 0 else f"its process ended with exit code {code}"


def _environment() -> dict[str, str]:
    """Return the worker's own, whose folder the process has too: paths in it may be relative. It finds the code from
    any folder, and counts nothing: it would leave its files among the workers'."""
    found = {name: value for name, value in os.environ.items() if name != "PROMETHEUS_MULTIPROC_DIR"}
    path = [str(settings.BASE_DIR), *filter(None, [found.get("PYTHONPATH")])]
    return found | {"PYTHONPATH": os.pathsep.join(path)}


def _ended(process: "subprocess.Popen[bytes]", pk: int) -> int:
    """Return the exit code once there is one. Until then this process too notes that the other one lives: on a busy
    machine that one takes long until it says so itself."""
    while True:
        try:
            return process.wait(_BEAT_SECONDS)
        except subprocess.TimeoutExpired:
            with suppress(DatabaseError):
                rows.alive(pk)
