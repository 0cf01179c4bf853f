"""The watcher's second: whatever is stored, and whatever fails, the rest of it is done."""

import logging
import time
from datetime import timedelta
from pathlib import Path

import pytest
from django.conf import settings

from conversations.background import watcher
from conversations.clock import now
from conversations.errors import CorruptHistory, StoreUnavailable
from conversations.history import writing
from conversations.runtime import datasets, state
from conversations.stores import ALIASES, REDIS, store
from conversations.stores.mongo.patient import documents
from tests import environment
from tests.builders import a_session


def corrupt(alias: str) -> str:
    """Return a session under which the store has something that is no history."""
    session = a_session()
    if alias == REDIS:
        with environment.REDIS.client() as client:
            client.set(f"conv:{session}", "junk", ex=600)
    else:
        documents().insert_one({"_id": f"conv:{session}", "messages": "junk", "expires_at": now() + timedelta(hours=1)})
    return session


def is_flagged(alias: str, session: str) -> bool:
    return store(alias).inspect(session).flag is not None


def left_by_a_killed_process(*sessions: str) -> Path:
    """Return the journal of a process that was writing these."""
    page = Path(settings.VAR_DIR) / "run" / "underway" / "1-gone"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_bytes(b"".join(session.encode().ljust(264, b"\0") for session in sessions))
    return page


@pytest.mark.parametrize("alias", ALIASES)
def test_what_is_corrupt_is_quarantined_and_flagged(alias: str) -> None:
    session = corrupt(alias)
    with pytest.raises(CorruptHistory):
        store(alias).append(session, None, flag=True)
    writing.flag_later(session, [alias])
    watcher._tick()
    assert (alias, session) not in state.state().pending_flags
    assert is_flagged(alias, session)


@pytest.mark.parametrize("alias", ALIASES)
def test_what_may_arrive_late_is_flagged_once_more(alias: str) -> None:
    """After a partition a turn can arrive in one store alone when its conversation has been repaired."""
    session = a_session()
    writing.flag_later(session, [alias])
    watcher._tick()
    flag = store(alias).inspect(session).flag
    assert flag
    store(alias).clear_flag(session, flag)
    watcher._tick()
    assert not is_flagged(alias, session)
    state.state().late_flags[alias, session] = time.monotonic()
    watcher._tick()
    assert is_flagged(alias, session)
    assert (alias, session) not in state.state().late_flags


@pytest.mark.parametrize("alias", ALIASES)
def test_a_write_flags_what_is_corrupt(alias: str) -> None:
    session = corrupt(alias)
    writing.flag_unsynced(session, alias)
    assert is_flagged(alias, session)


def test_what_stays_corrupt_is_logged_and_dropped(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    session = corrupt(REDIS)
    monkeypatch.setattr(store(REDIS), "quarantine", lambda session: False)
    writing.flag_later(session, [REDIS])
    with caplog.at_level(logging.WARNING):
        watcher._tick()
    assert (REDIS, session) not in state.state().pending_flags
    assert "not_flagged" in caplog.messages


def test_one_corrupt_conversation_of_a_killed_process_keeps_no_other_from_being_flagged() -> None:
    sessions = sorted([corrupt(REDIS), a_session(), "half a name:"])
    page = left_by_a_killed_process(*sessions)
    watcher._tick()
    assert not page.exists()
    assert all(is_flagged(REDIS, session) for session in sessions if session != "half a name:")


def test_a_flag_that_the_store_refuses_is_tried_again_and_no_other_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    refused, accepted = sorted([a_session(), a_session()])
    append = store(REDIS).append

    def refuse(session: str, *arguments: object, **options: object) -> object:
        if session == refused:
            raise StoreUnavailable(REDIS, "WriteError")
        return append(session, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(store(REDIS), "append", refuse)
    page = left_by_a_killed_process(refused, accepted)
    watcher._tick()
    assert not page.exists()
    assert is_flagged(REDIS, accepted)
    monkeypatch.undo()
    watcher._tick()
    assert is_flagged(REDIS, refused)


@pytest.mark.parametrize(
    ("module", "part"),
    [(watcher, "look"), (watcher, "_correct_clock"), (datasets, "note_expiry"), (watcher, "_note_flags")],
)
def test_a_part_that_fails_is_logged_and_the_others_are_done(
    module: object, part: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise ValueError

    watcher._tick()
    monkeypatch.setattr(module, part, fail)
    session = a_session()
    page = left_by_a_killed_process(session)
    watcher._tick()
    assert "watcher_failed" in caplog.messages
    assert not page.exists()


def test_the_process_that_repairs_uses_a_store_at_once_when_it_is_back() -> None:
    for one in state.state().stores.values():
        one.reads.trip()
        one.writes.trip()
    watcher._tick()
    assert not any(one.reads.allows() or one.writes.allows() for one in state.state().stores.values())
    watcher._tick(eager=True)
    assert all(one.reads.allows() and one.writes.allows() for one in state.state().stores.values())


def test_the_watcher_ends_with_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise RuntimeError("cannot schedule new futures after interpreter shutdown")

    monkeypatch.setattr(watcher._executor, "submit", refuse)
    watcher._forever(watcher._tick, 0.0)
