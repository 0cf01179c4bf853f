"""Moving traffic to the other store: each step looks at what is, so that what was cut off half way, even by
kill -9, is finished by running it again.

While it is under way a note in both stores says what dual write was before; it counts as long as nobody else has
switched since.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any
from uuid import uuid4

import orjson

from conversations.errors import ConversationError, CorruptHistory, StoreUnavailable
from conversations.history import repair
from conversations.policy import Routing, Switch
from conversations.runtime import switching
from conversations.stores import ALIASES, other, store
from ops import direct
from ops.consistency import compare, reconcile
from ops.consistency.reconcile import Advance
from ops.errors import NoServer, Refused
from ops.service import Service
from ops.status import facts

FOLLOW_SECONDS = 2.5  # every process follows a switch within two
NOTE = "failover"
SLOW_MS = 50.0  # the runbook's limit
_SAMPLE = 20


@dataclass
class Outcome:
    """What was done, for machines; said to people as it was done."""

    facts: dict[str, Any]
    before: dict[str, Any]
    trouble: str = ""


@dataclass
class Failover:
    """One move of the primary. `say` is told each step, `progress` shows how far a long one is."""

    to: str
    by: str
    say: Callable[[str], None]
    progress: Callable[[str], AbstractContextManager[Advance]]
    force: bool = False
    dry_run: bool = False
    reason: str = ""
    steps: list[dict[str, str]] = field(default_factory=list)
    told: dict[str, Any] = field(default_factory=dict)
    sample: list[str] = field(default_factory=list)
    """Some of the conversations that were copied, to be read back at the end."""

    def run(self) -> Outcome:
        """Do what is left to do. Raise Refused, or StoreUnavailable when a store goes out meanwhile; then
        primary and dual write are as they were."""
        self.leaving = other(self.to)
        self.routing = facts.routing()
        self.told |= {"from": self.leaving, "to": self.to, "dry_run": self.dry_run, "steps": self.steps}
        self._adopt()
        leaving_up = self._precheck()
        if self.routing.primary == self.to:
            return self._already()
        if not leaving_up:
            return self._without_the_other()
        if self.dry_run:
            return self._rehearse()
        return self._move()

    # --- the ways through ---------------------------------------------------------------------------

    def _move(self) -> Outcome:
        self._begin()
        try:
            self._switch("dual write on", Routing(self.leaving, True))
            self._backfill()
            differences = self._verify()
        except (ConversationError, KeyboardInterrupt):
            self._put_back()
            raise
        if differences and not self.force:
            self._put_back()
            return self._outcome(f"{differences} conversations differ; the primary is still {self.leaving}")
        self._switch("switch primary", Routing(self.to, True))
        return self._finish()

    def _already(self) -> Outcome:
        self.told["already"] = not self.unfinished
        if not self.unfinished:
            self._step("switch primary", f"{self.to} is the primary already; nothing to do")
            return self._outcome()
        if self.dry_run:
            self._step("dual write as it was", "would finish what was interrupted")
            return self._outcome()
        self._step("switch primary", f"{self.to} is the primary already; finishing what was interrupted")
        return self._finish()

    def _without_the_other(self) -> Outcome:
        lost = self._cannot_be_copied()
        if not self.force and not self.dry_run:
            raise Refused(f"{lost} --force switches all the same")
        self._step("backfill", f"impossible. {lost}")
        if self.dry_run:
            self._step("switch primary", f"would make {self.to} the primary, with --force only")
            return self._outcome()
        self._begin()
        self._switch("switch primary", Routing(self.to, self.dual_before))
        return self._finish()

    def _rehearse(self) -> Outcome:
        lacking = compared = 0
        with self.progress("compare") as advance:
            total = facts.estimate(self.leaving)
            for batch in compare.walk():
                compared += len(batch)
                lacking += sum(bool(one.lacking.get(self.to)) for one in batch)
                advance(compared, max(total, compared))
        self.told |= {"compared": compared, "would_copy": lacking}
        self._step("dual write on", "is on already" if self.routing.dual_write else "would switch it on")
        self._step("backfill", f"would copy {lacking} of {compared} conversations to {self.to}")
        self._step("switch primary", f"would make {self.to} the primary, once no conversation differs")
        self._step("dual write as it was", f"would leave it {_on(self.dual_before)}")
        return self._outcome()

    # --- the steps ----------------------------------------------------------------------------------

    def _precheck(self) -> bool:
        """Return whether the store that is left answers; raise Refused when the other cannot be used."""
        try:
            pings = direct.patiently(partial(facts.ping_ms, self.to))
            if not self.dry_run:
                store(self.to).write_note("probe", self.by)  # one that is full or read-only answers every ping
        except StoreUnavailable as error:
            raise Refused(f"{self.to} cannot be used ({error.reason}), so no traffic can go there") from error
        took = facts.p95(pings)
        slow = f", slower than {SLOW_MS:.0f} ms" if took > SLOW_MS else ""
        can = "answers" if self.dry_run else "answers and takes writes"
        text = f"{self.to} {can}, p95 {took:.1f} ms{slow}"
        try:
            direct.patiently(store(self.leaving).ping)
        except StoreUnavailable as error:
            self._step("precheck", f"{text}; {self.leaving} is out ({error.reason})")
            return False
        self._step("precheck", f"{text}; {self.leaving} answers")
        return True

    def _backfill(self) -> None:
        done = copied = 0
        with self.progress("backfill") as advance, reconcile.quietly():
            total = facts.estimate(self.leaving)
            for sessions in direct.names(self.leaving, compare.PAGE):
                batch = compare.compare_all(sessions)
                lacking = [one for one in batch if not one.in_step]
                reconcile.heal_all(lacking)
                copied += len(lacking)
                done += len(batch)
                advance(done, max(total, done))
                self.sample = [one.session for one in batch if one.stores][:_SAMPLE] or self.sample
        self.told |= {"conversations": done, "copied": copied}
        self._step("backfill", f"{copied} of {done} conversations brought into step")

    def _verify(self) -> int:
        """Return how many conversations the target still lacks something of."""
        with self.progress("verify") as advance:
            found = reconcile.reconcile(Routing(self.to, False), apply=True, advance=advance)
        meanwhile = f", {found.counts['repaired']} mended while verifying" if found.counts["repaired"] else ""
        self.told |= {"compared": found.counts["compared"], "differences": found.left}
        self._step("verify", f"{found.counts['compared']} conversations compared, {found.left} differences{meanwhile}")
        return found.left

    def _switch(self, step: str, routing: Routing, *, wait: bool = True) -> None:
        if self.routing == routing:
            self._step(step, "is so already")
            return
        text = f"{self.reason or NOTE} [{self.id}]"
        _, taken = switching.record(routing, self.by, text)
        self.routing = routing
        followed = "follows within two seconds"
        if wait:
            time.sleep(FOLLOW_SECONDS)
            followed = "has followed by now"
        self._step(step, f"{_in_words(routing)}; recorded in {' and '.join(taken)}; every process {followed}")

    def _finish(self) -> Outcome:
        problems = self._verify_health()
        if self.routing.dual_write != self.dual_before:
            with reconcile.quietly():
                repair.heal_marked(time.monotonic() + repair.BATCH_SECONDS)
            self._switch("dual write as it was", Routing(self.to, self.dual_before), wait=False)
        else:
            self._step("dual write as it was", f"it is {_on(self.dual_before)}")
        self._end()
        return self._outcome(problems)

    def _verify_health(self) -> str:
        """Return what is wrong with where traffic goes now, "" for nothing."""
        problems = []
        for alias, switch in switching.read().items():
            if switch is None or switch.routing.primary != self.to:
                problems.append(f"the newest switch in {alias} is not this one")
        try:
            found = direct.contents(self.to, self.sample)
            if not all(_is_there(one) for one in found.values()):
                problems.append(f"{self.to} does not give back what was copied")
            store(self.to).ping()
        except StoreUnavailable as error:
            problems.append(f"{self.to} is out ({error.reason})")
        said = "; ".join(problems) or f"{self.to} answers and the switch is the newest"
        self._step("verify health", f"{said}; {self._server_says()}")
        return "; ".join(problems)

    def _server_says(self) -> str:
        """Return what /healthz of this machine's server says, which may be another service's."""
        try:
            status, body = Service(facts.server_url(), seconds=2).call("GET", "/healthz")
            told = orjson.loads(body)
            return f"{facts.server_url()} says {told['status']}, primary {told['primary']} ({status})"
        except (NoServer, ValueError, KeyError, TypeError):
            return f"no server of ours answers on {facts.server_url()}"

    # --- what was before ----------------------------------------------------------------------------

    def _adopt(self) -> None:
        """Go on with what an interrupted one has begun, if nobody has switched since."""
        newest = switching.newest_of(switching.read())
        note = _newest_note()
        self.unfinished = bool(note) and not note["done"] and _is_ours(note, newest)
        self.id = note["id"] if self.unfinished else uuid4().hex[:8]
        self.dual_before: bool = note["dual_write"] if self.unfinished else self.routing.dual_write
        self.since = note["since"] if self.unfinished else newest.at if newest else 0.0
        self.before = asdict(self.routing)
        self.told["resumed"] = self.unfinished

    def _begin(self) -> None:
        self._write_note(done=False)

    def _end(self) -> None:
        self._write_note(done=True)

    def _write_note(self, *, done: bool) -> None:
        note = {"id": self.id, "dual_write": self.dual_before, "since": self.since, "done": done, "at": time.time()}
        for alias in ALIASES:
            try:
                store(alias).write_note(NOTE, orjson.dumps(note).decode())
            except StoreUnavailable:
                continue

    def _put_back(self) -> None:
        """Make dual write what it was; when that cannot be said to either store, the next run does it."""
        if self.routing.dual_write == self.dual_before:
            self._end()
            return
        try:
            switching.record(Routing(self.leaving, self.dual_before), self.by, f"{NOTE} given up [{self.id}]")
        except ConversationError:
            self._step("dual write as it was", "could not be recorded; run it again")
            return
        self.routing = Routing(self.leaving, self.dual_before)
        self._end()
        self._step("dual write as it was", f"given up: it is {_on(self.dual_before)} again")

    def _cannot_be_copied(self) -> str:
        """Return what stays behind in the store that is out, as exactly as it can be known."""
        there = direct.patiently(partial(facts.estimate, self.to))
        self.told["in_target"] = there
        text = f"{self.leaving} is out: what only it has cannot be copied."
        if self.routing.dual_write:
            served = facts.served_metrics() or {}
            known = served.get(("unsynced_conversations", self.leaving, ""))
            self.told["only_in_leaving"] = None if known is None else int(known)
            count = "unknown, as no server answers" if known is None else f"{known:.0f} when a server last saw it"
            text += f" Dual write was on, so those are the conversations marked there: {count}."
        else:
            self.told["only_in_leaving"] = None
            text += " Dual write was off, so how many is unknown: the store is out."
        return (
            f"{text} About {there} conversations are in {self.to}. Nothing is deleted: `reconcile --apply` brings them "
            f"together when {self.leaving} is back."
        )

    def _step(self, name: str, text: str) -> None:
        self.steps.append({"step": name, "outcome": text})
        self.say(f"{name}: {text}")

    def _outcome(self, trouble: str = "") -> Outcome:
        self.told |= {"primary": self.routing.primary, "dual_write": self.routing.dual_write}
        return Outcome(self.told, self.before, trouble)


def _newest_note() -> dict[str, Any]:
    notes = []
    for alias in ALIASES:
        try:
            notes.append(orjson.loads(store(alias).note(NOTE) or "null"))
        except (StoreUnavailable, ValueError):
            continue
    names = {"id", "dual_write", "since", "done", "at"}
    return max((note for note in notes if isinstance(note, dict) and names <= set(note)),
               key=lambda note: float(note["at"]), default={})  # fmt: skip


def _is_ours(note: dict[str, Any], newest: Switch | None) -> bool:
    """Return whether the newest switch is of the failover that wrote the note, or was there before it."""
    if newest is None:
        return bool(note["since"] == 0.0)
    return bool(newest.at == note["since"] or newest.reason.endswith(f"[{note['id']}]"))


def _is_there(found: direct.Found) -> bool:
    return not isinstance(found, CorruptHistory) and bool(found.history or found.tombstone)


def _in_words(routing: Routing) -> str:
    return f"primary {routing.primary}, dual write {_on(routing.dual_write)}"


def _on(dual_write: bool) -> str:
    return "on" if dual_write else "off"
