"""Moving traffic to the other store. Each step looks at the present state, so that a run which was interrupted, even by
kill -9, is finished by the next.

While it runs a note in both stores records what dual write was before; see note.py.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from conversations.errors import ConversationError
from conversations.history import repair
from conversations.policy import Routing
from conversations.runtime import switching
from conversations.runtime.switching import FOLLOW_SECONDS
from conversations.stores import other
from ops.consistency import reconcile
from ops.errors import Refused
from ops.failover import checks, copying
from ops.failover import note as notes
from ops.failover.copying import Progress
from ops.failover.note import NAME
from ops.failover.report import Already, FailoverReport, Finding, Steps
from ops.status.render import in_words


@dataclass(frozen=True, slots=True)
class Request:
    """What an operator asks for."""

    to: str
    by: str
    force: bool = False
    dry_run: bool = False
    reason: str = ""


class Failover:
    """One move of the primary. `say` is called with each step, `progress` shows how far a long one has come."""

    def __init__(self, request: Request, say: Callable[[str], None], progress: Progress) -> None:
        self.request = request
        self.to, self.leaving = request.to, other(request.to)
        self.progress = progress
        self.steps = Steps(say)
        self.findings: list[Finding] = []
        self.sample: list[str] = []
        self.before = self.routing = switching.current()
        self.note, self.resumed = notes.resume(self.routing)

    def run(self) -> FailoverReport:
        """Do the steps that are not done yet. Raise Refused, or StoreUnavailable when a store goes out meanwhile; then
        primary and dual write are as they were."""
        leaving_up = self._precheck()
        if self.routing.primary == self.to:
            return self._already()
        if not leaving_up:
            return self._without_the_other()
        return self._rehearse() if self.request.dry_run else self._move()

    # --- the possible ways ---------------------------------------------------------------------------

    def _move(self) -> FailoverReport:
        notes.write(self.note, done=False)
        try:
            self._switch("dual write on", Routing(self.leaving, True))
            differences = self._copy()
        except (ConversationError, KeyboardInterrupt):
            self._put_back()
            raise
        if differences and not self.request.force:
            self._put_back()
            return self._report(f"{differences} conversations differ; the primary is still {self.leaving}")
        self._switch("switch primary", Routing(self.to, True))
        return self._finish()

    def _already(self) -> FailoverReport:
        self.findings.append(Already(not self.resumed))
        if not self.resumed:
            self.steps.add("switch primary", f"{self.to} is the primary already; nothing to do")
            return self._report()
        if self.request.dry_run:
            self.steps.add("dual write as it was", "would finish what was interrupted")
            return self._report()
        self.steps.add("switch primary", f"{self.to} is the primary already; finishing what was interrupted")
        return self._finish()

    def _without_the_other(self) -> FailoverReport:
        lost = checks.left_behind(self.leaving, self.to, self.routing)
        self.findings.append(lost)
        text = checks.left_behind_in_words(lost, self.leaving, self.to, self.routing)
        if not self.request.force and not self.request.dry_run:
            raise Refused(f"{text} --force switches all the same")
        self.steps.add("backfill", f"impossible. {text}")
        if self.request.dry_run:
            self.steps.add("switch primary", f"would make {self.to} the primary, with --force only")
            return self._report()
        notes.write(self.note, done=False)
        self._switch("switch primary", Routing(self.to, self.note.dual_write))
        return self._finish()

    def _rehearse(self) -> FailoverReport:
        found = copying.rehearse(self.leaving, self.to, self.progress)
        self.findings.append(found)
        self.steps.add("dual write on", "is on already" if self.routing.dual_write else "would switch it on")
        self.steps.add("backfill", f"would copy {found.would_copy} of {found.compared} conversations to {self.to}")
        self.steps.add("switch primary", f"would make {self.to} the primary, once no conversation differs")
        self.steps.add("dual write as it was", f"would leave it {on(self.note.dual_write)}")
        return self._report()

    # --- the steps ----------------------------------------------------------------------------------

    def _precheck(self) -> bool:
        """Return whether the store that is left answers; raise Refused when the other cannot be used."""
        text = checks.target(self.to, probe="" if self.request.dry_run else self.request.by)
        reason = checks.outage(self.leaving)
        self.steps.add("precheck", f"{text}; {self.leaving} {f'is out ({reason})' if reason else 'answers'}")
        return not reason

    def _copy(self) -> int:
        """Copy and compare; return how many conversations the target is missing something of still."""
        copied, self.sample = copying.backfill(self.leaving, self.progress)
        self.findings.append(copied)
        self.steps.add("backfill", f"{copied.copied} of {copied.conversations} conversations brought into step")
        verified, repaired = copying.verify(self.to, self.progress)
        self.findings.append(verified)
        meanwhile = f", {repaired} repaired while verifying" if repaired else ""
        counts = f"{verified.compared} conversations compared, {verified.differences} differences"
        self.steps.add("verify", counts + meanwhile)
        return verified.differences

    def _switch(self, step: str, routing: Routing, *, wait: bool = True) -> None:
        if self.routing == routing:
            self.steps.add(step, "is so already")
            return
        before, self.routing = self.routing, routing  # first: Ctrl-C may come while it is recorded
        try:
            _, taken = switching.record(routing, self.request.by, f"{self.request.reason or NAME} [{self.note.id}]")
        except ConversationError:
            self.routing = before
            raise
        if wait:
            time.sleep(FOLLOW_SECONDS)
        followed = "has followed by now" if wait else "follows within two seconds"
        self.steps.add(step, f"{in_words(routing)}; recorded in {' and '.join(taken)}; every process {followed}")

    def _finish(self) -> FailoverReport:
        problems = checks.problems(self.to, self.sample)
        healthy = f"{self.to} answers and the switch is the newest"
        self.steps.add("verify health", f"{problems or healthy}; {checks.server_in_words()}")
        if self.routing.dual_write != self.note.dual_write:
            with reconcile.quietly():
                repair.Flagged().step(time.monotonic() + repair.BATCH_SECONDS)
            self._switch("dual write as it was", Routing(self.to, self.note.dual_write), wait=False)
        else:
            self.steps.add("dual write as it was", f"it is {on(self.note.dual_write)}")
        notes.write(self.note, done=True)
        return self._report(problems)

    def _put_back(self) -> None:
        """Make dual write what it was; when no store can take that, the next run does it."""
        before = Routing(self.leaving, self.note.dual_write)
        if self.routing.dual_write == before.dual_write:
            notes.write(self.note, done=True)
            return
        try:
            switching.record(before, self.request.by, f"{NAME} given up [{self.note.id}]")
        except ConversationError:
            self.steps.add("dual write as it was", "could not be recorded; run it again")
            return
        self.routing = before
        notes.write(self.note, done=True)
        self.steps.add("dual write as it was", f"given up: it is {on(before.dual_write)} again")

    def _report(self, trouble: str = "") -> FailoverReport:
        return FailoverReport(
            self.leaving, self.to, self.request.dry_run, tuple(self.steps.made), self.resumed,
            tuple(self.findings), self.before, self.routing, trouble,
        )  # fmt: skip


def on(dual_write: bool) -> str:
    return "on" if dual_write else "off"
