"""The actions of the console: a plan, a typed yes with a reason, a process of its own, and what refuses one."""

import os
import re
import shutil
import signal
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.contrib.sessions.backends.db import SessionStore
from django.db import DatabaseError
from django.db.models.functions import Now
from django.test import Client
from pytest_django import Settings

from conversations.policy import Routing
from conversations.runtime import switching
from conversations.stores import ALIASES, MONGO, REDIS, reachable
from ops import lease
from ops.actions import kinds, processes, rows, runs
from ops.actions.forms import TrimForm
from ops.models import AuditEntry, Run
from tests.builders import some_turns
from tests.commands.working import hold, turns_in
from tests.servers import RedisServer, eventually

pytestmark = pytest.mark.usefixtures("both_empty", "no_runs")

ACTIONS = "/admin/actions/"
YES = {"word": "mongo", "reason": "Redis <b>is</b> slow"}


@pytest.fixture
def no_runs() -> Any:
    yield
    for process in list(processes._living):
        process.kill()
    eventually(lambda: not processes._living, "a process goes on")
    eventually(lambda: not Run.objects.filter(state="running").exists(), "a run goes on")
    Run.objects.all().delete()


def who(name: str, *permissions: str, **rights: bool) -> Client:
    """Return a client that is logged in as a user with these rights."""
    user, _ = User.objects.update_or_create(username=name, defaults={"is_staff": True, "is_superuser": False, **rights})
    user.user_permissions.set(Permission.objects.filter(content_type__app_label="ops", codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


def superuser() -> Client:
    return who("root", is_superuser=True)


def text(response: Any) -> str:
    """Return the words of a page, without its tags."""
    page = re.sub(r"<(style|script).*?</\1>", "", response.content.decode(), flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", page).split())


def ended(address: str) -> Run:
    """Return the run of that address, once it has ended."""
    pk = int(re.search(r"/runs/(\d+)/", address)[1])  # type: ignore[index]
    eventually(lambda: Run.objects.get(pk=pk).state != "running", f"run {pk} goes on", patience=60)
    return Run.objects.get(pk=pk)


def planned(client: Client, action: str = "failover", **chosen: str) -> str:
    """Return the address of a plan that has ended."""
    response = client.post(f"{ACTIONS}{action}/plan/", {"to": "mongo"} | chosen)
    assert response.status_code == 302, text(response)
    ended(response["Location"])
    return str(response["Location"])


def newest_entry() -> AuditEntry:
    entry = AuditEntry.objects.order_by("id").last()
    assert entry
    return entry


class TestFailover:
    def test_a_plan_changes_nothing_and_says_what_would_be_done(self) -> None:
        session = hold(REDIS)
        client, audited = superuser(), AuditEntry.objects.count()
        address = planned(client)
        output = text(client.get(address))
        assert "manage.py failover --to=mongo --dry-run" in output
        assert "backfill: would copy 1 of 1 conversations to mongo" in output
        assert "In the way Nothing." in output
        assert "How long it may take About" in output
        assert "Type “mongo” to agree" in output
        assert switching.read() == {REDIS: None, MONGO: None}
        assert turns_in(MONGO, session) == ()
        assert AuditEntry.objects.count() == audited

    def test_agreed_to_it_is_done_by_the_command_and_audited(self) -> None:
        session = hold(REDIS)
        client = superuser()
        response = client.post(planned(client), YES)
        run = ended(response["Location"])
        assert (run.state, run.exit_code, run.outcome) == ("done", 0, "done")
        assert switching.current() == Routing(MONGO, False)
        assert turns_in(MONGO, session) == turns_in(REDIS, session) != ()
        output = text(client.get(response["Location"]))
        assert "verify: 1 conversations compared, 0 differences" in output
        assert "Redis &lt;b&gt;is&lt;/b&gt; slow" in output
        entry = newest_entry()
        assert (entry.action, entry.who, entry.reason, entry.outcome) == (
            "failover", "root in the admin", "Redis <b>is</b> slow", "done"
        )  # fmt: skip
        assert (entry.before["primary"], entry.after["primary"]) == ("redis", "mongo")
        switch = switching.read()[MONGO]
        assert switch and switch.by == "root in the admin"

    def test_failback_returns(self) -> None:
        switching.record(Routing(MONGO, False), "a test")
        client = superuser()
        run = ended(client.post(planned(client, "failback"), {"word": "redis", "reason": "back"})["Location"])
        assert (run.state, switching.current()) == ("done", Routing(REDIS, False))

    def test_where_nothing_is_to_do_nothing_is_asked(self) -> None:
        client = superuser()
        output = text(client.get(planned(client, "failback")))
        assert "redis is the primary already; nothing to do" in output
        assert "There is nothing to do." in output
        assert "to agree" not in output

    def test_a_store_that_is_out_is_left_without_a_copy_and_the_page_says_so(self, redis_out: None) -> None:
        client = superuser()
        address = planned(client)
        assert "nothing can be copied" in text(client.get(address))
        run = ended(client.post(address, YES)["Location"])
        assert (run.words, run.state) == (["--to=mongo", "--force"], "done")
        assert switching.current() == Routing(MONGO, False)

    def test_a_store_that_answers_again_is_not_left_without_a_copy(
        self, redis_out: None, redis_server: RedisServer
    ) -> None:
        hold(MONGO)
        client = superuser()
        address = planned(client)
        redis_server.start()
        eventually(lambda: reachable() == ALIASES, "redis does not answer")
        output = text(client.post(address, YES, follow=True))
        assert "redis answers again, so that it can be copied first. Make another plan" in output
        assert switching.current() == Routing(REDIS, False)
        assert newest_entry().outcome.startswith("refused: ")

    def test_with_both_stores_up_nothing_is_forced(self) -> None:
        client = superuser()
        address = planned(client)
        assert ended(client.post(address, YES)["Location"]).words == ["--to=mongo"]

    def test_an_unavailable_target_is_in_the_way(self, mongo_out: None) -> None:
        client = superuser()
        output = text(client.get(planned(client)))
        assert "mongo cannot be used (" in output
        assert "In the way" in output
        assert "to agree" not in output

    def test_with_both_out_a_plan_says_so(self, redis_out: None, mongo_out: None) -> None:
        client = superuser()
        assert "cannot be used (" in text(client.get(planned(client)))


class TestReconcile:
    def test_a_plan_counts_and_agreed_to_it_repairs(self) -> None:
        switching.record(Routing(REDIS, True), "a test")
        session = hold(REDIS)
        client = superuser()
        address = planned(client, "reconcile")
        output = text(client.get(address))
        assert f"{session}: only in redis: mongo is missing 3 turns" in output
        assert "ready 1 conversations are not in step" in output
        assert turns_in(MONGO, session) == ()
        run = ended(client.post(address, {"word": "reconcile", "reason": "a test"})["Location"])
        assert (run.state, run.report["repaired"]) == ("done", 1)
        assert turns_in(MONGO, session) == turns_in(REDIS, session)
        assert session not in str(newest_entry().after)

    def test_in_step_there_is_nothing_to_agree_to(self) -> None:
        hold(REDIS, MONGO)
        client = superuser()
        assert "There is nothing to do." in text(client.get(planned(client, "reconcile")))


class TestTrim:
    CHOSEN = {"max_turns": "1", "store": "both"}  # noqa: RUF012

    def test_a_plan_counts_and_agreed_to_it_removes(self) -> None:
        turns = some_turns(3)
        session = hold(REDIS, MONGO, turns=turns)
        client = superuser()
        address = planned(client, "trim", **self.CHOSEN)
        output = text(client.get(address))
        assert "turns would be removed: 2 of 1 conversations" in output
        assert turns_in(REDIS, session) == turns
        run = ended(client.post(address, {"word": "trim", "reason": "a test"})["Location"])
        assert (run.words, run.state) == (["--max-turns=1", "--store=both", "--apply"], "done")
        assert turns_in(REDIS, session) == turns_in(MONGO, session) == turns[2:]
        assert (newest_entry().action, newest_entry().reason) == ("trim", "a test")

    def test_where_nothing_would_go_nothing_is_asked(self) -> None:
        client = superuser()
        assert "There is nothing to do." in text(client.get(planned(client, "trim", **self.CHOSEN)))

    @pytest.mark.parametrize(
        ("chosen", "words"),
        [
            ({}, "Say what is to go."),
            ({"older_than": "20"}, "is not an age: write it like 20d, 12h or 2w"),
            ({"max_turns": "0"}, "is not a whole number of at least 1"),
            ({"to_memory": "101%"}, "is not a size: write it like 80%, at most 100%, 2gb or 500mb"),
            ({"expired": "on", "store": "elsewhere"}, "Select a valid choice"),
        ],
    )
    def test_what_the_command_would_not_take_begins_nothing(self, chosen: dict[str, str], words: str) -> None:
        response = superuser().post(f"{ACTIONS}trim/plan/", {"store": "both"} | chosen)
        assert words in text(response)
        assert not Run.objects.exists()

    def test_only_what_was_chosen_is_an_option_of_the_command(self) -> None:
        form = TrimForm({"older_than": "20d", "to_memory": "80%", "expired": "on", "store": "redis"})
        assert form.is_valid()
        words = kinds.ACTIONS["trim"].words(form.cleaned_data)
        assert words == ["--older-than=20d", "--to-memory=80%", "--expired", "--store=redis"]


class TestBackup:
    def test_a_plan_says_where_and_agreed_to_it_is_written_and_audited(self, settings: Settings) -> None:
        folder = Path(os.environ["VAR_DIR"]) / "backups"  # where the process has it
        settings.VAR_DIR = folder.parent
        hold(REDIS, MONGO)
        client = superuser()
        address = planned(client, "backup")
        assert f"would write a backup to {folder}, where" in text(client.get(address))
        assert not folder.exists()
        try:
            run = ended(client.post(address, {"word": "backup", "reason": "before an upgrade"})["Location"])
            assert (run.state, run.outcome) == ("done", "done")
            assert Path(run.report["file"]).parent == folder
            assert "1 conversations" in text(client.get(f"{ACTIONS}runs/{run.pk}/"))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        entry = newest_entry()
        assert (entry.action, entry.who, entry.reason) == ("backup", "root in the admin", "before an upgrade")

    def test_with_a_store_out_that_is_in_the_way_of_a_whole_one(self, mongo_out: None) -> None:
        client = superuser()
        output = text(client.get(planned(client, "backup")))
        assert "In the way Mongo cannot be reached and would not be in the backup." in output
        assert "Type “backup” to agree" in output


class TestRefused:
    @pytest.mark.parametrize("fields", [{"word": "redis"}, {"word": ""}, {"reason": ""}, {"reason": "x" * 201}])
    def test_a_wrong_word_or_no_reason_begins_nothing(self, fields: dict[str, str]) -> None:
        client = superuser()
        response = client.post(planned(client), YES | fields)
        assert response.status_code == 200
        assert "errorlist" in response.content.decode()
        assert not Run.objects.filter(applies=True).exists()

    def refused(self, address: str, client: Client) -> str:
        """Post the yes; return the page that says why nothing was begun."""
        output = text(client.post(address, YES, follow=True))
        assert not Run.objects.filter(applies=True, action="failover").exclude(who="another").exists()
        return output

    def test_while_an_operators_command_runs_it_is_refused_by_name_and_audited(self) -> None:
        client = superuser()
        address = planned(client)
        with lease.held("trim by alice@there, process 7"):
            assert "command is running: trim by alice@there, process 7" in self.refused(address, client)
        entry = newest_entry()
        assert (entry.action, entry.reason) == ("failover", YES["reason"])
        assert entry.outcome.startswith("refused: another operator's command is running: trim by alice@there")

    def test_while_another_action_runs_it_is_refused_by_name(self) -> None:
        client = superuser()
        address = planned(client)
        Run.objects.create(action="reconcile", applies=True, who="another")
        assert "reconcile is running, begun by another" in self.refused(address, client)
        Run.objects.filter(who="another").update(state="done")

    def test_of_two_at_the_same_moment_one_is_begun(self) -> None:
        client = superuser()
        plan = Run.objects.get(pk=planned(client).split("/")[-2])
        Run.objects.create(action="reconcile", applies=True, who="another")
        with pytest.raises(runs.Refused, match="reconcile is running, begun by another"):
            runs._begin(Run(action="failover", applies=True, plan=plan, who="me"))
        Run.objects.filter(who="another").update(state="done")

    def test_a_plan_from_before_another_switch_is_refused(self) -> None:
        client = superuser()
        address = planned(client)
        switching.record(Routing(REDIS, True), "bob", "meanwhile")
        assert "Somebody has switched since this page was shown" in self.refused(address, client)

    def test_a_plan_is_good_for_ten_minutes(self) -> None:
        client = superuser()
        address = planned(client)
        Run.objects.update(ended_at=Now() - timedelta(minutes=11))
        assert "the plan is more than ten minutes old" in self.refused(address, client)

    def test_a_plan_is_agreed_to_once(self) -> None:
        client = superuser()
        address = planned(client)
        ended(client.post(address, YES)["Location"])
        assert "this plan was agreed to before" in text(client.post(address, YES, follow=True))
        assert Run.objects.filter(applies=True).count() == 1

    def test_an_unknown_target_is_refused(self) -> None:
        response = superuser().post(f"{ACTIONS}failover/plan/", {"to": "elsewhere"})
        assert "errorlist" in response.content.decode()
        assert not Run.objects.exists()


class TestInterrupted:
    def test_a_killed_process_is_shown_as_interrupted_and_audited(self) -> None:
        for _ in range(200):
            hold(REDIS)
        client = superuser()
        address = client.post(planned(client), YES)["Location"]
        eventually(lambda: switching.current().dual_write, "it does not begin")
        for process in list(processes._living):
            process.send_signal(signal.SIGKILL)
        run = ended(address)
        assert (run.state, run.outcome) == ("interrupted", "its process was ended by signal 9")
        output = text(client.get(address))
        assert "What now: Plan it again: the next run finishes what was interrupted." in output
        assert newest_entry().outcome == "interrupted: its process was ended by signal 9"

    def test_asked_to_stop_it_puts_back_what_it_began(self) -> None:
        for _ in range(200):
            hold(REDIS)
        client = superuser()
        address = client.post(planned(client), YES)["Location"]
        eventually(lambda: switching.current().dual_write, "it does not begin")
        processes.stop()
        run = ended(address)
        assert (run.state, run.exit_code) == ("interrupted", 1)
        assert switching.current() == Routing(REDIS, False)
        assert newest_entry().outcome == "interrupted"

    def test_one_without_a_sign_of_life_is_shown_as_interrupted(self) -> None:
        """As after the machine was lost."""
        run = Run.objects.create(action="reconcile", applies=True, who="root in the admin", reason="a test")
        Run.objects.update(beat_at=Now() - rows.SILENT - timedelta(seconds=1))
        output = text(superuser().get(f"{ACTIONS}runs/{run.pk}/"))
        assert "interrupted its process gave no sign of life any more" in output
        assert newest_entry().outcome == "interrupted: its process gave no sign of life any more"

    def test_one_that_gave_a_sign_of_life_is_running(self) -> None:
        run = Run.objects.create(
            action="reconcile", applies=True, who="root in the admin", step="compare", done=3, of=9
        )
        client = superuser()
        assert "running compare: 3 of 9" in text(client.get(f"{ACTIONS}runs/{run.pk}/part/"))
        assert "Running: reconcile, begun by root in the admin" in text(client.get(ACTIONS))
        Run.objects.update(state="done")


class TestPermissions:
    def test_each_action_has_its_own(self) -> None:
        run = Run.objects.create(action="failover", words=["--to=mongo"], applies=False, who="a", state="done")
        for action in kinds.ACTIONS.values():
            client = who("limited", action.permission.removeprefix("ops."))
            assert f'id="{action.name}"' in client.get(ACTIONS).content.decode()
            others = [other for other in kinds.ACTIONS.values() if other is not action]
            assert [client.post(f"{ACTIONS}{other.name}/plan/").status_code for other in others] == [403] * len(others)
            seen = 200 if action.name == "failover" else 403
            addresses = (f"{ACTIONS}runs/{run.pk}/", f"{ACTIONS}runs/{run.pk}/part/")
            assert [client.get(address).status_code for address in addresses] == [seen] * 2
            assert client.get(f"{ACTIONS}dual-write/on/").status_code == 403

    def test_without_one_every_page_is_403_and_the_index_names_none(self) -> None:
        client = who("staff")
        for response in (
            client.get(ACTIONS),
            client.post(f"{ACTIONS}failover/plan/"),
            client.post(f"{ACTIONS}no/plan/"),
        ):
            assert response.status_code == 403
            assert "You may not do this." in text(response)
            assert response["Content-Type"].startswith("text/html")
        assert ACTIONS not in client.get("/admin/").content.decode()
        assert ACTIONS not in client.get("/admin/status/").content.decode()

    def test_the_support_group_has_none(self) -> None:
        assert not Group.objects.get(name="Support").permissions.filter(content_type__app_label="ops").exists()

    def test_only_by_a_form_of_this_site(self) -> None:
        superuser()
        forged = Client(enforce_csrf_checks=True)
        forged.force_login(User.objects.get(username="root"))
        assert forged.post(f"{ACTIONS}failover/plan/", {"to": "mongo"}).status_code == 403
        assert Client().get(ACTIONS).status_code == 302
        assert superuser().get(f"{ACTIONS}failover/plan/").status_code == 405
        assert not Run.objects.exists()


class TestWithoutDefault:
    def test_a_page_says_so_and_nothing_begins(self, monkeypatch: pytest.MonkeyPatch) -> None:
        client = superuser()

        def out(*_: object, **__: object) -> None:
            raise DatabaseError

        monkeypatch.setattr(Run, "save", out)
        response = client.post(f"{ACTIONS}failover/plan/", {"to": "mongo"})
        assert response.status_code == 503
        assert "The database cannot be used" in text(response)
        assert not processes._living

    def test_so_does_one_where_the_user_is_not_known(self, monkeypatch: pytest.MonkeyPatch) -> None:
        client = superuser()

        def out(self: SessionStore) -> None:
            raise DatabaseError

        monkeypatch.setattr(SessionStore, "load", out)
        for response in (client.get(ACTIONS), client.post(f"{ACTIONS}failover/plan/", {"to": "mongo"})):
            assert response.status_code == 503
            assert "Nothing was begun." in text(response)


class TestDualWrite:
    ON = f"{ACTIONS}dual-write/on/"
    YES = {"word": "on", "reason": "MongoDB is to be copied", "since": "0.0"}  # noqa: RUF012

    def test_a_yes_is_asked_for_and_nothing_has_changed(self) -> None:
        output = text(superuser().get(self.ON))
        assert "Now primary redis, dual write off" in output
        assert "Then primary redis, dual write on" in output
        assert switching.read() == {REDIS: None, MONGO: None}

    def test_agreed_to_it_is_recorded_in_both_stores_and_audited(self) -> None:
        output = text(superuser().post(self.ON, self.YES, follow=True))
        assert [switch and switch.routing for switch in switching.read().values()] == [Routing(REDIS, True)] * 2
        assert "Primary redis, dual write on; recorded in redis and mongo." in output
        entry = newest_entry()
        assert (entry.action, entry.who, entry.reason, entry.outcome) == (
            "switch", "root in the admin", "MongoDB is to be copied", "done"
        )  # fmt: skip
        assert (entry.before["dual_write"], entry.after["dual_write"]) == (False, True)

    def test_the_primary_stays(self) -> None:
        switching.record(Routing(MONGO, True), "a test")
        superuser().post(f"{ACTIONS}dual-write/off/", {"word": "off", "reason": "r", "since": "9e9"})
        assert switching.current() == Routing(MONGO, False)

    def test_with_a_store_out_the_other_one_takes_it(self, redis_out: None) -> None:
        assert "redis is out (" in text(superuser().get(self.ON))
        assert "recorded in mongo." in text(superuser().post(self.ON, self.YES, follow=True))

    def test_with_both_out_nothing_changes_and_that_is_reported(self, redis_out: None, mongo_out: None) -> None:
        output = text(superuser().post(self.ON, self.YES, follow=True))
        assert "A store that is needed for this cannot be reached now" in output
        assert newest_entry().outcome.startswith("failed: A store that is needed")

    def test_a_form_from_before_another_switch_is_refused(self) -> None:
        switching.record(Routing(REDIS, False), "bob", "meanwhile")
        output = text(superuser().post(self.ON, self.YES, follow=True))
        assert "Somebody has switched since this page was shown" in output
        assert switching.current() == Routing(REDIS, False)

    def test_while_an_operators_command_runs_it_is_refused(self) -> None:
        with lease.held("alice"):
            output = text(superuser().post(self.ON, self.YES, follow=True))
        assert "Another operator" in output
        assert switching.read() == {REDIS: None, MONGO: None}

    def test_a_switch_to_the_same_routing_is_not_recorded(self) -> None:
        off = {**self.YES, "word": "off"}
        assert "It is so already" in text(superuser().post(f"{ACTIONS}dual-write/off/", off, follow=True))
        assert switching.read() == dict.fromkeys(ALIASES)

    @pytest.mark.parametrize(
        "fields", [{"word": "off"}, {"reason": ""}, {"reason": "x" * 201}, {"since": ""}, {"since": "nan"}]
    )
    def test_an_invalid_form_changes_nothing(self, fields: dict[str, str]) -> None:
        response = superuser().post(self.ON, self.YES | fields)
        assert response.status_code == 200
        assert "errorlist" in response.content.decode()
        assert switching.read() == {REDIS: None, MONGO: None}

    def test_another_word_in_the_address_is_404(self) -> None:
        assert superuser().get(f"{ACTIONS}dual-write/maybe/").status_code == 404
