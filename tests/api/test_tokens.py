"""CHAT_AUTH=token: authentication, tenants, and rate limits."""

from collections.abc import Callable
from typing import Any

import pytest
from django.core import signing
from django.core.management import call_command
from django.test import Client
from pytest_django import Settings

from conversations.api.authentication import make_token
from conversations.api.throttling import ChatRateThrottle
from conversations.history.listing import Cursor
from conversations.runtime import pings
from conversations.stores import MONGO
from conversations.stores.sessions import make_key
from tests.api.talking import ask, delete, get, post
from tests.api.test_errors import refused
from tests.builders import a_session

QUESTION = {"question": "What is Redis?"}


@pytest.fixture(autouse=True)
def _tokens(settings: Settings) -> None:
    settings.CHAT_AUTH, settings.CHAT_RATE = "token", ""


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def a_client(tenant: str = "", name: str = "") -> dict[str, str]:
    return bearer(make_token(name or a_session(), tenant))


class TestAuthentication:
    def test_a_token_is_accepted(self) -> None:
        headers = a_client()
        session = ask("What is Redis?", headers=headers)["session_id"]
        assert ask("And?", session, headers=headers)["msg_count_before"] == 2

    def test_a_token_from_the_command_is_accepted(self, capsys: pytest.CaptureFixture[str]) -> None:
        call_command("token", "somebody", tenant=a_session(), days=1)
        assert post(QUESTION, **bearer(capsys.readouterr().out.strip())).status_code == 200

    def test_without_a_token_everything_is_401(self) -> None:
        for response in (post(QUESTION), get("conversations/"), get("conversations/a/"), delete("conversations/a/")):
            refused(response, 401, "not_authenticated")
            assert response["WWW-Authenticate"] == "Bearer"

    @pytest.mark.parametrize("header", ["", "Basic YTpi", "nonsense", "Token x"])
    def test_another_scheme_is_401(self, header: str) -> None:
        refused(post(QUESTION, Authorization=header), 401, "not_authenticated")

    @pytest.mark.parametrize("token", ["", "x", "é", "a.b.c", "\x00", "Bearer", "." * 5000])
    def test_a_malformed_token_is_401(self, token: str) -> None:
        response = post(QUESTION, **bearer(token))
        refused(response, 401, "authentication_failed")
        assert response["WWW-Authenticate"] == "Bearer"

    def test_a_changed_token_is_401(self) -> None:
        token = make_token("somebody", "theirs")
        forged = make_token("somebody", "others").partition(":")[0] + ":" + token.partition(":")[2]
        for changed in (token[:-1], token + "x", token.swapcase(), forged):
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
        mine, theirs = a_client(a_session()), a_client(a_session())
        for _ in range(3):
            ask("What is Redis?", headers=mine)
        cursor = get("conversations/?limit=1", **mine).json()["next"]
        while cursor:
            response = get(f"conversations/?limit=1&cursor={cursor}", **theirs)
            assert (response.status_code, response.json()["results"]) == (200, [])
            cursor = get(f"conversations/?limit=1&cursor={cursor}", **mine).json()["next"]

    def test_a_cursor_at_another_tenants_conversation_is_400(self) -> None:
        """A position in MongoDB is a key."""
        tenant = a_session()
        position = make_key(f"{tenant}:{a_session()}")
        path = f"conversations/?cursor={Cursor(MONGO, position).encode()}"
        assert get(path, **a_client(tenant)).status_code == 200
        refused(get(path, **a_client(a_session())), 400, "invalid")

    def test_clients_of_one_tenant_share_its_conversations(self) -> None:
        tenant = a_session()
        session = ask("What is Redis?", headers=a_client(tenant))["session_id"]
        assert ask("What did I just ask?", session, headers=a_client(tenant))["msg_count_before"] == 2

    def test_a_session_id_cannot_name_a_tenant(self) -> None:
        tenant = a_session()
        session = ask("What is Redis?", headers=a_client(tenant))["session_id"]
        refused(get(f"conversations/{tenant}:{session}/", **a_client()), 400, "invalid")
        refused(post(QUESTION | {"session_id": f"{tenant}:{session}"}, **a_client()), 400, "invalid")


class TestRate:
    @pytest.fixture(autouse=True)
    def _reset_counts(self) -> None:
        ChatRateThrottle.cache.clear()

    def test_over_the_rate_is_429_with_the_seconds_to_wait(self, settings: Settings) -> None:
        settings.CHAT_RATE = "2/min"
        headers = a_client()
        assert [post(QUESTION, **headers).status_code for _ in range(2)] == [200, 200]
        response = post(QUESTION, **headers)
        refused(response, 429, "throttled")
        assert 0 < int(response["Retry-After"]) <= 60

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
            ChatRateThrottle.cache.set(f"another-{number}", [0.0])
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
        assert 0 < int(response["Retry-After"]) <= 60

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
