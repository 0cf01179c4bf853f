"""What is not as it should be, judged from the figures of `status`: in words, with the alerts whose condition holds.

The conditions are those of deploy/alerts.yaml without their `for`: an alert fires once its condition has held so long.
Two are not judged here: OnesourceNotScraped is Prometheus' own, and PersistenceBudgetBurnSlow needs three days.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from django.db import connection

from conversations.background.watcher import MOST_OFFSET
from conversations.datasets import Verdict
from conversations.stores import ALIASES
from ops.status import limits
from ops.status.datasets import HERE
from ops.status.served import Served, total

if TYPE_CHECKING:
    from ops.status.collect import Status, StoreStatus

PAGE, TICKET = "page", "ticket"
SEVERITIES = {
    **dict.fromkeys(("PersistenceErrorsHigh", "RedisDown", "ConversationContextFailure", "BothStoresDown",
                     "TurnsNotPersisted", "RedisMemoryCritical", "StoreDataChanged", "PersistenceBudgetBurn"), PAGE),
    **dict.fromkeys(("MongoDown", "BreakerOpen", "RedisLatencyHigh", "RedisMemoryHigh", "ConversationsUnsynced",
                     "CoverageMissing", "ProcessesCutOff", "ConversationsOutOfStep", "ClockOff", "HistoriesCorrupt",
                     "BackupOld", "BackupMissing", "BackupUnverified", "PersistenceErrorRatioHigh"), TICKET),
}  # fmt: skip
"""The alerts that are judged, each with its severity."""
_SECTIONS = {"ConversationContextFailure": "conversation-context-failure"}
FIVE_MINUTES, TEN_MINUTES, HOUR = 300.0, 600.0, 3600.0

Grown = Callable[[float], Served | None]
"""Returns how much the counters grew in so many seconds, None where that is not known."""


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert whose condition holds now."""

    name: str
    severity: str
    section: str
    """Of the runbook."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be."""

    text: str
    serious: bool
    """Whether something is wrong now; else it needs attention."""
    alerts: tuple[Alert, ...] = ()
    section: str = ""
    """Of the runbook, where no alert names one."""


def find(seen: "Status", grown: Grown) -> tuple[Finding, ...]:
    """Return what is not as it should be, the serious things first."""
    found = [*_stores(seen), *_figures(seen, grown), *_turns(seen, grown), *_memory(seen), *_repair(seen)]
    found += [*_datasets(seen, grown), *_backups(seen), *_routing(seen), *_sharing(seen)]
    return tuple(sorted(found, key=lambda one: not one.serious))


def _finding(text: str, *names: str, serious: bool = False, section: str = "") -> Finding:
    return Finding(text, serious, tuple(map(_alert, filter(SEVERITIES.get, names))), section)


def _alert(name: str) -> Alert:
    return Alert(name, SEVERITIES[name], _SECTIONS.get(name, f"alert-{name.lower()}"))


def _stores(seen: "Status") -> Iterator[Finding]:
    both = ("BothStoresDown",) if seen.blind else ()
    for alias, one in seen.stores.items():
        if one.problem and one.up:
            yield _finding(f"{alias} is misconfigured: {one.problem}", serious=True, section=f"alert-{alias}down")
        elif not one.up:
            text = f"is misconfigured: {one.problem}" if one.problem else f"is out ({one.error})"
            yield _finding(f"{alias} {text}", *both, f"{alias.title()}Down", serious=True)
    if seen.breakers:
        yield _finding(f"calls are blocked: {', '.join(seen.breakers)}", "BreakerOpen")


def _figures(seen: "Status", grown: Grown) -> Iterator[Finding]:
    alerts = {"P95 latency": ("RedisLatencyHigh",), "persist errors": tuple(_persistence(grown))}
    for figure in seen.figures:
        names, text = alerts.get(figure.name, ()), f"{figure.name} is {figure.text}, not {figure.limit}"
        if figure.ok is False:
            yield _finding(text, *names, serious=True, section="normal-operation")
        elif names and figure.name == "persist errors":
            yield _finding(f"a store did not take every turn: persist errors is {figure.text}", *names)


def _persistence(grown: Grown) -> Iterator[str]:
    """Yield the alerts that are about turns which a store did not take."""
    if any(one > limits.PERSIST_ERRORS_A_SECOND * TEN_MINUTES for one in _of_stores(grown(TEN_MINUTES), "errors")):
        yield "PersistenceErrorsHigh"
    lately, hour = (max(_ratios(grown(seconds)), default=0.0) for seconds in (FIVE_MINUTES, HOUR))
    if lately > limits.PERSIST_ERRORS:
        yield "PersistenceErrorRatioHigh"
    if min(lately, hour) > limits.BUDGET_BURN * limits.PERSIST_ERRORS:
        yield "PersistenceBudgetBurn"


def _ratios(served: Served | None) -> Iterator[float]:
    for errors, attempts in zip(_of_stores(served, "errors"), _of_stores(served, "attempts"), strict=True):
        if attempts:
            yield errors / attempts


def _of_stores(served: Served | None, name: str) -> list[float]:
    return [(served or {}).get((f"history_persist_{name}_total", alias, ""), 0.0) for alias in ALIASES]


def _turns(seen: "Status", grown: Grown) -> Iterator[Finding]:
    if lost := total(grown(FIVE_MINUTES) or {}, "history_not_persisted_total"):
        yield _finding(f"{lost:.0f} turns of five minutes are in no store", "TurnsNotPersisted", serious=True)
    ten = grown(TEN_MINUTES) or {}
    expected, missing = (total(ten, f"context_{name}_total") for name in ("expected", "missing"))
    if expected and 1 - missing / expected < limits.CONTEXT_FOUND:
        text = f"{missing:.0f} of {expected:.0f} follow-up questions of ten minutes were answered without their context"
        yield _finding(text, "ConversationContextFailure", serious=True)


def _memory(seen: "Status") -> Iterator[Finding]:
    for alias, one in seen.stores.items():
        used, most = one.info.memory_bytes, one.info.max_memory_bytes
        if used and most and used / most > limits.ALMOST_FULL:
            full = used / most > limits.FULL
            names = (f"{alias.title()}MemoryCritical",) * full + (f"{alias.title()}MemoryHigh",)
            yield _finding(f"{alias} uses {used / most:.0%} of its memory", *names, serious=full)
        if one.info.evicts_all:
            text = f"{alias} evicts unsynced flags when its memory is full ({one.info.policy})"
            yield _finding(text, serious=True, section="alert-persistenceerrorshigh")


def _repair(seen: "Status") -> Iterator[Finding]:
    for alias, one in seen.stores.items():
        if one.unsynced:
            yield _finding(f"{alias} has turns of {one.unsynced} conversations that the other store is missing",
                           "ConversationsUnsynced")  # fmt: skip
    for alias in seen.routing.wanted:
        dataset = seen.stores[alias].dataset
        if dataset and not dataset.complete:
            yield _finding(f"{alias} is not known to hold every conversation", "CoverageMissing")


def _datasets(seen: "Status", grown: Grown) -> Iterator[Finding]:
    hour = grown(HOUR) or {}
    for alias, one in seen.stores.items():
        for verdict in (Verdict.WIPED, Verdict.ROLLED_BACK):
            if hour.get(("dataset_changes_total", alias, verdict)) or _has(one, verdict):
                yield _finding(f"{alias} came back {verdict.replace('_', ' ')} within an hour", "StoreDataChanged")
        if number := hour.get(("out_of_step_conversations_total", alias, "")):
            text = f"{alias} was missing something of {number:.0f} conversations, and nothing had flagged them"
            yield _finding(text, "ConversationsOutOfStep")
        if number := hour.get(("history_corrupt_total", alias, "")):
            yield _finding(f"{number:.0f} corrupt values were read in {alias} within an hour", "HistoriesCorrupt")
        if one.dataset and one.dataset.cut_off:
            yield _finding(f"{one.dataset.cut_off} processes do not reach {alias} any more", "ProcessesCutOff")
        if one.dataset and abs(one.dataset.clock_ahead) > MOST_OFFSET:
            yield _finding(f"the clock of {alias} is {one.dataset.clock_ahead:+.1f} s off this machine's", "ClockOff")


def _has(one: "StoreStatus", verdict: Verdict) -> bool:
    return one.dataset is not None and one.dataset.verdict == verdict


def _backups(seen: "Status") -> Iterator[Finding]:
    if seen.backup == 0.0:
        yield _finding("no backup of both stores is recorded", "BackupMissing")
    elif seen.backup and (age := datetime.fromisoformat(seen.at).timestamp() - seen.backup) > limits.BACKUP_SECONDS:
        yield _finding(f"the newest backup of both stores is {age / 3600:.0f} hours old", "BackupOld")
    if seen.verified is not None and seen.backup:
        yield from _verified(seen)


def _verified(seen: "Status") -> Iterator[Finding]:
    """A newer backup is to be verified before the last one that was is removed."""
    if not seen.verified:
        yield _finding("no backup was verified", "BackupUnverified")
    elif (age := datetime.fromisoformat(seen.at).timestamp() - seen.verified) > limits.VERIFIED_SECONDS:
        yield _finding(f"the newest backup that was verified is {age / 86_400:.0f} days old", "BackupUnverified")


def _routing(seen: "Status") -> Iterator[Finding]:
    """A switch is made to be undone: what the environment has says how things should be."""
    section, wanted = "redis-failover-procedures", seen.environment
    if seen.routing.primary != wanted.primary:
        yield _finding(f"the primary is {seen.routing.primary}, and {wanted.primary} in the environment",
                       section=section)  # fmt: skip
    if seen.routing.dual_write != wanted.dual_write:
        states = ("on", "off") if seen.routing.dual_write else ("off", "on")
        yield _finding("dual write is {}, and {} in the environment".format(*states), section=section)


def _sharing(seen: "Status") -> Iterator[Finding]:
    """Servers on several machines share one audit log, and one list of tokens, on a database that all reach."""
    there = {one.name for one in seen.machines if any(presence.processes for presence in one.stores.values())}
    if (others := len(there - {HERE})) and connection.vendor == "sqlite":
        text = f"servers on other machines: {others}, and SQLite is not shared with them: set DATABASE_URL"
        yield _finding(text, serious=True)
