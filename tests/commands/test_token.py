"""`manage.py token`: made, listed and revoked, with stores or `default` out."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from unittest.mock import patch

import pytest
from django.contrib.auth.models import Permission, User
from django.db import DatabaseError
from django.test import Client
from pytest_django import Settings

from conversations import tokens
from conversations.clock import now
from conversations.runtime import revoked
from conversations.stores import ALIASES, MONGO, REDIS, control
from ops.models import AuditEntry, IssuedToken
from tests.builders import a_session
from tests.commands.working import run, run_json
from tests.servers import MongoServer, RedisServer

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("both_empty")]

SECRET = "a secret of this test, which is long enough"


@pytest.fixture(autouse=True)
def _knowing_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revoked, "_known", {})


@contextmanager
def default_out() -> Iterator[None]:
    """Have every statement on `default` fail, as a server that has gone does; SQLite cannot be stopped."""
    with (
        patch.object(IssuedToken.objects, "create", side_effect=DatabaseError("gone")),
        patch.object(IssuedToken.objects, "all", side_effect=DatabaseError("gone")),
        patch.object(IssuedToken.objects, "filter", side_effect=DatabaseError("gone")),
    ):
        yield


def created(*words: str) -> dict[str, str]:
    code, report = run_json("token", "create", *words)
    assert code == 0
    return dict(report)


def noted(place: str) -> set[str]:
    return set(json.loads(control(place).note(revoked.NOTE) or "{}"))


class TestCreate:
    def test_it_prints_the_token_alone_and_its_id_beside(self, capsys: pytest.CaptureFixture[str]) -> None:
        code, output = run("token", "create", "somebody")
        claims = tokens.read(output.removesuffix("\n"))
        assert code == 0
        assert capsys.readouterr().err.startswith(f"id {claims.id}, tenant {claims.id}, good until ")

    def test_json_has_all_that_the_token_says(self) -> None:
        made = created("somebody", "--tenant", "ours", "--scopes", "read,ask", "--days", "2")
        claims = tokens.read(made["token"])
        assert made["id"] == claims.id
        assert (claims.name, claims.tenant, claims.key) == ("somebody", "ours", "main")
        assert made["scopes"] == ["ask", "read"]
        assert claims.scopes == {"ask", "read"}
        assert abs(claims.until - now().timestamp() - 2 * 86_400) < 60

    def test_it_is_good_for_90_days_and_may_do_all(self) -> None:
        claims = tokens.read(created("somebody")["token"])
        assert abs(claims.until - now().timestamp() - 90 * 86_400) < 60
        assert claims.scopes == set(tokens.SCOPES)

    def test_without_a_tenant_it_has_one_of_its_own(self) -> None:
        first, second = (tokens.read(created("somebody")["token"]) for _ in range(2))
        assert (first.tenant, second.tenant) == (first.id, second.id)
        assert first.id != second.id

    def test_an_empty_tenant_is_none(self) -> None:
        assert tokens.read(created("somebody", "--tenant", "")["token"]).tenant == ""

    def test_what_is_recorded_is_not_the_token(self) -> None:
        made = created("somebody", "--reason", "a test")
        listed = json.dumps([*IssuedToken.objects.values(), *AuditEntry.objects.values()], default=str)
        assert made["id"] in listed
        assert made["token"] not in listed
        assert made["token"].rpartition(":")[2] not in listed
        assert AuditEntry.objects.filter(action="token", reason="a test", outcome="done").count() == 1

    @pytest.mark.parametrize(
        "words",
        [("",), ("a b",), ("x", "--tenant", "a:b"), ("x", "--scopes", "fly"), ("x", "--scopes", ""),
         ("x", "--days", "0"), ("x", "--days", "4000"), ()],
    )  # fmt: skip
    def test_what_no_token_can_say_is_refused(self, words: tuple[str, ...]) -> None:
        assert run("token", "create", *words)[0] == 2
        assert IssuedToken.objects.count() == 0

    def test_with_default_out_there_is_none(self) -> None:
        """What is not listed cannot be found to be revoked."""
        with default_out():
            code, output = run("token", "create", "somebody")
        assert code == 2
        assert output.startswith("`default`, which lists the tokens, cannot be used, and no token was made")

    def test_it_needs_no_store(self, redis_out: None, mongo_out: None) -> None:
        created("somebody")


class TestList:
    def test_it_shows_what_is_good_and_what_not(self, settings: Settings) -> None:
        settings.CHAT_KEYS = {"new": SECRET, "old": SECRET}
        good, gone, old = created("good"), created("gone"), created("old")
        IssuedToken.objects.filter(pk=old["id"]).update(until=now() - timedelta(days=1))
        run("token", "revoke", gone["id"])
        code, report = run_json("token", "list")
        assert code == 0
        assert {each["name"]: each["state"] for each in report["tokens"]} == {
            "good": "valid", "gone": "revoked", "old": "expired",
        }  # fmt: skip
        assert {key["id"]: (key["signs"], key["tokens"]) for key in report["keys"]} == {
            "new": (True, 1), "old": (False, 0), "main": (False, 0),
        }  # fmt: skip
        assert report["keys"][0]["last_until"][:10] == good["until"][:10]
        assert f"{good['id']}  valid    until {good['until'][:10]}  key new  good" in run("token", "list")[1]

    def test_a_token_of_a_key_that_is_gone_is_shown_as_that(self, settings: Settings) -> None:
        settings.CHAT_KEYS = {"gone": SECRET}
        created("somebody")
        settings.CHAT_KEYS = {}
        _, report = run_json("token", "list")
        assert report["tokens"][0]["state"] == "no key"
        assert {key["id"]: key["there"] for key in report["keys"]} == {"main": True, "gone": False}
        assert "key gone is not in CHAT_KEYS: 1 token" in run("token", "list")[1]

    def test_without_default_it_cannot(self) -> None:
        with default_out():
            assert run("token", "list")[0] == 2

    @pytest.mark.parametrize(
        "words", [("list", "x"), ("list", "--tenant", "x"), ("revoke",), ("revoke", "x", "--days", "1")]
    )
    def test_what_belongs_to_another_action_is_refused(self, words: tuple[str, ...]) -> None:
        assert run("token", *words)[0] == 2


class TestRevoke:
    def test_it_is_noted_everywhere(self) -> None:
        identity = created("somebody")["id"]
        code, output = run("token", "revoke", identity, "--reason", "lost")
        assert (code, output) == (
            0,
            f"revoked {identity} of somebody; noted in redis and mongo and VAR_DIR and default\n",
        )
        assert noted(REDIS) == noted(MONGO) == set(revoked._read(revoked.FILE)) == {identity}
        assert revoked.is_revoked(identity)
        recorded = IssuedToken.objects.get(pk=identity)
        assert recorded.revoked_at
        assert recorded.revoked_by
        assert AuditEntry.objects.filter(action="token", reason="lost", outcome="done").count() == 1

    def test_again_it_is_noted_again(self) -> None:
        """Also what was revoked before, where a store has lost it."""
        first, second = created("one")["id"], created("two")["id"]
        run("token", "revoke", first)
        revoked._known.clear()
        control(REDIS).write_note(revoked.NOTE, "")
        control(MONGO).write_note(revoked.NOTE, "{ not JSON")
        revoked._file().unlink()
        assert run("token", "revoke", second)[0] == 0
        assert noted(REDIS) == noted(MONGO) == {first, second}

    def test_with_a_store_out_it_says_so(self, redis_out: None) -> None:
        identity = created("somebody")["id"]
        code, output = run("token", "revoke", identity)
        assert code == 0
        assert "not noted in redis: run it again when that is back" in output
        assert noted(MONGO) == {identity}

    def test_with_both_stores_out_only_this_machine_follows(self, redis_out: None, mongo_out: None) -> None:
        identity = created("somebody")["id"]
        code, output = run("token", "revoke", identity)
        assert code == 1
        assert output.endswith("no store took it; run it again when one is back\n")
        assert identity in revoked._read(revoked.FILE)

    def test_with_default_out_it_works(self) -> None:
        identity = created("somebody")["id"]
        with default_out():
            code, report = run_json("token", "revoke", identity)
        assert code == 0
        assert report["missed"] == ["default"]
        assert noted(REDIS) == noted(MONGO) == {identity}
        assert run_json("token", "list")[1]["tokens"][0]["state"] == "revoked"

    def test_one_that_is_not_listed_is_revoked_and_said(self) -> None:
        """Each machine of a deployment may have a `default` of its own."""
        code, output = run("token", "revoke", "0123456789abcdef")
        assert code == 1
        assert "no token of this id is listed; it is revoked all the same" in output
        assert noted(MONGO) == {"0123456789abcdef"}

    @pytest.mark.parametrize("identity", ["", "a b", "x" * 33, "main.abc:def"])
    def test_what_is_no_id_is_refused(self, identity: str) -> None:
        assert run("token", "revoke", identity)[0] == 2
        assert revoked.known() == {}

    def test_one_that_has_expired_takes_no_room(self) -> None:
        identity = created("somebody")["id"]
        IssuedToken.objects.filter(pk=identity).update(until=now() - timedelta(days=2))
        assert run("token", "revoke", identity)[0] == 0
        assert noted(REDIS) == noted(MONGO) == set()
        assert run_json("token", "list")[1]["tokens"][0]["state"] == "revoked"

    def test_a_long_command_does_not_delay_it(self) -> None:
        for alias in ALIASES:
            control(alias).lease("operator", "another", 5.0)
        assert run("token", "revoke", created("somebody")["id"])[0] == 0

    def test_there_is_room_for_so_many(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(revoked, "MOST", 1)
        first, second = created("one")["id"], created("two")["id"]
        assert run("token", "revoke", first)[0] == 0
        assert run("token", "revoke", first)[0] == 0
        code, output = run("token", "revoke", second)
        assert code == 2
        assert "no room for another revoked token" in output


class TestFollowing:
    """What the thread of each process does twice a second."""

    UNTIL = 9_999_999_999

    def test_a_store_that_comes_back_empty_is_given_it_again(self, redis_server: RedisServer) -> None:
        identity = a_session()
        revoked.revoke({identity: self.UNTIL})
        with redis_server.client() as redis:
            redis.flushall()
        revoked.follow()
        assert noted(REDIS) == {identity}

    def test_a_process_that_starts_with_both_stores_out_knows_from_its_machine(
        self, redis_server: RedisServer, mongo_server: MongoServer, redis_out: None, mongo_out: None
    ) -> None:
        identity = a_session()
        revoked.revoke({identity: self.UNTIL})
        revoked._known = {}
        revoked.follow()
        assert revoked.is_revoked(identity)

    def test_both_stores_and_the_machine_are_brought_together(self) -> None:
        for number, alias in enumerate(ALIASES):
            control(alias).write_note(revoked.NOTE, json.dumps({f"of-{number}": self.UNTIL}))
        revoked.follow()
        assert noted(REDIS) == noted(MONGO) == set(revoked._read(revoked.FILE)) == {"of-0", "of-1"}

    def test_what_has_expired_is_dropped(self) -> None:
        lasting = a_session()
        notes = {"expired": int(now().timestamp()) - 2 * 86_400, lasting: self.UNTIL}
        control(REDIS).write_note(revoked.NOTE, json.dumps(notes))
        revoked.revoke({a_session(): self.UNTIL})
        assert "expired" not in noted(REDIS) | noted(MONGO)
        assert lasting in noted(REDIS) & noted(MONGO)

    @pytest.mark.parametrize("text", ["", "5", "[]", '{"a": "x"}', '{"a": null}', "\x00", '"x"', '{"a b": 9999999999}'])
    def test_a_note_that_cannot_be_read_takes_nothing_back(self, text: str) -> None:
        identity = a_session()
        revoked.revoke({identity: self.UNTIL})
        control(REDIS).write_note(revoked.NOTE, text)
        revoked.follow()
        assert revoked.known().keys() == {identity}
        assert noted(REDIS) == {identity}


class TestAdmin:
    PAGE = "/admin/ops/issuedtoken/"

    def client(self, *permissions: str) -> Client:
        user = User.objects.create_user(a_session(), is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
        client = Client()
        client.force_login(user)
        return client

    def test_who_may_see_the_tokens_cannot_revoke_or_change_them(self) -> None:
        identity = created("somebody")["id"]
        client = self.client("view_issuedtoken", "change_issuedtoken", "delete_issuedtoken")
        page = client.get(self.PAGE).content.decode()
        assert identity in page
        assert "Revoke the selected" not in page
        client.post(self.PAGE, {"action": "revoke", "_selected_action": [identity]})
        assert not revoked.is_revoked(identity)
        assert client.post(f"{self.PAGE}{identity}/change/", {"name": "x"}).status_code == 403
        assert client.post(f"{self.PAGE}{identity}/delete/", {"post": "yes"}).status_code == 403

    def test_who_has_the_permission_can_revoke_one(self) -> None:
        identity = created("somebody")["id"]
        client = self.client("view_issuedtoken", "revoke_token")
        done = client.post(self.PAGE, {"action": "revoke", "_selected_action": [identity]}, follow=True)
        assert [str(each) for each in done.context["messages"]] == [f"revoked {identity} somebody"]
        assert noted(REDIS) == noted(MONGO) == {identity}
        who = IssuedToken.objects.get(pk=identity).revoked_by
        assert AuditEntry.objects.get(who=who).after["id"] == identity

    def test_a_store_that_is_out_is_said(self, redis_out: None) -> None:
        identity = created("somebody")["id"]
        client = self.client("view_issuedtoken", "revoke_token")
        done = client.post(self.PAGE, {"action": "revoke", "_selected_action": [identity]}, follow=True)
        assert "not noted in redis" in done.content.decode()
