"""One run: two stores, two machines with a process each, clients, and the faults of a plan."""

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any

from conversations import chat, deadline, history, stores
from conversations.answerers.base import Answerer
from conversations.chat import Question
from conversations.errors import ConversationError, NoStore, NotPersisted, OutcomeUnknown, StoreUnavailable
from conversations.history import repair
from conversations.policy import Routing
from conversations.runtime import switching
from conversations.runtime.switching import FOLLOW_SECONDS
from conversations.stores import ALIASES, other
from conversations.turns import History, Limits
from ops import trim
from tests.answers import FAILED, OK, Event, Loss
from tests.simulation import plans
from tests.simulation.backends import FROZEN, REFUSED, UP, WORLD, Backend, Lossy, questions
from tests.simulation.environment import simulated
from tests.simulation.plans import LENGTH, QUIET, Fault, Plan, Request
from tests.simulation.processes import Machine, Process
from tests.simulation.scheduler import Scheduler, Task

NOT_PERSISTED = "not persisted"
TTL = 10_000  # virtual seconds: nothing expires by itself


class ShowsQuestions(Answerer):
    """Answers with the questions that it was shown."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def answer(self, question: str, history: History, *, behind: bool = False) -> Iterator[str]:
        self._scheduler.pause(self._scheduler.random.uniform(0.001, 0.3))
        yield json.dumps([message.content for message in history[::2]])


class World:
    """Plays a plan; afterwards `events`, `losses` and the stores are what happened."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.scheduler = Scheduler(plan.seed)
        self.events: list[Event] = []
        self.losses: list[Loss] = []
        self.began: list[Fault] = []
        self.disturbed: list[tuple[float, float]] = []
        """When each of the faults that began did so, and ended."""
        self.violations: list[str] = []
        limits = Limits(TTL, plan.max_turns, 10**6)
        self.backends = {alias: Backend(alias, limits, self.scheduler) for alias in ALIASES}
        for backend in self.backends.values():
            backend.every = [each.store for each in self.backends.values()]
        back = {fault.target for fault in plan.faults if fault.kind == "roll back"}
        self._rolled_back = [self.backends[alias] for alias in ALIASES if alias in back]
        self.machines = [Machine(str(number)) for number in range(plans.MACHINES)]
        self.processes: list[Process] = []
        self._numbers = [0] * plan.clients
        self._last: dict[str, str | None] = {}
        self._clients: list[Task] = []

    def play(self) -> None:
        Process.current = None
        answerer = ShowsQuestions(self.scheduler)
        with simulated(self.scheduler, lambda: answerer):
            routing = Routing(self.plan.primary, self.plan.dual_write)
            self.processes = [self._process(number, routing) for number in range(plans.MACHINES)]
            for fault in self.plan.faults:
                self._later(fault.at, lambda fault=fault: self._happen(fault))
            for client in range(self.plan.clients):
                self._clients.append(self._later(0.0, lambda client=client: self._be_client(client)))
            self._later(0.0, self._remember)
            self.scheduler.run(max((fault.at for fault in self.plan.faults), default=0.0))
            self._run_until_at_rest()

    def _run_until_at_rest(self) -> None:
        """Run on until nothing is left to repair for longer than a look of the watchers takes, or as long as repair
        may take."""
        rested = 0
        while self.scheduler.now < LENGTH + QUIET and rested < 3:
            self.scheduler.run(self.scheduler.now + 0.4)
            rested = rested + 1 if self._is_at_rest() else 0

    def _is_at_rest(self) -> bool:
        ended = all(end <= self.scheduler.now for _, end in self.disturbed) and all(one.done for one in self._clients)
        flags = any(backend.store._flags for backend in self.backends.values())
        return ended and not flags and all(process.is_at_rest for process in self.processes)

    def _process(self, number: int, routing: Routing) -> Process:
        name = f"{number}:{int(self.scheduler.now * 1000)}"
        process = Process(name, self.machines[number], self.backends, self.scheduler, routing)
        process.start()
        return process

    def _later(self, at: float, work: Callable[[], Any]) -> Task:
        """Run it then. What it raises ends the play: a client that is not answered at all would find nothing wrong."""

        def run() -> None:
            try:
                work()
            except Exception as error:
                self.scheduler.broken = error

        return self.scheduler.spawn(WORLD, run, at - self.scheduler.now)

    def _remember(self) -> None:
        """Keep snapshots that a store may be rolled back to."""
        while self.scheduler.now < LENGTH:
            for backend in self._rolled_back:
                backend.remember()
            self.scheduler.pause(self.scheduler.random.uniform(0.1, 1.0))

    # --- Faults ------------------------------------------------------------------------------------------

    def _happen(self, fault: Fault) -> None:
        name = fault.kind.replace(" ", "_")
        begun = self.scheduler.now
        self.began.append(fault)
        self.disturbed.append((begun, float("inf")))
        place = len(self.disturbed) - 1
        getattr(self, f"_{name}")(fault)
        self.disturbed[place] = (begun, self.scheduler.now)

    def _refuse(self, fault: Fault) -> None:
        backend = self.backends[fault.target]
        backend.condition = REFUSED
        self.scheduler.pause(fault.seconds)
        backend.condition = UP

    def _freeze(self, fault: Fault) -> None:
        backend = self.backends[fault.target]
        backend.condition = FROZEN
        self.scheduler.pause(fault.seconds)
        backend.thaw()

    def _lose_replies(self, fault: Fault) -> None:
        self._be_lossy(fault, Lossy(request=0.1, reply=0.4))

    def _apply_late(self, fault: Fault) -> None:
        self._be_lossy(fault, Lossy(late=0.5))

    def _be_lossy(self, fault: Fault, lossy: Lossy) -> None:
        backend = self.backends[fault.target]
        backend.lossy = lossy
        self.scheduler.pause(fault.seconds)
        backend.lossy = Lossy()
        self.scheduler.pause(3.0 if lossy.late else 0.0)

    def _restart(self, fault: Fault) -> None:
        self._stop_and_start(fault, lambda backend: None)

    def _wipe(self, fault: Fault) -> None:
        empty = Backend(fault.target, self.backends[fault.target].store.limits, self.scheduler).store.snapshot()
        self._stop_and_start(fault, lambda backend: self._replace(backend, empty))

    def _roll_back(self, fault: Fault) -> None:
        def older(backend: Backend) -> None:
            wanted = fault.at - fault.seconds
            self._replace(backend, max((each for each in backend.past if each[0] <= wanted), default=backend.past[0],
                                       key=lambda each: each[0])[1])  # fmt: skip

        self._stop_and_start(Fault(fault.at, fault.kind, fault.target, 0.2), older)

    def _stop_and_start(self, fault: Fault, change: Callable[[Backend], None]) -> None:
        backend = self.backends[fault.target]
        backend.condition = REFUSED
        backend.start_again()
        change(backend)
        self.scheduler.pause(min(fault.seconds, 3.0))
        backend.condition = UP

    def _replace(self, backend: Backend, snapshot: dict[str, Any]) -> None:
        """Let the store hold other data; note what nothing else holds."""
        theirs = self.backends[other(backend.alias)].store
        loss = Loss(self.scheduler.now, backend.alias)
        before = backend.store.snapshot()
        backend.store.restore(snapshot)
        kept = questions(backend.store.values) | questions(theirs.values)
        loss.turns = questions(before["values"]) - kept
        for session, (tombstone, _) in before["_tombstones"].items():
            still = max(store._tombstones.get(session, ("", 0.0))[0] for store in (backend.store, theirs))
            if still < tombstone:
                loss.deletions.add(session)
        self.losses.append(loss)

    def _cut(self, fault: Fault) -> None:
        self._trouble_link(fault, lambda machine: machine.cut)

    def _slow(self, fault: Fault) -> None:
        self._trouble_link(fault, lambda machine: machine.slow)

    def _trouble_link(self, fault: Fault, aliases: Callable[[Machine], set[str]]) -> None:
        """Keep the store, for as long as the fault lasts, among those that the machine reaches badly in that way."""
        number, alias = fault.target.split()
        troubled = aliases(self.machines[int(number)])
        troubled.add(alias)
        self.scheduler.pause(fault.seconds)
        troubled.discard(alias)

    def _part(self, fault: Fault) -> None:
        """Let each machine reach one store, and not the same."""
        cuts = list(zip((machine.cut for machine in self.machines), (fault.target, other(fault.target)), strict=True))
        for cut, alias in cuts:
            cut.add(alias)
        self.scheduler.pause(fault.seconds)
        for cut, alias in cuts:
            cut.discard(alias)

    def _kill_process(self, fault: Fault) -> None:
        number = int(fault.target)
        old = self.processes[number]
        if not old.alive:
            return
        old.kill()
        self.machines[number].locks.clear()
        self.scheduler.pause(fault.seconds)
        self.processes[number] = self._process(number, old.environment)

    def _skew(self, fault: Fault) -> None:
        kind, which = fault.target.split()
        changed: Any = self.machines[int(which)] if kind == "machine" else self.backends[which]
        changed.skew += fault.seconds

    def _evict(self, fault: Fault) -> None:
        """Let a store that evicts lose half of its conversations without a message."""
        store = self.backends[fault.target].store
        loss = Loss(self.scheduler.now, fault.target)
        kept = questions(self.backends[other(fault.target)].store.values)
        for session in sorted(store.values)[:: self.scheduler.random.choice((1, 2))]:
            loss.turns |= questions({session: store.values.pop(session)}) - kept
        self.losses.append(loss)

    def _expire(self, fault: Fault) -> None:
        """Let the TTL of every second conversation end, in both stores."""
        loss = Loss(self.scheduler.now, fault.target)
        every = [backend.store for backend in self.backends.values()]
        for session in sorted(set().union(*(store.values for store in every)))[:: self.scheduler.random.choice((1, 2))]:
            for store in every:
                loss.turns |= questions({session: store.values.pop(session, History())})
        self.losses.append(loss)

    def _trim_turns(self, fault: Fault) -> None:
        self._trim(fault, lambda scope: trim.max_turns(scope, 1))

    def _trim_conversations(self, fault: Fault) -> None:
        self._trim(fault, lambda scope: trim.older_than(scope, timedelta(0)))

    def _trim(self, fault: Fault, command: Callable[[trim.Scope], Any]) -> None:
        """Do as an operator's command does. What it removes, though from one store alone, may be missing from its
        beginning on."""
        aliases = ALIASES if fault.target == "both" else (fault.target,)
        scope = trim.Scope(aliases, apply=True, advance=lambda done, total: None)
        loss = Loss(self.scheduler.now, fault.target)
        self.losses.append(loss)
        for alias in aliases:
            self.backends[alias].trimmed = loss.turns  # goes on: a removal may be applied late
        self._operate(lambda: command(scope))

    def _fail_over(self, fault: Fault) -> None:
        """Do as `failover` does: dual write on, copy and compare, switch, and dual write as it was."""

        def command() -> None:
            newest = switching.newest_of(switching.read())
            before = newest.routing if newest else self.processes[0].environment
            switching.record(Routing(before.primary, True), "operator")
            try:
                self._copy()
            except StoreUnavailable:
                switching.record(before, "operator")
                return
            switching.record(Routing(before.fallback, True), "operator")
            self.scheduler.pause(FOLLOW_SECONDS)
            repair.Flagged().step(self.scheduler.now + repair.BATCH_SECONDS)
            switching.record(Routing(before.fallback, before.dual_write), "operator")

        self._operate(command)

    def _copy(self) -> None:
        """Repair every conversation of both stores, once all processes write to both; raise StoreUnavailable."""
        self.scheduler.pause(FOLLOW_SECONDS)
        for alias in ALIASES:
            for sessions in stores.bulk(alias).sessions(100):
                for session in sessions:
                    repair.conversation(session)

    def _switch(self, fault: Fault) -> None:
        self._record(lambda now: Routing(now.fallback, now.dual_write))

    def _dual_write_on(self, fault: Fault) -> None:
        self._record(lambda now: Routing(now.primary, True))

    def _dual_write_off(self, fault: Fault) -> None:
        self._record(lambda now: Routing(now.primary, False))

    def _record(self, change: Callable[[Routing], Routing]) -> None:
        """Do as an operator's command does."""

        def command() -> None:
            newest = switching.newest_of(switching.read())
            switching.record(change(newest.routing if newest else self.processes[0].environment), "operator")

        self._operate(command)

    def _operate(self, command: Callable[[], Any]) -> None:
        """Run it in a process of its own; it gives up where a store is out."""

        def run() -> None:
            with suppress(NoStore, StoreUnavailable):
                command()

        operator = Process("operator", self.machines[0], self.backends, self.scheduler, self.processes[0].environment)
        task = operator.spawn(run)
        self.scheduler.wait([task])
        if task.error:
            raise task.error

    # --- Clients -----------------------------------------------------------------------------------------

    def _be_client(self, client: int) -> None:
        session = f"s{client}"
        again: tuple[str, str] | None = None
        for request in self.plan.requests:
            if request.client != client:
                continue
            self.scheduler.pause(request.at - self.scheduler.now)
            process = self.processes[request.machine]
            if not process.alive:
                continue
            if request.kind == "ask":
                again = self._ask(client, session, request, process, again)
            else:
                self._do(Event(request.kind, session, request.machine, self.scheduler.now), process)

    def _ask(
        self, client: int, session: str, request: Request, process: Process, again: tuple[str, str] | None
    ) -> tuple[str, str] | None:
        """Ask a question, or the last one again where its outcome is unknown; return it if it is to be asked again."""
        if again:
            text, key = again
        else:
            self._numbers[client] += 1
            text = f"q{client}.{self._numbers[client]}"
            key = text if request.key else ""
        expected = self._last.get(session) if request.expecting else None
        event = Event("ask", session, request.machine, self.scheduler.now, text, expected)
        self._do(event, process, key or None)
        if event.outcome == OK:
            self._last[session] = event.message_id
            return None
        if event.error == "KeyExpired":
            return None
        key = key or event.key
        return (text, key) if key else None

    def _do(self, event: Event, process: Process, key: str | None = None) -> None:
        """Let the process serve the request; return when it has answered, or was killed."""
        self.events.append(event)
        work = {"ask": self._serve_ask, "read": self._serve_read, "delete": self._serve_delete}[event.kind]

        def handle() -> None:
            with deadline.begun():
                work(event, key)

        task = process.spawn(handle)
        event.cut_off = bool(process.machine.cut)
        self.scheduler.wait([task])
        event.cut_off |= bool(process.machine.cut)
        if task.error:
            raise task.error
        event.ended = self.scheduler.now

    def _serve_ask(self, event: Event, key: str | None) -> None:
        question = Question(event.text, event.session, last_message_id=event.expected, key=key)
        try:
            answer = chat.ask(question)
        except NotPersisted:
            event.outcome, event.error = FAILED, NOT_PERSISTED
        except OutcomeUnknown as error:
            event.error, event.key = "outcome unknown", error.idempotency_key
        except ConversationError as error:
            event.outcome, event.error = FAILED, type(error).__name__
        else:
            event.outcome, event.context, event.message_id = OK, answer.context, answer.message_id
            event.stored_in, event.replayed = answer.stored_in, answer.replayed
            event.seen = tuple(json.loads(answer.answer))

    def _serve_read(self, event: Event, key: str | None) -> None:
        try:
            reading = history.read(event.session)
        except NoStore:
            event.outcome = FAILED
            return
        event.outcome, event.context = OK, reading.context
        event.seen = tuple(message.content for message in reading.history[::2])

    def _serve_delete(self, event: Event, key: str | None) -> None:
        try:
            history.delete(event.session)
        except NoStore:
            event.outcome = FAILED
            return
        event.outcome = OK
        self._last[event.session] = None
