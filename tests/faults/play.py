"""Playing a row: load, fault, load, and when all is repaired the verdict."""

import json
import shutil
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.answers import CUT_OFF_KNOWN
from tests.faults import evidence
from tests.faults.clients import Ask, Load
from tests.faults.evidence import Held, Stored
from tests.faults.injections import Run
from tests.faults.judge import Terms, Verdict, View, conclude, judge, judge_last
from tests.faults.rows import Case, Row, name_of
from tests.faults.service import ROOT
from tests.faults.stack import UNSHARED, Route, Stack

_WARNINGS = 12  # of each server's log that are printed with what is broken
KEPT = ROOT / "var" / "faults"


@dataclass(frozen=True, slots=True)
class Pace:
    """For how many seconds there is load before, during and after a fault, and in which repair must end after it."""

    before: float = 1.5
    during: float = 3.0
    after: float = 2.0
    repair: float = 10.0


IN_CI = Pace(0.8, 2.2, 1.0, repair=60.0)
"""A busy machine may take long for a repair; one that has not ended then never will."""


def play(stack: Stack, case: Case, pace: Pace, alone: AbstractContextManager[object] = UNSHARED) -> Verdict:
    """Return the verdict on the row. The evidence is kept in var/faults/ where a promise was broken. `alone` is held
    while clients ask: what is judged is how the servers bear a fault, not how two cores bear two stacks under load."""
    row, route = case
    clocks_apart = len(set(row.setup.clock_shifts)) > 1
    terms = Terms(
        route.dual_write,
        clocks_apart=clocks_apart,
        lost_connections=row.lost_connections,
        both_out=row.both_out,
        cut_off=row.cut_off or row.parted,
        stranded=row.stranded,
    )
    load = Load(
        name_of(case),
        stack.ports,
        row.clients,
        sessions_each=row.sessions_each,
        sharing=row.sharing,
        pause=row.pause,
        hosts=[service.host for service in stack.services],
    )
    run = Run(stack, load, terms, route)
    for service in stack.services:
        service.shown.unlink(missing_ok=True)
    logs = {service.log: service.log.stat().st_size for service in stack.services}
    beside = {"redis": "mongo", "mongo": "redis"}.get(row.out)
    with alone:
        failed = stack.service.errors_of(beside) if beside else 0.0
        repairing_since = _under_load(run, row, pace)
        failed = stack.service.errors_of(beside) - failed if beside else 0.0

    def is_apart(stored: Stored) -> str:
        return evidence.apart(stored, run.route.primary, run.route.dual_write)

    _check_that_it_was_one(run, row)
    deadline = repairing_since + pace.repair
    stored, apart = evidence.wait_until_together(stack, load.sessions, deadline, is_apart)
    repaired_in = time.monotonic() - repairing_since
    in_use = stack.uses_both(deadline)  # or the API would read the other store
    views = _views(run, stored)
    verdict = judge(load.talks, views, terms, evidence.shown(stack))
    verdict.beside = failed
    verdict.repair_seconds = None if apart else repaired_in
    conclude(verdict, terms, apart or ("" if in_use else "a store is up and still held back"))
    last = load.ask_once_more()
    judge_last(last, load.talks, terms, verdict, evidence.shown(stack))
    if verdict.broken:
        _keep(run, name_of(case), views, verdict, logs)
    return verdict


def _under_load(run: Run, row: Row, pace: Pace) -> float:
    """Have the clients ask while the fault comes and goes; return when it ended."""
    terms, load = run.terms, run.load
    during = max(pace.during, row.seconds)
    load.start()
    try:
        time.sleep(pace.before)
        terms.injecting = time.monotonic()
        with row.fault(run):
            terms.injected = time.monotonic()
            time.sleep(during / 2)
            for client in load.clients[row.clients - row.deleting :]:
                client.delete_next.set()
            time.sleep(during / 2)
            terms.ending = time.monotonic()
            for client in load.clients[2:4]:
                client.rests.set()
        fault_ended = time.monotonic()
        time.sleep(pace.after)
    finally:
        load.stop()
    return fault_ended


def _check_that_it_was_one(run: Run, row: Row) -> None:
    """Raise AssertionError when the row proves nothing: there was no load, or the fault did nothing."""
    answered = [ask for talk in run.load.talks for ask in talk.asks if ask.acknowledged]
    assert len(answered) >= 5 * row.clients, f"only {len(answered)} questions were answered"
    if row.cut_off:
        _check_that_both_answered(answered, run.terms)
    wanted = {"redis", "mongo"} if run.terms.dual_write else {run.route.primary}
    if row.out in wanted:
        meanwhile = [ask for ask in answered if run.terms.injected < ask.started and ask.ended < run.terms.ending]
        missed = sum(row.out not in ask.body["stored_in"] for ask in meanwhile)
        assert missed >= row.clients, f"{row.out} took all but {missed} of {len(meanwhile)} turns meanwhile"


def _check_that_both_answered(answered: list[Ask], terms: Terms) -> None:
    since = terms.injected + CUT_OFF_KNOWN
    late = [ask for ask in answered if since < ask.started and ask.ended < terms.ending]
    stores = [{tuple(ask.body["stored_in"]) for ask in late if ask.machine == machine} for machine in (0, 1)]
    assert stores == [{("redis",)}, {("mongo",)}], f"the machines stored in {stores} while they were cut off"


def _views(run: Run, stored: Stored) -> dict[str, View]:
    """Return what is there, read in every way in which it has to be complete: in both stores and through
    the API whichever comes first with dual write, in the primary and through the API without."""
    first, dual_write = run.route.primary, run.route.dual_write
    aliases = ("redis", "mongo") if dual_write else ("redis",) if first == "redis" else ()
    views: dict[str, View] = {alias: _current(stored.of(alias)) for alias in aliases}
    views["API"] = evidence.seen_by_clients(run.stack.service, run.load.sessions)
    if dual_write:
        second = Route("mongo" if first == "redis" else "redis", dual_write)
        run.stack.follow(second)
        views[f"API, {second.primary} first"] = evidence.seen_by_clients(run.stack.service, run.load.sessions)
    return views


def _current(conversations: Mapping[str, Held]) -> View:
    return {session: Held(held.current()) for session, held in conversations.items()}


def _keep(run: Run, name: str, views: Mapping[str, View], verdict: Verdict, logs: Mapping[Path, int]) -> None:
    """Keep the evidence of the verdict, for a person to read."""
    folder = KEPT / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    begun = run.terms.injecting
    asks = [
        asdict(ask) | {"started": round(ask.started - begun, 3), "ended": round(ask.ended - begun, 3)}
        for talk in run.load.talks
        for ask in talk.asks
    ]
    deleted = [
        asdict(gone) | {"started": round(gone.started - begun, 3), "ended": round(gone.ended - begun, 3)}
        for talk in run.load.talks
        for gone in talk.deletions
    ]
    found = {view: {name: asdict(held) for name, held in seen.items()} for view, seen in views.items()}
    terms = {name: getattr(run.terms, name) - begun for name in ("injected", "ending")}
    record = {"verdict": asdict(verdict), "terms": terms, "asks": asks, "deletions": deleted, "found": found}
    (folder / "record.json").write_text(json.dumps(record, indent=1))
    for number, (log, size) in enumerate(logs.items()):
        with log.open("rb") as source:
            source.seek(size)
            written = source.read()
        (folder / f"server{number}.log").write_bytes(written)
        warnings = [line for line in written.decode().splitlines() if '"level":"INFO"' not in line]
        verdict.examples += [f"server {number}: {line}" for line in warnings[-_WARNINGS:]]
