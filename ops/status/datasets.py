"""What the stores report of their datasets: whether one came back with other data, what is complete and compared, who
is there."""

from collections.abc import Mapping
from dataclasses import dataclass

from conversations import clock
from conversations.datasets import STALE, Known, Scrubbed, Verdict, judge
from conversations.runtime import datasets
from conversations.stores import limits
from conversations.stores.control import Report

HERE = datasets.machine_of(datasets.PROCESS)
UNDER_WAY_SECONDS = 60.0  # without a step, after which a scrub is taken for cut off


@dataclass(frozen=True, slots=True)
class DatasetStatus:
    """The dataset of one store, as the store itself and the notes in the other one have it."""

    epoch: int | None
    """Counted up by every process each second; None where no process has been there yet."""
    verdict: str
    """`same`, or what no process has dealt with yet: `new`, `restarted`, `wiped` or `rolled_back`."""
    complete: bool
    """Whether the store holds every conversation, or has a flag in the other for what it is missing."""
    trimmed: bool
    """Whether conversations were removed from it that the other store may still have."""
    processes: int
    """Those that were there within the last five seconds."""
    cut_off: int
    """Those that have stopped coming without removing their heartbeat."""
    clock_ahead: float
    """Seconds that the store's clock is ahead of this machine's."""


@dataclass(frozen=True, slots=True)
class ScrubStatus:
    """The scrubs, as the stores have them noted."""

    last: Scrubbed | None
    """None where none has ended."""
    under_way: Scrubbed | None


@dataclass(frozen=True, slots=True)
class Presence:
    """The processes of one machine, as their heartbeats in one store have it."""

    processes: int
    """Those that were there within the last five seconds."""
    cut_off: int
    """Those that have stopped coming without removing their heartbeat."""
    seconds: float
    """How old the newest of their heartbeats is."""


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine, and its heartbeats in each store that has any."""

    name: str
    stores: dict[str, Presence]


Asked = tuple[Report, float]
"""A store's report, and how many seconds its clock is ahead of the monotonic one."""


def doubtful(asked: Mapping[str, Asked]) -> list[str]:
    """Return the stores that seem to have come back with other data, to be asked once more: a server may have counted
    up since, and noted that in the other store before that one was asked."""
    _, verdicts = _known_and_verdicts(asked)
    return [alias for alias, verdict in verdicts.items() if verdict is not Verdict.SAME]


def judged(asked: Mapping[str, Asked]) -> dict[str, DatasetStatus]:
    """Return what the reports of the stores that answered mean."""
    known, verdicts = _known_and_verdicts(asked)
    for alias, (report, _) in asked.items():
        if report.dataset and verdicts[alias] is Verdict.SAME:
            known.datasets[alias] = report.dataset
        else:
            known.datasets.pop(alias, None)  # and with it all coverage
    return {alias: _status(alias, one, verdicts[alias], known) for alias, one in asked.items()}


def scrubs(asked: Mapping[str, Asked]) -> ScrubStatus | None:
    """Return what the reports of the stores that answered have noted of scrubs; None where none answered."""
    if not asked:
        return None
    known = datasets.noted(report for report, _ in asked.values())
    now = max(report.time for report, _ in asked.values())
    goes_on = known.scrubbing.at > max(known.scrubbed.at, now - UNDER_WAY_SECONDS)
    return ScrubStatus(known.scrubbed if known.scrubbed.at else None, known.scrubbing if goes_on else None)


def machines(asked: Mapping[str, Asked]) -> tuple[Machine, ...]:
    """Return the machines with a heartbeat in a store that answered, by their names."""
    found: dict[str, dict[str, Presence]] = {}
    for alias, (report, _) in asked.items():
        for name, presences in _by_machine(report).items():
            found.setdefault(name, {})[alias] = presences
    return tuple(Machine(name, found[name]) for name in sorted(found))


def _by_machine(report: Report) -> dict[str, Presence]:
    lost, ages = datasets.cut_off(report), dict[str, dict[str, float]]()
    for process, age in report.heartbeats.items():
        if age <= STALE or process in lost:
            ages.setdefault(datasets.machine_of(process), {})[process] = age
    return {
        name: Presence(len(theirs.keys() - lost), len(theirs.keys() & lost), round(max(min(theirs.values()), 0.0), 1))
        for name, theirs in ages.items()
    }


def _known_and_verdicts(asked: Mapping[str, Asked]) -> tuple[Known, dict[str, Verdict]]:
    """Return what is noted in these stores, and what became of each by that."""
    known = datasets.noted(report for report, _ in asked.values())
    noted = {alias: filter(None, [known.datasets.get(alias)]) for alias in asked}
    return known, {alias: judge(report.dataset, report.instance, noted[alias]) for alias, (report, _) in asked.items()}


def _status(alias: str, asked: Asked, verdict: Verdict, known: Known) -> DatasetStatus:
    report, measured = asked
    return DatasetStatus(
        epoch=report.dataset.epoch if report.dataset else None,
        verdict=verdict.value,
        complete=alias in known.complete,
        trimmed=alias in known.trimmed_alone(limits().ttl),
        processes=sum(age <= STALE for age in report.heartbeats.values()),
        cut_off=len(datasets.cut_off(report)),
        clock_ahead=round(clock.ahead(measured), 3),
    )
