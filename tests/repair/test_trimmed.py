"""What is removed from one store alone is in the other: no sweep copies it back, and no answer takes it for nothing."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from conversations import history
from conversations.background import watcher
from conversations.clock import now
from conversations.history import trimmed
from conversations.history.sweep import Sweep
from conversations.ids import new_ids
from conversations.runtime import datasets, state
from conversations.runtime.pings import health
from conversations.stores import ALIASES, MONGO, REDIS, bulk, control, other, store
from tests.builders import a_session, a_turn
from tests.servers import MongoServer, Server, eventually


@pytest.fixture(autouse=True)
def _dual_write(settings: Any) -> Iterator[None]:
    settings.CONV_DUAL_WRITE = True
    state.forget()
    yield
    for alias in ALIASES:
        for one in ALIASES:
            control(one).write_note(datasets.trimmed_as(alias), "")
    state.forget()


@pytest.fixture
def servers(redis_server: Server, mongo_server: MongoServer) -> dict[str, Server]:
    return {REDIS: redis_server, MONGO: mongo_server}


def trim(alias: str) -> str:
    """Remove a conversation from one store alone; return its session."""
    session, turn = a_session(), a_turn(at=now())
    for each in ALIASES:
        store(each).append(session, turn)
    last_id = turn.answer.id
    trimmed.removed(alias, last_id)
    bulk(alias).remove({session: last_id}, tombstones=False)
    return session


@pytest.mark.parametrize("alias", ALIASES)
def test_what_was_trimmed_is_not_taken_for_a_new_conversation(alias: str, servers: dict[str, Server]) -> None:
    session = trim(alias)
    watcher._tick()
    assert history.read(session).context == "full"  # from the other store
    bulk(alias).remove({session: new_ids(now())[1]}, tombstones=False)  # it was copied back
    eventually(lambda: (watcher._tick(), not state.state().inputs(session).unknown_flags)[1], "flags are not read")
    servers[other(alias)].kill()
    try:
        reading = history.read(session)
        assert (reading.found, reading.context) == (False, "behind")
        assert history.read(a_session(), fresh=True).context == "full"
    finally:
        servers[other(alias)].start()
        eventually(lambda: (watcher._tick(), health(other(alias)).up)[1], "the driver has not found the server again")


def test_a_store_is_complete_again_once_what_was_trimmed_has_expired() -> None:
    ttl = store(REDIS).limits.ttl
    known = state.state().known
    for age, may_be_missed in ((ttl - 60, True), (ttl + 60, False)):
        known.trimmed = {REDIS: new_ids(now() - timedelta(seconds=age))[1], MONGO: ""}
        assert (REDIS in state.state().inputs(a_session()).trimmed) is may_be_missed


@pytest.mark.parametrize("alias", ALIASES)
def test_a_sweep_does_not_copy_back_what_was_trimmed(alias: str) -> None:
    """A store whose memory was full would be so again."""
    session, later = trim(alias), a_session()
    store(other(alias)).append(later, a_turn(at=now() + timedelta(seconds=1)))
    sweep = Sweep()
    eventually(sweep.step, "the sweep does not end")
    assert store(alias).load(session) is None
    assert store(alias).load(later)
