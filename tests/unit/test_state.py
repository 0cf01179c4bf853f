"""The state of a process: one, whichever thread asks first."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from conversations import stores
from conversations.policy import Inputs
from conversations.runtime.state import ProcessState, state
from conversations.stores import ALIASES, REDIS, store
from conversations.stores.control import Flags
from tests.builders import a_session


def test_threads_that_are_first_get_one_state_and_its_stores_breakers() -> None:
    """Else a failure would be counted in a breaker that is not looked at."""
    stores._built.clear()
    together = threading.Barrier(8)

    def first(_: int) -> int:
        together.wait()
        return id(state())

    with ThreadPoolExecutor(8) as pool:
        states = set(pool.map(first, range(8)))
    assert len(states) == 1
    for alias in ALIASES:
        known = state().stores[alias]
        assert (known.reads, known.writes) == (store(alias).reads, store(alias).writes)


@pytest.fixture
def process() -> ProcessState:
    """A process that knows of nothing wrong, whatever the tests before have noted in the stores."""
    process = state()
    for noted in (process.known.trimmed, process.known.cut_off, process.known.flagged):
        noted.clear()
    for alias in ALIASES:
        process.remember_flags(alias, Flags(), time.monotonic())
    return process


def test_inputs_are_not_kept_for_what_changes_while_they_are_worked_out(
    process: ProcessState, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, work_out = a_session(), ProcessState._inputs

    def work_out_and_be_overtaken(self: ProcessState, session: str) -> Inputs:
        inputs = work_out(self, session)
        self.known.cut_off[REDIS] = frozenset({"elsewhere:1"})
        return inputs

    monkeypatch.setattr(ProcessState, "_inputs", work_out_and_be_overtaken)
    assert process._are_for_all(process.inputs(session))
    monkeypatch.undo()
    assert process.inputs(session).cut_off == {REDIS}


def test_inputs_are_kept_while_nothing_changes(process: ProcessState) -> None:
    before = process.inputs(a_session())
    assert process.inputs(a_session()) is before
    process.stores[REDIS].writes.trip()
    assert process.inputs(a_session()).writable == set(ALIASES) - {REDIS}
