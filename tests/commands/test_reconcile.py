"""`reconcile`: what counts as out of step, and that --apply repairs it."""

from collections.abc import Iterator

import pytest

from conversations.policy import Routing
from conversations.runtime import switching
from conversations.stores import MONGO, REDIS, store
from conversations.turns import Message, Turn
from ops.consistency import compare
from ops.models import AuditEntry
from tests import environment
from tests.builders import a_session, some_turns
from tests.commands.working import hold, run, run_json, turns_in
from tests.servers import RedisServer

pytestmark = pytest.mark.usefixtures("both_empty")


@pytest.fixture(autouse=True)
def _no_second_look_to_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "SECOND_LOOK_SECONDS", 0.0)


@pytest.fixture
def dual_write(both_empty: None) -> Iterator[None]:
    switching.record(Routing(REDIS, True), "a test")
    yield


def test_stores_in_step_are_fine() -> None:
    hold(REDIS, MONGO)
    code, output = run("reconcile")
    assert code == 0
    assert output.splitlines() == [
        "1 conversations compared; primary redis, dual write off",
        "  in step                 1",
        "  only in redis           0",
        "  only in mongo           0",
        "  fallback behind         0",
        "  differing               0",
        "  corrupt                 0",
        "  marked                  0",
        "  not a session           0",
        "  tombstoned              0",
    ]


def test_without_dual_write_what_only_the_primary_has_is_expected() -> None:
    turns = some_turns(3)
    hold(REDIS)
    session = hold(REDIS, turns=turns)
    hold(MONGO, session=session, turns=turns[:1])
    code, output = run("reconcile")
    assert code == 0
    assert "  only in redis           1  (expected without dual write)\n" in output
    assert "  fallback behind         1  (expected without dual write)\n" in output


def test_what_only_the_fallback_has_is_trouble_and_is_given_to_the_primary() -> None:
    session = hold(MONGO)
    code, output = run("reconcile")
    assert code == 1
    assert f"  {session}: only in mongo: redis is missing 3 turns\n" in output
    assert output.endswith("1 conversations are not in step; --apply repairs them\n")
    assert turns_in(REDIS, session) == ()
    code, output = run("reconcile", "--apply")
    assert (code, output.splitlines()[-1]) == (0, "1 repaired")
    assert turns_in(REDIS, session) == turns_in(MONGO, session) != ()


@pytest.mark.usefixtures("dual_write")
def test_with_dual_write_every_difference_is_trouble() -> None:
    turns = some_turns(3)
    session = hold(REDIS, turns=turns)
    hold(MONGO, session=session, turns=turns[:1])
    hold(REDIS)
    code, report = run_json("reconcile")
    assert (code, report["differing"], report["only_in_redis"], report["trouble"]) == (1, 1, 1, 2)
    code, report = run_json("reconcile", "--apply")
    assert (code, report["repaired"], report["left"]) == (0, 2, 0)
    assert turns_in(MONGO, session) == turns


@pytest.mark.usefixtures("dual_write")
def test_a_difference_in_the_middle_is_found() -> None:
    """The last ids are the same, and so is the number of turns."""
    turns = some_turns(4)
    session = hold(REDIS, turns=(turns[0], turns[1], turns[3]))
    hold(MONGO, session=session, turns=(turns[0], turns[2], turns[3]))
    code, output = run("reconcile", "--apply")
    assert code == 0
    assert f"{session}: differing: redis is missing 1 turn, mongo is missing 1 turn\n" in output
    assert turns_in(REDIS, session) == turns_in(MONGO, session) == turns


def test_a_turn_with_two_contents_needs_a_person() -> None:
    (turn,) = some_turns(1)
    question = turn.question
    session = hold(REDIS, turns=(turn,))
    hold(MONGO, session=session, turns=(Turn(Message("user", "secret words", question.id, question.at), turn.answer),))
    code, output = run("reconcile", "--apply")
    assert code == 1
    assert "1 turns are not the same in both: this needs a person" in output
    assert "secret" not in output


def test_a_deletion_that_one_store_missed_is_done_there() -> None:
    turns = some_turns(2)
    session = hold(REDIS, MONGO, turns=turns)
    store(MONGO).delete(session, turns[-1].answer.id)
    code, output = run("reconcile")
    assert code == 1
    assert f"{session}: differing: redis is missing the deletion\n" in output
    assert run("reconcile", "--apply")[0] == 0
    assert turns_in(REDIS, session) == ()


def test_a_corrupt_value_is_quarantined_and_replaced_by_the_other_stores_history(redis_server: RedisServer) -> None:
    session = hold(MONGO)
    listed = a_session()
    with redis_server.client() as client:
        client.set(f"conv:{session}", "rubbish")
        client.lpush(f"conv:{listed}", "a list")
    code, report = run_json("reconcile")
    assert (code, report["corrupt"]) == (1, 2)
    assert run_json("reconcile", "--apply")[0] == 0
    assert turns_in(REDIS, session) == turns_in(MONGO, session) != ()
    with redis_server.client() as client:
        assert client.exists(f"corrupt:{{conv:{session}}}:1", f"corrupt:{{conv:{listed}}}:1") == 2


def test_a_key_that_is_no_session_is_counted_and_left_alone(redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        client.set("conv:not a session", "somebody's")
        code, report = run_json("reconcile", "--apply")
        assert client.get("conv:not a session") == b"somebody's"
    assert (code, report["not_a_session"]) == (0, 1)


def test_a_flag_is_trouble_until_it_is_cleared() -> None:
    session = hold(REDIS, MONGO)
    store(MONGO).append(session, None, flag=True)
    deleted = a_session()
    store(MONGO).delete(deleted, some_turns(1)[0].answer.id, flag=True)
    assert run_json("reconcile")[1]["trouble"] == 2
    assert run_json("reconcile", "--apply")[0] == 0
    assert not store(MONGO).flags(10).sessions


def test_tenants_and_many_pages_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "PAGE", 7)
    monkeypatch.setattr(compare, "BATCH", 10)
    for _ in range(30):
        hold(MONGO, session=f"acme:{a_session()}")
    code, report = run_json("reconcile", "--apply")
    assert (code, report["only_in_mongo"], report["repaired"], len(report["examples"])) == (0, 30, 30, 20)
    assert run_json("reconcile")[1]["in_step"] == 30


def test_what_clients_change_meanwhile_is_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn that is being written is in both stores a second later."""
    session = hold(MONGO)
    look = compare.stays_so

    def later(*arguments: object) -> object:
        hold(REDIS, session=session, turns=turns_in(MONGO, session))
        return look(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(compare, "stays_so", later)
    assert run_json("reconcile")[1]["in_step"] == 1


def test_only_changes_are_audited_and_without_sessions() -> None:
    before = AuditEntry.objects.count()
    session = hold(MONGO)
    run("reconcile")
    assert AuditEntry.objects.count() == before
    run("reconcile", "--apply", "--reason", "after the outage")
    entry = AuditEntry.objects.order_by("id").last()
    assert entry is not None
    assert (entry.action, entry.after["repaired"]) == ("reconcile", 1)
    assert session not in str(entry.after)


@pytest.mark.usefixtures("mongo_out")
def test_with_a_store_out_nothing_can_be_compared() -> None:
    code, output = run("reconcile")
    assert code == 2
    assert output.startswith("A store could not be used: mongo: ")


def test_a_tombstone_that_is_no_id_deletes_nothing() -> None:
    """Another program wrote it; it would be later than every turn there can be."""
    session = hold(REDIS, MONGO)
    with environment.REDIS.client() as client:
        client.set(f"tomb:{{conv:{session}}}", "zzz", ex=60)
    run("reconcile", "--apply")
    assert turns_in(REDIS, session) == turns_in(MONGO, session) != ()


def test_what_trim_removed_from_one_store_is_expected_and_stays_removed(dual_write: None) -> None:
    trimmed, missing = hold(MONGO, REDIS), ""
    assert run("trim", "--older-than", "1s", "--store", REDIS, "--apply")[0] == 0
    missing = hold(MONGO)  # later than what was trimmed
    code, output = run("reconcile")
    assert code == 1
    assert "  trimmed                 1  (expected: removed from one store to make room)\n" in output
    code, report = run_json("reconcile", "--apply")
    assert (code, report["trimmed"], report["trouble"], report["repaired"]) == (0, 1, 1, 1)
    assert (turns_in(REDIS, trimmed), len(turns_in(REDIS, missing))) == ((), 3)
