"""A virtual clock and a scheduler: tasks are greenlets, and every wait is a place where another task runs.

All randomness comes from one seeded generator, so a seed always gives the same run.
"""

import heapq
from collections.abc import Callable
from functools import partial
from itertools import count
from random import Random
from typing import Any, Protocol

from greenlet import getcurrent, greenlet


class Owner(Protocol):
    """What a task belongs to: a process of the simulated service, or the world around it."""

    def enter(self) -> None:
        """Called before a task of this owner goes on."""


class Task:
    """One thread of execution. `result` or `error` is what it ended with."""

    def __init__(self, owner: Owner, work: Callable[[], Any], hub: greenlet) -> None:
        self.owner = owner
        self.done = False
        self.cancelled = False
        self.ticket = 0
        """Which wait of it this is: a wake that belongs to an earlier one is ignored."""
        self.result: Any = None
        self.error: BaseException | None = None
        self.when_done: list[Callable[[], None]] = []
        self._work = work
        self.greenlet = greenlet(self._run, hub)  # where control goes when it ends

    def _run(self) -> None:
        try:
            self.result = self._work()
        except Exception as error:
            self.error = error
        self.end()

    def end(self) -> None:
        self.done = True
        for callback in self.when_done:
            callback()


class Scheduler:
    """Runs tasks one at a time, in the order of the virtual time that each waits for."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.now = 0.0
        self.steps = 0
        self.running: Task | None = None
        self.broken: Exception | None = None
        """What ended a thread that must not end."""
        self._until = 0.0
        self._queue: list[tuple[float, int, Task, int]] = []
        self._numbers = count()
        self._hub = getcurrent()
        self._cancelled: list[Task] = []  # kept: a greenlet that is collected would run its `finally` blocks

    def spawn(self, owner: Owner, work: Callable[[], Any], delay: float = 0.0) -> Task:
        """Return a task that begins after so many seconds."""
        task = Task(owner, work, self._hub)
        self._wake(task, delay)
        return task

    def pause(self, seconds: float) -> None:
        """Let the running task wait; others run meanwhile. Where none is due before it, it goes on at once."""
        task, then = self.running, self.now + max(seconds, 0.0)
        assert task
        if then <= self._until and (not self._queue or then < self._queue[0][0]):
            self.now = then
            task.ticket += 1
            self.steps += 1
        else:
            heapq.heappush(self._queue, (then, next(self._numbers), task, task.ticket))
            self._hub.switch()

    def wait(self, tasks: list[Task], seconds: float | None = None) -> None:
        """Let the running task wait until all of these have ended, or for so many seconds."""
        until = float("inf") if seconds is None else self.now + seconds
        waiting = self.running
        assert waiting
        wake = partial(self._wake, waiting, 0.0)
        for task in tasks:
            task.when_done.append(wake)
        while self.now < until and [task for task in tasks if not task.done]:
            if seconds is not None:
                self._wake(waiting, until - self.now)
            self._hub.switch()

    def cancel(self, task: Task) -> None:
        """Never let it go on: nothing of it runs any more, as when its process is killed."""
        task.cancelled = True
        self._cancelled.append(task)
        task.end()

    def run(self, until: float) -> None:
        """Run all tasks until this time; raise what a task of the world itself raised."""
        self._until = until
        owner: Owner | None = None
        while self._queue and self._queue[0][0] <= until:
            self.now, _, task, ticket = heapq.heappop(self._queue)
            if task.cancelled or ticket != task.ticket:
                continue
            task.ticket += 1
            self.steps += 1
            self.running = task
            if task.owner is not owner:
                owner = task.owner
                owner.enter()
            task.greenlet.switch()
            if self.broken:
                raise self.broken
        self.now = until

    def _wake(self, task: Task, delay: float) -> None:
        heapq.heappush(self._queue, (self.now + delay, next(self._numbers), task, task.ticket))
