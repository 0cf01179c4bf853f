"""The watcher: a thread in each process that checks both stores every second, so that requests need not.

It has the stores pinged, and reads unsynced flags. A second thread follows switches, and a third learns of revoked
tokens, in time also where a slow store delays the first. Others sample what changes slowly, report what clients have
asked, learn which tenants are full, and write what turns have left for the lists of conversations. In a process that
answers no chat four more repair unsynced conversations and compare everything, where it takes no CPU time from
requests, have the stores create indexes that they have lost, count what tenants have stored, and make lists that are
not whole; in one that answers chat another fetches the keys of the issuer of tokens, where there is one.
"""

import atexit
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

from django.conf import settings

from conversations import clock, policy
from conversations.background import coverage, lists, preparing, sampling, scrub, tenants
from conversations.breaker import CLOSED
from conversations.errors import StoreUnavailable
from conversations.history import repair
from conversations.history.writing import set_flag
from conversations.policy import Switch
from conversations.runtime import datasets, gauges, issuer, revoked, switching
from conversations.runtime import tenants as known_tenants
from conversations.runtime.datasets import PROCESS
from conversations.runtime.pings import health, look
from conversations.runtime.rates import EVERY as REPORTED_EVERY
from conversations.runtime.rates import rates
from conversations.runtime.state import state
from conversations.stores import ALIASES, control, other, store
from telemetry import metrics
from telemetry.logs import event

logger = logging.getLogger(__name__)

EVERY = 1.0  # seconds
PAUSE = 0.1  # seconds between two batches, while there is more to do
_LEASE_SECONDS = 5.0
MOST_OFFSET = 1.0  # seconds that this machine may be off before it is reported
_STARTED = time.monotonic()

Step = tuple[str, Callable[[], object], float]
"""The name of a thread, what it does again and again, and after how many seconds of rest."""

_starting = threading.Lock()
_threads: list[threading.Thread] = []
_flagged = repair.Flagged()
_executor = ThreadPoolExecutor(max_workers=len(ALIASES), thread_name_prefix="flags")


def start(*, repairs: bool) -> None:
    """Start the threads of this process, once; the stores are checked once before the return. Where the process
    `repairs` it does so in turn with those of other machines."""
    with _starting:
        if not _threads:
            gauges.start()
            tick = partial(_tick, eager=repairs)
            for first in (tick, _follow, revoked.follow, known_tenants.follow):
                with suppress(Exception):
                    first()
            steps: list[Step] = [
                ("watcher", tick, EVERY),
                ("follower", _follow, EVERY),
                ("revoked", revoked.follow, revoked.EVERY),
                ("rates", rates.report, REPORTED_EVERY),
                ("sampler", sampling.sample, sampling.EVERY),
                ("tenants", known_tenants.follow, known_tenants.EVERY),
                ("lists", lists.write, lists.EVERY),
            ]
            if settings.OIDC_ISSUER and not repairs:
                issuer.restore()
                steps.append(("issuer", issuer.follow, issuer.LOOK_SECONDS))
            if repairs:
                steps += [("repair", _repair, EVERY), ("preparer", preparing.prepare, preparing.EVERY)]
                steps += [("counting", tenants.step, known_tenants.EVERY), ("lister", lists.make, lists.EVERY)]
            for name, step, every in steps:
                _threads.append(threading.Thread(target=_forever, args=(step, every), name=name, daemon=True))
            for thread in _threads:
                thread.start()
            atexit.register(datasets.remove_heartbeats)
            atexit.register(lists.write)
            with suppress(Exception):
                sampling.sample()


def _forever(step: Callable[[], object], every: float) -> None:
    rest = every
    while True:
        time.sleep(rest)
        rest = every
        try:
            if step():
                rest = PAUSE
        except StoreUnavailable:
            pass  # logged where it was raised; the next second tries again
        except Exception as error:  # the watcher must go on, whatever happens
            if _is_ending(error):
                return
            logger.exception("watcher_failed")


def _is_ending(error: Exception) -> bool:
    """Return whether it was raised because the process is ending, and its thread pool has ended already."""
    return isinstance(error, RuntimeError) and "shutdown" in str(error)


def _tick(*, eager: bool = False) -> None:
    """Do each part in turn; one that fails keeps none of the others from being done."""
    _try(partial(look, eager=eager))
    up = [alias for alias in ALIASES if health(alias).up]
    parts: list[Callable[[], object]] = [
        partial(_in_each, up, _read_flags),
        partial(_in_each, up, _set_pending_flags),
        partial(_correct_clock, up),
        *(partial(datasets.note_expiry, state().known, alias) for alias in up),
        _report_datasets,
        partial(datasets.note_elsewhere, state().known, up),
        partial(_note_flags, up),
        partial(_recover, up),
    ]
    for part in parts:
        _try(part)


def _try(part: Callable[[], object]) -> None:
    try:
        part()
    except StoreUnavailable:
        pass  # logged where it was raised; the next second tries again
    except Exception as error:
        _has_failed(error)


def _has_failed(error: Exception) -> None:
    """Log why a part failed; raise that again where the process is ending."""
    if _is_ending(error):
        raise error
    logger.error("watcher_failed", exc_info=error)


def _in_each(up: list[str], part: Callable[[str], None]) -> None:
    """Do it in each of the stores, at the same time."""
    for done in [_executor.submit(part, alias) for alias in up]:
        _try(done.result)


def _correct_clock(up: list[str]) -> None:
    """Correct this process' clock by those of the stores."""
    before = clock.offset()
    offsets = state().known.offsets
    clock.correct({alias: offsets[alias] for alias in up if alias in offsets}, ALIASES)
    metrics.clock_offset.set(clock.offset())
    if abs(before) <= MOST_OFFSET < abs(clock.offset()):
        metrics.clocks_off.inc()
        event(logger, logging.WARNING, "clock_off", seconds=round(clock.offset(), 3))


def _report_datasets() -> None:
    known, missing = state().known, coverage.missing(state())
    for alias in ALIASES:
        metrics.coverage_missing.labels(store=alias).set(alias in missing)
        metrics.cut_off.labels(store=alias).set(len(known.cut_off.get(alias, ())))


def _read_flags(alias: str) -> None:
    """Find out whether the store still has the data that it had, leave a heartbeat there, and read its unsynced
    flags."""
    process = state()
    datasets.compare(process.known, alias, beat=True)
    process.record_dataset(alias)
    read_at = time.monotonic()
    process.remember_flags(alias, control(alias).flags(repair.MOST_FLAGS), read_at)


def _set_pending_flags(alias: str) -> None:
    """Set the unsynced flags that could not be set before, and those that are due once more."""
    late, now = state().late_flags, time.monotonic()
    for flag, due in late.copy().items():  # requests add to it meanwhile
        if flag[0] == alias and due <= now:
            late.pop(flag, None)
            state().pending_flags.add(flag)
    for where, session in list(state().pending_flags):
        if where == alias:
            _flag(alias, session)


def _note_flags(up: list[str]) -> None:
    process = state()
    for alias in ALIASES:
        if other(alias) in up:
            datasets.note_flags(process.known, alias, process.flagged_at(alias))


def _recover(up: list[str]) -> None:
    """Set an unsynced flag for what a killed process was writing to both stores."""
    if not up:
        return
    alias = next(alias for alias in state().routing.order if alias in up)
    found = state().journal.recover(partial(_flag, alias))
    if found:
        event(logger, logging.WARNING, "adopted", conversations=found)


def _flag(alias: str, session: str) -> None:
    """Set the unsynced flag. Where that fails though the store answers, it is tried again each second, and no other
    flag waits for it. Raise StoreUnavailable where the store is out."""
    pending = state().pending_flags
    try:
        set_flag(session, alias)
    except StoreUnavailable:
        store(alias).ping()
        pending.add((alias, session))
    else:
        pending.discard((alias, session))


def _follow() -> None:
    """Follow the newest switch, and write it to a store that does not have it."""
    process, begun = state(), time.monotonic()
    recorded = switching.read()
    newest = switching.newest_of({**recorded, "seen": process.switch})
    routing, changed = policy.follow(switching.environment(), clock.time_of(_STARTED), newest)
    if changed:
        newest = Switch(routing, switching.environment(), clock.timestamp(), by="environment")
        switching.write(newest)
    elif newest and any(switch != newest for switch in recorded.values()):
        switching.write(newest)
    if newest != process.switch and process.followed_at is not None:
        process.switch_seen_at = time.monotonic()
    process.switch = newest
    coverage.withdraw(process, routing)
    if routing != process.routing:
        process.routing = routing
        metrics.switches.inc()
        event(logger, logging.WARNING, "switched", primary=routing.primary, dual_write=routing.dual_write)
    if recorded:
        process.followed_at = begun


def _repair() -> bool:
    """Repair unsynced conversations for a second at most, if both stores are up and no other process repairs;
    return whether there is more to do. In what time that leaves, everything is compared."""
    process = state()
    flagged = any(one.flags and one.flags.sessions for one in process.stores.values())
    closed = all(one.reads.state == one.writes.state == CLOSED for one in process.stores.values())
    uncovered = bool(coverage.missing(process))
    scrubs = not uncovered and scrub.is_due(process)
    if not (flagged or uncovered or scrubs) or not closed or not all(health(alias).up for alias in ALIASES):
        return False
    if not control(ALIASES[0]).lease("healing", PROCESS, _LEASE_SECONDS):
        return False
    deadline = time.monotonic() + repair.BATCH_SECONDS
    tried = _flagged.step(deadline) if flagged else 0
    if time.monotonic() > deadline:
        left = sum(one.flags.number for one in process.stores.values() if one.flags)
        event(logger, logging.INFO, "repairing", conversations=tried, left=left)
    if time.monotonic() < deadline:
        if uncovered:
            coverage.gain(process, deadline)
        elif scrubs:
            scrub.step(process)
            return False
    return time.monotonic() > deadline
