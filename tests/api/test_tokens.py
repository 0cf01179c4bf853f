"""CHAT_AUTH=token: authentication, tenants, and rate limits."""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import pytest
from django.conf import settings
from django.core import signing
from django.core.management import call_command
from django.test import Client
from pytest_django import Settings

from conversations import tokens
from conversations.api import urls
from conversations.history.listing import Cursor
from conversations.runtime import gauges, pings, revoked
from conversations.runtime.rates import rates
from conversations.stores import MONGO, REDIS
from conversations.stores.base import NO_TIME
from conversations.stores.control import Rate
from tests.api.talking import ask, delete, get, post, sample
from tests.api.test_errors import refused
from tests.builders import a_session, make_token

TURN = {"question": "What?", "answer": "That."}
LATE = 9_999_999_999
QUESTION = {"question": "What is Redis?"}


@pytest.fixture(autouse=True)
def _tokens(settings: Settings) -> None:
    settings.CHAT_AUTH, settings.CHAT_RATE = "token", ""


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def signed(claims: Any) -> str:
    """Return what a token would be with these claims."""
    return "main." + signing.dumps(claims, key=settings.SECRET_KEY, salt="onesource.chat.main")


def a_client(tenant: str | None = None, name: str = "") -> dict[str, str]:
    return bearer(make_token(name or a_session(), tenant))


class TestAuthentication:
    def test_a_token_is_accepted(self) -> None:
        headers = a_client()
        session = ask("What is Redis?", headers=headers)["session_id"]
        assert ask("And?", session, headers=headers)["msg_count_before"] == 2

    @pytest.mark.django_db
    def test_a_token_from_the_command_is_accepted(self, capsys: pytest.CaptureFixture[str]) -> None:
        call_command("token", "create", "somebody", tenant=a_session(), days=1)
        assert post(QUESTION, **bearer(capsys.readouterr().out.strip())).status_code == 200

    def test_without_a_token_everything_is_401(self) -> None:
        for response in (post(QUESTION), get("conversations/"), get("conversations/a/"), delete("conversations/a/")):
            refused(response, 401, "not_authenticated")
            assert response["WWW-Authenticate"] == "Bearer"

    @pytest.mark.parametrize("header", ["", "Basic YTpi", "nonsense", "Token x"])
    def test_another_scheme_is_401(self, header: str) -> None:
        refused(post(QUESTION, Authorization=header), 401, "not_authenticated")

    @pytest.mark.parametrize(
        "token",
        ["", "x", "é", "a.b.c", "\x00", "Bearer", "." * 5000, "main.", ".", "main." + "A" * 8192, "main.é:b:c",
         "main.a b", "main.eyJ9:x", ":::", "main.:::", "main.main."],
    )  # fmt: skip
    def test_a_malformed_token_is_401(self, token: str) -> None:
        response = post(QUESTION, **bearer(token))
        refused(response, 401, "authentication_failed")
        assert response["WWW-Authenticate"] == "Bearer"

    def test_a_changed_token_is_401(self) -> None:
        token = make_token("somebody", "theirs")
        forged = make_token("somebody", "others").partition(":")[0] + ":" + token.partition(":")[2]
        key, _, signed = token.partition(".")
        for changed in (token[:-1], token + "x", token.swapcase(), forged, signed, f"other.{signed}", f"{token} x"):
            refused(post(QUESTION, **bearer(changed)), 401, "authentication_failed")

    def test_a_value_signed_for_another_purpose_is_401(self) -> None:
        """It has the same key but another salt."""
        claims = {"name": "somebody", "tenant": "", "until": 9_999_999_999}
        refused(post(QUESTION, **bearer(signing.dumps(claims))), 401, "authentication_failed")

    def test_a_token_signed_with_another_key_is_401(self, settings: Settings) -> None:
        token = make_token("somebody")
        settings.SECRET_KEY = "another"
        refused(post(QUESTION, **bearer(token)), 401, "authentication_failed")

    def test_an_expired_token_is_401(self) -> None:
        for days, status in ((1, 200), (-1, 401)):
            assert post(QUESTION, **bearer(make_token("somebody", days=days))).status_code == status
        assert "expired" in refused(post(QUESTION, **bearer(make_token("a", days=-1))), 401, "authentication_failed")

    def test_with_open_auth_a_token_is_ignored(self, settings: Settings) -> None:
        settings.CHAT_AUTH = "open"
        assert post(QUESTION, **bearer("nonsense")).status_code == 200

    def test_an_unauthenticated_request_is_not_validated(self) -> None:
        refused(post({"qestion": 5}), 401, "not_authenticated")

    @pytest.mark.parametrize(
        "path", ["/", "/healthz", "/livez", "/readyz", "/metrics", "/version", "/api/schema/", "/api/docs/"]
    )
    def test_probes_and_documentation_need_no_token(self, path: str) -> None:
        pings.look()
        assert Client().get(path).status_code == 200

    @pytest.mark.parametrize("name", ["", "a b", "a:b", "a\n", "é", "a" * 129])
    def test_an_invalid_name_makes_no_token(self, name: str) -> None:
        with pytest.raises(ValueError, match="name must be"):
            make_token(name)
        if name:
            with pytest.raises(ValueError, match="tenant must be"):
                make_token("somebody", name)

    @pytest.mark.parametrize(
        "claims",
        [
            None, 5, "x", [], {}, {"name": "a"}, {"name": "a", "tenant": "t", "until": "9999999999"},
            {"name": "a", "tenant": "t", "until": True}, {"name": "a", "tenant": "t", "until": float("nan")},
            {"name": "a", "tenant": "t", "until": 1e300}, {"name": "a", "tenant": None, "until": LATE},
            {"name": "a", "tenant": "t:u", "until": LATE}, {"name": "a\n", "tenant": "t", "until": LATE},
            {"name": 5, "tenant": "t", "until": LATE}, {"name": "a", "tenant": {}, "until": LATE},
            {"name": "a", "tenant": "t", "until": LATE, "id": 5},
            {"name": "a", "tenant": "t", "until": LATE, "id": ["x"]},
            {"name": "a", "tenant": "t", "until": LATE, "id": "x", "scopes": "ask"},
            {"name": "a", "tenant": "t", "until": LATE, "id": "x", "scopes": None},
        ],
    )  # fmt: skip
    def test_claims_of_a_wrong_type_are_401_also_where_our_key_has_signed_them(self, claims: Any) -> None:
        refused(post(QUESTION, **bearer(signed(claims))), 401, "authentication_failed")

    def test_a_signed_value_that_is_no_json_is_401(self, settings: Settings) -> None:
        value = signing.TimestampSigner(key=settings.SECRET_KEY, salt="onesource.chat.main").sign("bm90IGpzb24")
        refused(post(QUESTION, **bearer(f"main.{value}")), 401, "authentication_failed")

    def test_a_refusal_is_counted_by_reason(self) -> None:
        gauges.start()
        before = {reason: sample("tokens_refused_total", reason=reason) for reason in ("invalid", "expired")}
        post(QUESTION, **bearer("nonsense"))
        post(QUESTION, **bearer(make_token("a", days=-1)))
        for reason, number in before.items():
            assert sample("tokens_refused_total", reason=reason) == number + 1


class TestTokensOfBefore:
    """Those that were made before keys had ids."""

    def token(self, **claims: Any) -> dict[str, str]:
        said = {"name": "somebody", "tenant": "", "until": LATE} | claims
        return bearer(signing.dumps(said, salt="onesource.chat"))

    def test_one_is_good_until_it_expires(self) -> None:
        assert post(QUESTION, **self.token()).status_code == 200
        refused(post(QUESTION, **self.token(until=1)), 401, "authentication_failed")

    def test_it_may_do_all_it_could_in_the_conversations_of_no_tenant(self) -> None:
        session = ask("What is Redis?", headers=self.token())["session_id"]
        again = bearer(make_token("another", ""))
        for path in ("", f"{session}/", f"{session}/export"):
            for headers in (self.token(), again):
                assert get(f"conversations/{path}", **headers).status_code == 200
        assert delete(f"conversations/{session}/", **self.token()).status_code == 204

    def test_it_is_good_beside_new_keys(self, settings: Settings) -> None:
        settings.CHAT_KEYS = {"new": "n" * 32}
        assert post(QUESTION, **self.token()).status_code == 200


class TestKeys:
    OLD, NEW = "an older secret of this test, long enough", "a newer secret of this test, long enough"

    def test_two_keys_overlap_while_the_first_signs(self, settings: Settings) -> None:
        settings.CHAT_KEYS = {"old": self.OLD}
        older = make_token("somebody")
        settings.CHAT_KEYS = {"new": self.NEW, "old": self.OLD}
        newer = make_token("somebody")
        assert (older.partition(".")[0], newer.partition(".")[0]) == ("old", "new")
        assert [post(QUESTION, **bearer(token)).status_code for token in (older, newer)] == [200, 200]
        settings.CHAT_KEYS = {"new": self.NEW}
        assert [post(QUESTION, **bearer(token)).status_code for token in (older, newer)] == [401, 200]

    def test_tokens_of_the_first_key_stay_good_when_the_first_of_chat_keys_is_added(self, settings: Settings) -> None:
        token = make_token("somebody")
        settings.CHAT_KEYS = {"new": self.NEW}
        assert post(QUESTION, **bearer(token)).status_code == 200

    def test_a_token_is_good_under_the_id_of_its_key_only(self, settings: Settings) -> None:
        """Also where both keys have one secret."""
        settings.CHAT_KEYS = {"one": self.NEW, "two": self.NEW}
        signed = make_token("somebody").partition(".")[2]
        assert post(QUESTION, **bearer(f"one.{signed}")).status_code == 200
        refused(post(QUESTION, **bearer(f"two.{signed}")), 401, "authentication_failed")


class TestScopes:
    CALLS: ClassVar[dict[str, list[Callable[..., Any]]]] = {
        "ask": [
            lambda **headers: post(QUESTION, **headers),
            lambda **headers: post(TURN, f"/api/chat/conversations/{a_session()}/turns", **headers),
        ],
        "read": [partial(get, "conversations/"), partial(get, "conversations/a/")],
        "delete": [partial(delete, "conversations/a/")],
        "export": [partial(get, "conversations/a/export")],
    }  # fmt: skip

    @pytest.mark.parametrize("scope", CALLS)
    def test_a_token_may_do_what_its_scope_says_and_nothing_else(self, scope: str) -> None:
        headers = bearer(make_token("somebody", a_session(), scopes=(scope,)))
        for needed, calls in self.CALLS.items():
            for call in calls:
                response = call(**headers)
                if needed == scope:
                    assert response.status_code in (200, 404)
                else:
                    assert f"`{needed}`" in refused(response, 403, "scope_missing")

    def test_every_action_has_a_scope(self) -> None:
        """One without would be anybody's who has a token."""
        for pattern in urls.urlpatterns:
            view = pattern.callback.cls
            assert set(pattern.callback.actions.values()) <= set(view.scopes)

    def test_a_scope_that_this_version_does_not_know_is_ignored(self) -> None:
        claims = {"id": "x", "name": "a", "tenant": "t", "until": LATE, "scopes": ["ask", "fly", 5]}
        assert post(QUESTION, **bearer(signed(claims))).status_code == 200


class TestRevoked:
    def test_a_revoked_token_is_401_and_others_stay_good(self) -> None:
        claims, token = tokens.issue("somebody")
        other = make_token("somebody", claims.tenant)
        assert post(QUESTION, **bearer(token)).status_code == 200
        gauges.start()
        before = sample("tokens_refused_total", reason="revoked")
        assert revoked.revoke({claims.id: claims.until}) == {REDIS: True, MONGO: True, revoked.FILE: True}
        assert "revoked" in refused(post(QUESTION, **bearer(token)), 401, "authentication_failed")
        assert sample("tokens_refused_total", reason="revoked") == before + 1
        assert post(QUESTION, **bearer(other)).status_code == 200

    def test_a_valid_one_works_and_a_revoked_one_does_not_while_a_store_is_out(self, redis_out: None) -> None:
        claims, token = tokens.issue("somebody")
        assert post(QUESTION, **bearer(token)).status_code == 200
        revoked.revoke({claims.id: claims.until})
        refused(post(QUESTION, **bearer(token)), 401, "authentication_failed")

    def test_checking_a_token_needs_no_store(self, redis_out: None, mongo_out: None) -> None:
        claims, token = tokens.issue("somebody")
        refused(post({}, **bearer(token)), 400, "invalid")  # the token was accepted
        revoked._learn({claims.id: claims.until})
        refused(post({}, **bearer(token)), 401, "authentication_failed")


class TestTenants:
    def test_a_tenant_cannot_read_another_tenants_conversations(self) -> None:
        mine, theirs, without_tenant = a_client(a_session()), a_client(a_session()), a_client()
        session = ask("What is Redis?", headers=mine)["session_id"]
        for headers in (theirs, without_tenant):
            for path in (f"conversations/{session}/", f"conversations/{session}/export"):
                refused(get(path, **headers), 404, "not_found")
            refused(delete(f"conversations/{session}/", **headers), 404, "not_found")
        assert len(get(f"conversations/{session}/", **mine).json()["messages"]) == 2

    def test_the_same_session_id_of_two_tenants_is_two_conversations(self) -> None:
        session, mine, theirs = a_session(), a_client(a_session()), a_client(a_session())
        ask("What is Redis?", session, headers=mine)
        assert ask("What did I just ask?", session, headers=theirs)["new_thread"]
        assert delete(f"conversations/{session}/", **theirs).status_code == 204
        assert get(f"conversations/{session}/", **mine).status_code == 200

    def test_a_tenant_cannot_list_another_tenants_conversations(self) -> None:
        mine, theirs = a_client(a_session()), a_client(a_session())
        session = ask("What is Redis?", headers=mine)["session_id"]
        assert [each["session_id"] for each in get("conversations/", **mine).json()["results"]] == [session]
        assert get("conversations/", **theirs).json()["results"] == []

    def test_a_cursor_of_another_tenant_lists_nothing(self) -> None:
        """It is the place of a conversation, which is refused, or a time alone."""
        mine, theirs = a_client(a_session()), a_client(a_session())
        for _ in range(3):
            ask("What is Redis?", headers=mine)
        cursor = get("conversations/?limit=1", **mine).json()["next"]
        refused(get(f"conversations/?limit=1&cursor={cursor}", **theirs), 400, "invalid")
        for time in ("2099-01-01T00:00:00.000Z", NO_TIME):
            response = get(f"conversations/?cursor={Cursor(time, '').encode()}", **theirs)
            assert (response.status_code, response.json()["results"]) == (200, [])

    def test_clients_of_one_tenant_share_its_conversations(self) -> None:
        tenant = a_session()
        session = ask("What is Redis?", headers=a_client(tenant))["session_id"]
        assert ask("What did I just ask?", session, headers=a_client(tenant))["msg_count_before"] == 2

    def test_two_tokens_of_one_name_without_a_tenant_never_meet(self) -> None:
        session, key = a_session(), {"Idempotency_Key": a_session()}
        first, second = bearer(make_token("somebody")), bearer(make_token("somebody"))
        assert ask("What is Redis?", session, headers=first | key)["replayed"] is False
        answer = ask("What is Redis?", session, headers=second | key)
        assert (answer["replayed"], answer["new_thread"]) == (False, True)
        refused(
            post(QUESTION | {"session_id": session, "question": "Else?"}, **(first | key)),
            422,
            "idempotency_key_reused",
        )
        assert delete(f"conversations/{session}/", **second).status_code == 204
        assert get(f"conversations/{session}/", **first).status_code == 200

    def test_a_key_without_a_session_of_two_tenants_is_two_conversations(self) -> None:
        key = {"Idempotency_Key": a_session()}
        first, second = bearer(make_token("somebody", a_session())), bearer(make_token("somebody", a_session()))
        ask("What is Redis?", headers=first | key)
        answer = ask("What is Redis?", headers=second | key)
        assert (answer["replayed"], answer["new_thread"]) == (False, True)

    def test_a_token_of_the_tenant_of_another_one_sees_the_same(self) -> None:
        claims, token = tokens.issue("somebody")
        session = ask("What is Redis?", headers=bearer(token))["session_id"]
        second = bearer(make_token("another", claims.tenant))
        assert get(f"conversations/{session}/", **second).status_code == 200

    def test_a_session_id_cannot_name_a_tenant(self) -> None:
        tenant = a_session()
        session = ask("What is Redis?", headers=a_client(tenant))["session_id"]
        refused(get(f"conversations/{tenant}:{session}/", **a_client()), 400, "invalid")
        refused(post(QUESTION | {"session_id": f"{tenant}:{session}"}, **a_client()), 400, "invalid")


class TestRate:
    @pytest.fixture(autouse=True)
    def _reset_counts(self) -> None:
        rates.forget()

    def test_over_the_rate_is_429_with_the_seconds_to_wait(self, settings: Settings) -> None:
        settings.CHAT_RATE = "2/min"
        headers = a_client()
        assert [post(QUESTION, **headers).status_code for _ in range(2)] == [200, 200]
        response = post(QUESTION, **headers)
        refused(response, 429, "throttled")
        assert 0 < int(response["Retry-After"]) <= 64

    def test_a_question_over_the_rate_is_not_stored(self, settings: Settings) -> None:
        settings.CHAT_RATE = "1/min"
        headers, session = a_client(), a_session()
        for _ in range(3):
            post(QUESTION | {"session_id": session}, **headers)
        assert len(get(f"conversations/{session}/", **headers).json()["messages"]) == 2

    def test_each_client_has_its_own_limit(self, settings: Settings) -> None:
        settings.CHAT_RATE = "1/min"
        tenant = a_session()
        clients = [a_client(), a_client(tenant, "one"), a_client(tenant, "two"), a_client(a_session(), "one")]
        assert [post(QUESTION, **headers).status_code for headers in clients] == [200] * 4
        assert [post(QUESTION, **headers).status_code for headers in clients] == [429] * 4

    def test_a_client_is_limited_among_many_others(self, settings: Settings) -> None:
        settings.CHAT_RATE = "1/min"
        headers = a_client()
        ask("What is Redis?", headers=headers)
        for number in range(1000):
            rates.wait(f"another-{number}", Rate(1, 60))
        assert post(QUESTION, **headers).status_code == 429

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            (get, "conversations/"),
            (get, "conversations/a/"),
            (get, "conversations/a/export"),
            (delete, "conversations/a/"),
        ],
    )
    def test_everything_else_is_limited_too(self, settings: Settings, method: Callable[..., Any], path: str) -> None:
        settings.CHAT_RATE = "2/min"
        headers = a_client()
        assert 429 not in [method(path, **headers).status_code for _ in range(2)]
        response = method(path, **headers)
        refused(response, 429, "throttled")
        assert 0 < int(response["Retry-After"]) <= 64

    def test_reading_and_asking_are_counted_apart(self, settings: Settings) -> None:
        settings.CHAT_RATE = "1/min"
        headers = a_client()
        assert [get("conversations/", **headers).status_code for _ in range(2)] == [200, 429]
        assert [post(QUESTION, **headers).status_code for _ in range(2)] == [200, 429]

    def test_with_open_auth_addresses_are_limited(self, settings: Settings) -> None:
        settings.CHAT_AUTH, settings.CHAT_RATE = "open", "1/min"
        assert [post(QUESTION).status_code for _ in range(2)] == [200, 429]

    def test_the_rate_limit_needs_no_store(self, settings: Settings, redis_out: None, mongo_out: None) -> None:
        """A limit kept in Redis would fail with it."""
        settings.CHAT_RATE = "2/min"
        headers = a_client()
        assert [post(QUESTION, **headers).status_code for _ in range(3)] == [503, 503, 429]
