"""The operators' lease: who has it, and that it is released."""

import re

import pytest

from conversations.stores import MONGO, REDIS, store
from ops import lease
from ops.errors import Busy
from ops.failover.move import Failover
from tests.commands.working import run
from tests.servers import eventually

pytestmark = pytest.mark.usefixtures("both_empty")


def test_one_change_at_a_time() -> None:
    with lease.held("alice"), pytest.raises(Busy, match="running: alice"), lease.held("bob"):
        pass


def test_a_lease_that_one_store_refuses_is_released_in_the_other() -> None:
    """Otherwise the next command would wait for ten seconds."""
    store(MONGO).lease("operator", "alice", 30)
    with pytest.raises(Busy), lease.held("bob"):
        pass
    eventually(lambda: store(REDIS).lease("operator", "carol", 1), "bob has it still", patience=2)


def test_with_a_store_out_the_other_one_gives_it(mongo_out: None) -> None:
    with lease.held("alice"):
        assert not store(REDIS).lease("operator", "bob", 1)


def test_with_both_stores_out_no_command_waits(redis_out: None, mongo_out: None) -> None:
    """No other command can change a store that cannot be reached."""
    with lease.held("alice"):
        pass


def test_a_command_is_refused_by_the_name_of_the_other_one() -> None:
    with lease.held("trim by alice@there, process 7"):
        assert lease.holder() == "trim by alice@there, process 7"
        code, output = run("failover", "--to", "mongo")
    assert (code, "is running: trim by alice@there, process 7." in output) == (2, True)
    assert lease.holder() is None


def test_a_command_holds_it_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(Failover, "run", lambda self: seen.append(lease.holder()))
    with pytest.raises(AttributeError):
        run("failover", "--to", "mongo")
    assert re.fullmatch(r"failover by .+@.+, process \d+", str(seen[0]))
