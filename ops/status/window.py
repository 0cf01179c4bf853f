"""What the server of this machine counted in the last ten minutes: its counters now, less what they were then.

Counters grow from the start of the service: a fault of last week would be shown as one of today. So the process of the
management port keeps what they were, each ten seconds, in a file of VAR_DIR, which `status` reads. For what is judged
over an hour the file has one sample a minute of the time before.
"""

import logging
import os
import threading
import time
from pathlib import Path
from typing import Any

import orjson
from django.conf import settings

from conversations.stores import ALIASES
from ops.status import served
from ops.status.served import Served
from telemetry.requests import page

logger = logging.getLogger(__name__)

EVERY = 10.0  # seconds
SECONDS = 600.0
KEPT = 3700.0  # an hour, and what may be between two samples of it
THIN = 60.0
CALLS = "store_duration_seconds_bucket"
_COUNTERS = (
    "history_persist_attempts_total",
    "history_persist_errors_total",
    "history_not_persisted_total",
    "history_reads_total",
    "history_corrupt_total",
    "context_expected_total",
    "context_missing_total",
    "dataset_changes_total",
    "out_of_step_conversations_total",
    "healed_conversations_total",
    "repair_errors_total",
)

Sample = tuple[float, Served]
"""When the counters were read, on the monotonic clock, which all processes share; and what they were."""


def start() -> None:
    """Keep samples from now on, in a thread."""
    threading.Thread(target=_forever, name="figures", daemon=True).start()


def sample() -> None:
    """Keep what the counters are now, and drop what is older than the window. Raise OSError."""
    counted = _counters(served.parse(page().content.decode()))
    kept = _thinned([one for one in read() if not _restarted(one[1], counted)])
    lines = [
        (at, [[*key, value] for key, value in counts.items()]) for at, counts in [*kept, (time.monotonic(), counted)]
    ]
    file = _file()
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = file.with_suffix(f".{os.getpid()}")
    draft.write_bytes(orjson.dumps(lines))
    draft.rename(file)


def growth(counted: Served, seconds: float = SECONDS, samples: list[Sample] | None = None) -> Served | None:
    """Return how much each counter grew in so many seconds, or since the service was started where that is later; None
    where that was not kept. A caller with several times reads the samples once."""
    now, begin = _counters(counted), time.monotonic() - seconds
    samples = [one for one in (read() if samples is None else samples) if one[0] >= begin]
    if not samples:
        return None
    before = next((counts for _, counts in samples if not _restarted(counts, now)), {})
    return _less(now, before)


def between(before: Served, counted: Served) -> Served:
    """Return how much each counter grew between two looks, or since the service was started meanwhile."""
    then, now = _counters(before), _counters(counted)
    return _less(now, {} if _restarted(then, now) else then)


def p95_ms(counted: Served) -> float | None:
    """Return about how long the 95th percentile of calls to the first store took, None where there were none, or it is
    longer than the longest that is measured."""
    buckets = sorted((float(le), value) for (name, _, le), value in counted.items() if name == CALLS)
    if not buckets or not (calls := buckets[-1][1]):
        return None
    lower, below = 0.0, 0.0
    for upper, number in buckets[:-1]:
        if number >= 0.95 * calls:
            return 1000 * (lower + (upper - lower) * (0.95 * calls - below) / (number - below))
        lower, below = upper, number
    return None


def _forever() -> None:
    while True:
        try:
            sample()
        except Exception:  # it must go on, whatever happens
            logger.exception("figures_not_kept")
        time.sleep(EVERY)


def _counters(counted: Served) -> Served:
    calls = (CALLS, ALIASES[0])
    return {key: value for key, value in counted.items() if key[0] in _COUNTERS or key[:2] == calls}


def _thinned(samples: list[Sample]) -> list[Sample]:
    """Return all of the last ten minutes, and one a minute of the time before."""
    begin, kept = time.monotonic() - SECONDS - EVERY, list[Sample]()
    for one in samples:
        if one[0] >= begin or not kept or one[0] - kept[-1][0] >= THIN:
            kept.append(one)
    return kept


def _restarted(before: Served, now: Served) -> bool:
    """Return whether the service began to count anew in between."""
    return any(value > now.get(key, 0.0) for key, value in before.items())


def _less(now: Served, before: Served) -> Served:
    return {key: value - before.get(key, 0.0) for key, value in now.items()}


def read() -> list[Sample]:
    """Return the samples that are kept, the oldest first; none where there is no file of ours."""
    now = time.monotonic()
    try:
        samples = [_sample(fields) for fields in orjson.loads(_file().read_bytes())]
    except (OSError, ValueError, TypeError):
        return []
    # One that is later than now was written before the machine started.
    return [one for one in samples if now - KEPT <= one[0] <= now]


def _sample(fields: Any) -> Sample:
    at, counts = fields
    return float(at), {(name, alias, label): float(value) for name, alias, label, value in counts}


def _file() -> Path:
    return Path(settings.VAR_DIR) / "run" / "figures.json"
