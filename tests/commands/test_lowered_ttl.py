"""What a command deletes has tombstones that live as long as copies of a longer TTL, which the stores have noted."""

from datetime import timedelta
from pathlib import Path

import pytest

from conversations import clock
from conversations.clock import now
from conversations.runtime import datasets
from conversations.stores import ALIASES, MONGO, REDIS, control, store
from tests.builders import a_turn
from tests.commands.test_backup import make
from tests.commands.working import hold, run
from tests.contract import test_stores

DAY = 86_400
CONTRACTS = {REDIS: test_stores.TestCacheStore(), MONGO: test_stores.TestDocumentStore()}

pytestmark = pytest.mark.usefixtures("both_empty")


@pytest.mark.parametrize("command", ["conversation", "trim", "restore", "reconcile"])
@pytest.mark.parametrize("noted_in", ALIASES)
def test_its_tombstones_live_as_long_as_any_copy(tmp_path: Path, command: str, noted_in: str) -> None:
    turn = a_turn(at=now() - timedelta(days=3))
    session = hold(*ALIASES, turns=(turn,))
    if command in ("restore", "reconcile"):
        store(REDIS).delete(session, turn.answer.id)
    words = {
        "conversation": ("conversation", "delete", session, "--noinput"),
        "trim": ("trim", "--older-than", "2d", "--apply"),
        "restore": ("restore", str(make(tmp_path)), "--into", MONGO),
        "reconcile": ("reconcile", "--apply"),
    }[command]
    control(noted_in).write_note(datasets.LATEST_EXPIRY, str(clock.timestamp() + 90 * DAY))
    assert run(*words)[0] == 0
    for alias in (MONGO,) if command in ("restore", "reconcile") else ALIASES:
        CONTRACTS[alias].let_pass(store(alias), session, 89 * DAY)
        assert store(alias).inspect(session).tombstone
