"""CHAT_AUTH=token: who may ask, what each may see, and how often."""

from collections.abc import Callable
from typing import Any

import pytest
from django.core import signing
from django.core.management import call_command
from django.test import Client
from pytest_django import Settings

from conversations.api.authentication import make_token
from conversations.api.throttling import ChatRateThrottle
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


class TestWhoMayAsk:
    def test_the_holder_of_a_token(self) -> None:
        headers = a_client()
        session = ask("What is Redis?", headers=headers)["session_id"]
        assert ask("And?", session, headers=headers)["msg_count_before"] == 2

    def test_a_token_from_the_command_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        call_command("token", "somebody", tenant=a_session(), days=1)
        assert post(QUESTION, **bearer(capsys.readouterr().out.strip())).status_code == 200

    def test_without_a_token_nobody(self) -> None:
        for response in (post(QUESTION), get("conversations/"), get("conversations/a/"), delete("conversations/a/")):
            refused(response, 401, "not_authenticated")
            assert response["WWW-Authenticate"] == "Bearer"

    @pytest.mark.parametrize("header", ["", "Basic YTpi", "nonsense", "Token x"])
    def test_another_scheme_is_no_token(self, header: str) -> None:
        refused(post(QUESTION, Authorization=header), 401, "not_authenticated")

    @pytest.mark.parametrize("token", ["", "x", "é", "a.b.c", "\x00", "Bearer", "." * 5000])
    def test_what_is_no_token_is_401(self, token: str) -> None:
        response = post(QUESTION, **bearer(token))
        refused(response, 401, "authentication_failed")
        assert response["WWW-Authenticate"] == "Bearer"

    def test_a_token_that_was_changed_is_401(self) -> None:
        token = make_token("somebody", "theirs")
        forged = make_token("somebody", "others").partition(":")[0] + ":" + token.partition(":")[2]
        for changed in (token[:-1], token + "x", token.swapcase(), forged):
            refused(post(QUESTION, **bearer(changed)), 401, "authentication_failed")

    def test_a_token_of_another_service_is_401(self) -> None:
        """Signed by the same secret, for another purpose."""
        claims = {"name": "somebody", "tenant": "", "until": 9_999_999_999}
        refused(post(QUESTION, **bearer(signing.dumps(claims))), 401, "authentication_failed")

    def test_a_token_of_another_secret_is_401(self, settings: Settings) -> None:
        token = make_token("somebody")
        settings.SECRET_KEY = "another"
        refused(post(QUESTION, **bearer(token)), 401, "authentication_failed")

    def test_a_token_that_has_expired_is_401(self) -> None:
        for days, status in ((1, 200), (-1, 401)):
            assert post(QUESTION, **bearer(make_token("somebody", days=days))).status_code == status
        assert "expired" in refused(post(QUESTION, **bearer(make_token("a", days=-1))), 401, "authentication_failed")

    def test_where_it_is_open_a_token_does_not_matter(self, settings: Settings) -> None:
        settings.CHAT_AUTH = "open"
        assert post(QUESTION, **bearer("nonsense")).status_code == 200

    def test_who_may_not_ask_learns_nothing_of_the_request(self) -> None:
        refused(post({"qestion": 5}), 401, "not_authenticated")

    @pytest.mark.parametrize(
        "path", ["/healthz", "/livez", "/readyz", "/metrics", "/version", "/api/schema/", "/api/docs/"]
    )
    def test_probes_and_documentation_need_none(self, path: str) -> None:
        assert Client().get(path).status_code in (200, 503)

    @pytest.mark.parametrize("name", ["", "a b", "a:b", "a\n", "é", "a" * 129])
    def test_a_token_for_nobody_is_not_made(self, name: str) -> None:
        with pytest.raises(ValueError, match="name must be"):
            make_token(name)
        if name:
            with pytest.raises(ValueError, match="tenant must be"):
                make_token("somebody", name)


class TestTenants:
    def test_one_cannot_see_anothers_conversations(self) -> None:
        mine, theirs, nobodys = a_client(a_session()), a_client(a_session()), a_client()
        session = ask("What is Redis?", headers=mine)["session_id"]
        for headers in (theirs, nobodys):
            for path in (f"conversations/{session}/", f"conversations/{session}/export"):
                refused(get(path, **headers), 404, "not_found")
            refused(delete(f"conversations/{session}/", **headers), 404, "not_found")
        assert len(get(f"conversations/{session}/", **mine).json()["messages"]) == 2

    def test_the_same_session_id_is_another_conversation(self) -> None:
        session, mine, theirs = a_session(), a_client(a_session()), a_client(a_session())
        ask("What is Redis?", session, headers=mine)
        assert ask("What did I just ask?", session, headers=theirs)["new_thread"]
        assert delete(f"conversations/{session}/", **theirs).status_code == 204
        assert get(f"conversations/{session}/", **mine).status_code == 200

    def test_one_cannot_list_anothers(self) -> None:
        mine, theirs = a_client(a_session()), a_client(a_session())
        session = ask("What is Redis?", headers=mine)["session_id"]
        assert [each["session_id"] for each in get("conversations/", **mine).json()["results"]] == [session]
        assert get("conversations/", **theirs).json()["results"] == []

    def test_one_cannot_go_on_with_anothers_list(self) -> None:
        """A cursor may name a conversation."""
        mine, theirs = a_client(a_session()), a_client(a_session())
        for _ in range(3):
            ask("What is Redis?", headers=mine)
        cursor = get("conversations/?limit=1", **mine).json()["next"]
        while cursor:
            response = get(f"conversations/?limit=1&cursor={cursor}", **theirs)
            assert response.status_code == 400 or response.json()["results"] == []
            cursor = get(f"conversations/?limit=1&cursor={cursor}", **mine).json()["next"]

    def test_two_clients_of_a_tenant_share_its_conversations(self) -> None:
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
    def _no_questions_yet(self) -> None:
        ChatRateThrottle.cache.clear()

    def test_over_the_rate_is_429_with_the_seconds_to_wait(self, settings: Settings) -> None:
        settings.CHAT_RATE = "2/min"
        headers = a_client()
        assert [post(QUESTION, **headers).status_code for _ in range(2)] == [200, 200]
        response = post(QUESTION, **headers)
        refused(response, 429, "throttled")
        assert 0 < int(response["Retry-After"]) <= 60

    def test_nothing_is_stored_of_what_was_over_it(self, settings: Settings) -> None:
        settings.CHAT_RATE = "1/min"
        headers, session = a_client(), a_session()
        for _ in range(3):
            post(QUESTION | {"session_id": session}, **headers)
        assert len(get(f"conversations/{session}/", **headers).json()["messages"]) == 2

    def test_each_client_has_its_own(self, settings: Settings) -> None:
        settings.CHAT_RATE = "1/min"
        tenant = a_session()
        clients = [a_client(), a_client(tenant, "one"), a_client(tenant, "two"), a_client(a_session(), "one")]
        assert [post(QUESTION, **headers).status_code for headers in clients] == [200] * 4
        assert [post(QUESTION, **headers).status_code for headers in clients] == [429] * 4

    def test_a_client_is_limited_however_many_others_there_are(self, settings: Settings) -> None:
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

    def test_reading_does_not_use_up_the_questions(self, settings: Settings) -> None:
        settings.CHAT_RATE = "1/min"
        headers = a_client()
        assert [get("conversations/", **headers).status_code for _ in range(2)] == [200, 429]
        assert [post(QUESTION, **headers).status_code for _ in range(2)] == [200, 429]

    def test_where_it_is_open_addresses_are_limited_if_asked_for(self, settings: Settings) -> None:
        settings.CHAT_AUTH, settings.CHAT_RATE = "open", "1/min"
        assert [post(QUESTION).status_code for _ in range(2)] == [200, 429]

    def test_the_rate_does_not_need_a_store(self, settings: Settings, redis_out: None, mongo_out: None) -> None:
        """A limit kept in Redis would go down with it."""
        settings.CHAT_RATE = "2/min"
        headers = a_client()
        assert [post(QUESTION, **headers).status_code for _ in range(3)] == [503, 503, 429]
