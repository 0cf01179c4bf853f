"""`failover` and `failback`: what moves, what is refused, what is finished after an interruption."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from pytest_django import Settings

from conversations.errors import StoreUnavailable
from conversations.history import repair
from conversations.policy import Routing
from conversations.runtime import switching
from conversations.stores import ALIASES, MONGO, REDIS, store
from ops.failover import move, note
from ops.failover.report import Steps
from ops.models import AuditEntry
from tests.builders import some_turns
from tests.commands.working import hold, run, run_json, turns_in
from tests.servers import MongoServer, RedisServer, configured, eventually

pytestmark = pytest.mark.usefixtures("both_empty")


def steps(report: dict[str, object]) -> list[str]:
    return [step["step"] for step in report["steps"]]  # type: ignore[attr-defined]


def test_it_copies_compares_switches_and_leaves_dual_write_as_it_was() -> None:
    """Every step of the runbook, in its order, by one command."""
    sessions = [hold(REDIS) for _ in range(5)]
    code, report = run_json("failover", "--to", "mongo", "--reason", "a test")
    assert code == 0
    assert steps(report) == ["precheck", "dual write on", "backfill", "verify", "switch primary", "verify health",
                           "dual write as it was"]  # fmt: skip
    assert (report["copied"], report["compared"], report["differences"]) == (5, 5, 0)
    assert switching.current() == Routing(MONGO, False)
    assert all(turns_in(MONGO, session) == turns_in(REDIS, session) != () for session in sessions)


def test_the_report_has_the_same_fields() -> None:
    ours = ["from", "to", "dry_run", "steps", "resumed"]
    after = ["primary", "dual_write"]
    assert list(run_json("failover", "--to", "mongo", "--dry-run")[1]) == [*ours, "compared", "would_copy", *after]
    done = list(run_json("failover", "--to", "mongo")[1])
    assert done == [*ours, "conversations", "copied", "compared", "differences", *after]
    assert list(run_json("failover", "--to", "mongo")[1]) == [*ours, "already", *after]


@pytest.mark.parametrize("text", ["", "null", "[]", "{}", "no JSON", '{"id": "a", "dual_write": true, "since": "x"}'])
def test_a_note_that_another_program_wrote_is_ignored(text: str) -> None:
    store(REDIS).write_note(note.NAME, text)
    assert run_json("failover", "--to", "mongo", "--dry-run")[1]["resumed"] is False


def test_its_steps_are_printed() -> None:
    hold(REDIS)
    code, output = run("failover", "--to", "mongo")
    assert code == 0
    assert "backfill: 1 of 1 conversations brought into step\n" in output
    assert "verify: 1 conversations compared, 0 differences\n" in output
    assert output.endswith("primary mongo, dual write off\n")


def test_it_is_in_the_audit_log_with_its_reason() -> None:
    run("failover", "--to", "mongo", "--reason", "redis is moved")
    entry = AuditEntry.objects.order_by("id").last()
    assert entry is not None
    assert (entry.action, entry.reason, entry.outcome) == ("failover", "redis is moved", "done")
    assert entry.before == {"primary": "redis", "dual_write": False}
    assert entry.after["primary"] == "mongo"


def test_the_second_time_it_reports_that_nothing_is_to_do() -> None:
    run("failover", "--to", "mongo")
    before = switching.read()
    code, output = run("failover", "--to", "mongo")
    assert code == 0
    assert "mongo is the primary already; nothing to do" in output
    assert switching.read() == before


def test_failback_returns_to_the_store_that_the_environment_names(settings: Settings) -> None:
    run("failover", "--to", "mongo")
    session = hold(MONGO)
    code, report = run_json("failback")
    assert (code, report["to"], report["differences"]) == (0, "redis", 0)
    assert switching.current() == Routing(REDIS, False)
    assert turns_in(REDIS, session) == turns_in(MONGO, session) != ()
    settings.CONV_STORE_PRIMARY = MONGO
    assert run_json("failback")[1]["to"] == "mongo"


def test_dual_write_that_was_on_stays_on() -> None:
    switching.record(Routing(REDIS, True), "a test")
    assert run("failover", "--to", "mongo")[0] == 0
    assert switching.current() == Routing(MONGO, True)


def test_a_dry_run_changes_nothing_and_reports_what_would_be_done() -> None:
    session = hold(REDIS)
    audited = AuditEntry.objects.count()
    code, report = run_json("failover", "--to", "mongo", "--dry-run")
    assert (code, report["would_copy"], report["compared"]) == (0, 1, 1)
    assert turns_in(MONGO, session) == ()
    assert switching.read() == {REDIS: None, MONGO: None}
    assert [store(alias).note(name) for alias in ALIASES for name in ("failover", "probe")] == [None] * 4
    assert AuditEntry.objects.count() == audited


def test_what_was_deleted_is_not_copied() -> None:
    turns = some_turns(2)
    session = hold(REDIS, turns=turns)
    store(MONGO).delete(session, turns[-1].answer.id)
    assert run_json("failover", "--to", "mongo")[0] == 0
    assert turns_in(REDIS, session) == turns_in(MONGO, session) == ()


@pytest.mark.usefixtures("mongo_out")
def test_an_unavailable_target_is_refused_and_nothing_changes() -> None:
    code, output = run("failover", "--to", "mongo", "--force")
    assert code == 2
    assert output.startswith("Refused, and nothing was changed: mongo cannot be used (")
    assert switching.read() == {REDIS: None}


@pytest.mark.usefixtures("redis_out")
def test_an_unavailable_store_is_left_only_by_force_and_the_report_has_what_stays_behind() -> None:
    hold(MONGO)
    code, output = run("failover", "--to", "mongo")
    assert code == 2
    assert "redis is out: what only it has cannot be copied." in output
    assert "how many is unknown: the store is out. About 1 conversations are in mongo." in output
    assert "--force switches all the same" in output
    assert switching.read() == {MONGO: None}
    code, report = run_json("failover", "--to", "mongo", "--force")
    assert (code, report["primary"], report["only_in_leaving"], report["in_target"]) == (0, "mongo", None, 1)
    assert switching.current() == Routing(MONGO, False)


def test_a_target_that_takes_no_writes_is_refused(redis_server: RedisServer) -> None:
    """A full Redis answers every ping."""
    switching.record(Routing(MONGO, False), "a test")
    with configured(redis_server, maxmemory=1):
        code, output = run("failback")
    assert (code, switching.current().primary) == (2, MONGO)
    assert "redis cannot be used" in output


def test_a_store_that_goes_out_meanwhile_leaves_everything_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    hold(REDIS)

    def out(session: str) -> bool:
        raise StoreUnavailable(MONGO, "gone")

    monkeypatch.setattr(repair, "conversation", out)
    assert run("failover", "--to", "mongo")[0] == 2
    assert switching.current() == Routing(REDIS, False)
    monkeypatch.undo()
    monkeypatch.setattr(move, "FOLLOW_SECONDS", 0.0)
    assert run("failover", "--to", "mongo")[0] == 0


def test_a_difference_that_cannot_be_repaired_stops_it() -> None:
    """The same turn with other words in the other store: only a person can decide which is right."""
    turns = some_turns(1)
    session = hold(REDIS, turns=turns)
    question, answer = turns[0].messages()
    other = type(turns[0])(type(question)(question.role, "other words", question.id, question.at), answer)
    hold(MONGO, session=session, turns=(other,))
    code, output = run("failover", "--to", "mongo")
    assert code == 1
    assert "1 conversations differ; the primary is still redis" in output
    assert "other words" not in output
    assert switching.current() == Routing(REDIS, False)


@pytest.mark.parametrize("cut_off_at", ["dual write on", "switch primary"])
def test_interrupted_at_a_switch_and_run_again_it_finishes(cut_off_at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after kill -9: nothing is restored, but the note has what dual write was."""
    session = hold(REDIS)

    class Killed(BaseException):
        pass

    def step(self: Steps, name: str, text: str) -> None:
        if name == cut_off_at:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Steps, "add", step)
        with pytest.raises(Killed):
            run("failover", "--to", "mongo")
    assert switching.current().dual_write
    code, report = run_json("failover", "--to", "mongo")
    assert (code, report["resumed"]) == (0, True)
    assert switching.current() == Routing(MONGO, False)
    assert turns_in(MONGO, session) == turns_in(REDIS, session)
    assert run_json("failover", "--to", "mongo")[1]["already"]


def test_killed_while_copying_and_run_again_it_finishes(
    tmp_path: Path, redis_server: RedisServer, mongo_server: MongoServer
) -> None:
    for _ in range(300):
        hold(REDIS)
    command = [sys.executable, "manage.py", "failover", "--to", "mongo"]
    environment = os.environ | {"VAR_DIR": str(tmp_path)}
    with subprocess.Popen(command, cwd=django_settings.BASE_DIR, env=environment, stderr=subprocess.DEVNULL) as process:
        eventually(lambda: store(MONGO).scan(limit=10).sessions, "nothing is copied")
        process.send_signal(signal.SIGKILL)
    assert switching.current() == Routing(REDIS, True)
    with redis_server.client() as redis, mongo_server.client() as mongo:  # not to wait for its lease to end
        redis.delete("onesource:lease:operator")
        mongo.get_default_database()["onesource_notes"].delete_one({"_id": "lease:operator"})
    code, report = run_json("failover", "--to", "mongo")
    assert (code, report["resumed"], report["compared"], report["differences"]) == (0, True, 300, 0)
    assert report["copied"] < 300
    assert switching.current() == Routing(MONGO, False)


def test_interrupted_while_a_switch_is_recorded_it_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    hold(REDIS)
    record = switching.record

    def interrupted(routing: Routing, *by: str) -> Any:
        recorded = record(routing, *by)
        if routing.dual_write:
            raise KeyboardInterrupt
        return recorded

    monkeypatch.setattr(switching, "record", interrupted)
    assert run("failover", "--to", "mongo")[0] == 1
    assert switching.current() == Routing(REDIS, False)
