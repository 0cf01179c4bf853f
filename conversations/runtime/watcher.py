"""The watcher: a thread in each process that checks both stores every second, so that requests need not.

It has the stores pinged, and reads unsynced flags and switches. A second thread
repairs unsynced conversations, in one process at a time. A third samples what changes slowly.
"""

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from conversations import policy
from conversations.breaker import CLOSED
from conversations.errors import InvalidSession, StoreUnavailable
from conversations.history import repair
from conversations.policy import Switch
from conversations.runtime import sampling, switching
from conversations.runtime.pings import PROCESS, health, look
from conversations.runtime.state import state
from conversations.stores import ALIASES, control, store, store_class
from telemetry import metrics
from telemetry.logs import event

logger = logging.getLogger(__name__)

EVERY = 1.0  # seconds
PAUSE = 0.1  # seconds between two batches, while there is more to do
_LEASE_SECONDS = 5.0
_STARTED = time.time()


_starting = threading.Lock()
_threads: list[threading.Thread] = []
_executor = ThreadPoolExecutor(max_workers=len(ALIASES), thread_name_prefix="flags")


def start() -> None:
    """Start the threads of this process, once; the stores are checked once before the return."""
    with _starting:
        if not _threads:
            metrics.start()
            with suppress(Exception):
                _tick()
            steps = (
                ("watcher", _tick, EVERY),
                ("repair", _repair, EVERY),
                ("sampler", sampling.sample, sampling.EVERY),
            )
            for name, step, every in steps:
                _threads.append(threading.Thread(target=_forever, args=(step, every), name=name, daemon=True))
            for thread in _threads:
                thread.start()
            with suppress(Exception):
                sampling.sample()


def _forever(step: Any, every: float) -> None:
    rest = every
    while True:
        time.sleep(rest)
        rest = every
        try:
            if step():
                rest = PAUSE
        except StoreUnavailable:
            pass  # logged where it was raised; the next second tries again
        except RuntimeError as error:
            if "shutdown" in str(error):  # the process is ending, and its thread pool has ended already
                return
            logger.exception("watcher_failed")
        except Exception:  # the watcher must go on, whatever happens
            logger.exception("watcher_failed")


def _tick() -> None:
    look()
    up = [alias for alias in ALIASES if health(alias).up]
    for reading in [_executor.submit(_read_flags, alias) for alias in up]:
        with suppress(StoreUnavailable):
            reading.result()
    _follow()
    if up:
        _recover(next(alias for alias in state().routing.order if alias in up))


def _read_flags(alias: str) -> None:
    """Read the store's unsynced flags, set those that could not be set before, and find out whether it still has
    the data that was last compared."""
    process = state()
    read_at = time.monotonic()
    process.remember_flags(alias, control(alias).flags(repair.MOST_FLAGS), read_at)
    for where, session in list(process.pending_flags):
        if where == alias:
            store(alias).append(session, None, flag=True)
            process.pending_flags.discard((where, session))
    if store_class(alias).may_lose_turns:
        compared = control(alias).note("swept") == control(alias).identity()
        (process.suspects.discard if compared else process.suspects.add)(alias)


def _recover(alias: str) -> None:
    """Set an unsynced flag for what a killed process was writing to both stores."""
    found = state().journal.recover(lambda session: _flag(alias, session))
    if found:
        event(logger, logging.WARNING, "adopted", conversations=found)


def _flag(alias: str, session: str) -> None:
    with suppress(InvalidSession):  # half a name: the process was killed while it wrote to its journal
        store(alias).append(session, None, flag=True)


def _follow() -> None:
    """Follow the newest switch, and write it to a store that does not have it."""
    process = state()
    recorded = switching.read()
    newest = switching.newest_of({**recorded, "seen": process.switch})
    routing, changed = policy.follow(switching.environment(), _STARTED, newest)
    if changed:
        newest = Switch(routing, switching.environment(), time.time(), by="environment")
        switching.write(newest)
    elif newest and any(switch != newest for switch in recorded.values()):
        switching.write(newest)
    process.switch = newest
    if routing != process.routing:
        process.routing = routing
        metrics.switches.inc()
        event(logger, logging.WARNING, "switched", primary=routing.primary, dual_write=routing.dual_write)


def _repair() -> bool:
    """Repair unsynced conversations for a second at most, if both stores are up and no other process repairs;
    return whether there is more to do."""
    process = state()
    flagged = any(one.flags and one.flags.sessions for one in process.stores.values())
    closed = all(one.reads.state == one.writes.state == CLOSED for one in process.stores.values())
    if not (flagged or process.suspects) or not closed or not all(health(alias).up for alias in ALIASES):
        return False
    if not control(ALIASES[0]).lease("healing", PROCESS, _LEASE_SECONDS):
        return False
    deadline = time.monotonic() + repair.BATCH_SECONDS
    repair.flagged(deadline)
    for alias in sorted(process.suspects):
        _sweep(alias, deadline)
    return time.monotonic() > deadline


def _sweep(alias: str, deadline: float) -> None:
    identity = control(alias).identity()
    begun = _sweeping.get(alias)
    if begun is None or begun[0] != identity:
        begun = _sweeping[alias] = (identity, repair.Sweep(alias))
    if begun[1].step(deadline):
        control(alias).write_note("swept", identity)
        del _sweeping[alias]
        event(logger, logging.INFO, "swept")


_sweeping: dict[str, tuple[str, repair.Sweep]] = {}
