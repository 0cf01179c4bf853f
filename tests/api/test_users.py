"""Conversations of a user over HTTP: one user a conversation, kept when it is trimmed, and found by it."""

from typing import Any
from urllib.parse import quote

import pytest
from pytest_django import Settings

from conversations import history
from conversations.history import repair
from conversations.runtime import state
from conversations.stores import ALIASES, MONGO, REDIS, store
from conversations.turns import History
from tests.api.talking import ask, get, post
from tests.builders import a_session, a_turn, make_token

ADA = "ada@example.org:1+2"
RULE = "Must be 1 to 128 of the characters A-Z a-z 0-9 @ . _ + : -"


def a_tenant(settings: Settings, tenant: str) -> dict[str, str]:
    settings.CHAT_AUTH = "token"
    return {"Authorization": f"Bearer {make_token('tests', tenant)}"}


def user_of(session: str, **headers: str) -> Any:
    return get(f"conversations/{session}/", **headers).json()["user"]


def listed(user: str, **headers: str) -> list[str]:
    page = get(f"conversations/?user={quote(user)}", **headers).json()
    assert {one["user"] for one in page["results"]} <= {user}
    return [one["session_id"] for one in page["results"]]


@pytest.mark.parametrize("stream", [False, True])
def test_a_conversation_has_the_user_that_was_named(stream: bool) -> None:
    session = a_session()
    response = post({"question": "What?", "session_id": session, "user": ADA, "stream": stream})
    assert response.status_code == 200
    b"".join(response)
    assert user_of(session) == ADA
    ask("And?", session)
    asked = [message.get("user") for message in get(f"conversations/{session}/").json()["messages"]]
    assert asked == [ADA, None, ADA, None]


def test_a_turn_that_was_answered_elsewhere_has_a_user_too() -> None:
    session = a_session()
    body = {"question": "What?", "answer": "That.", "user": ADA}
    assert post(body, f"/api/chat/conversations/{session}/turns").status_code == 200
    assert user_of(session) == ADA
    response = post(body | {"user": "eve"}, f"/api/chat/conversations/{session}/turns")
    assert (response.status_code, response.json()["code"]) == (409, "other_user")


@pytest.mark.parametrize("user", ["a b", "ä", "a\n", "a/b", "x" * 129, 5, None, ["a"]])
@pytest.mark.parametrize("path", ["/api/chat/ask", "/api/chat/conversations/x/turns"])
def test_a_user_that_is_none_is_400_and_named(user: Any, path: str) -> None:
    body = {"question": "What?", "user": user} | ({"answer": "That."} if path.endswith("turns") else {})
    response = post(body, path)
    assert (response.status_code, list(response.json()["errors"])) == (400, ["user"])
    if isinstance(user, str):
        assert response.json()["errors"] == {"user": [RULE]}


def test_an_empty_user_is_400_here_and_in_a_list() -> None:
    assert post({"question": "What?", "user": ""}).status_code == 400
    for wrong in ("", "a%20b", "x" * 129, "a%0A"):
        response = get(f"conversations/?user={wrong}")
        assert (response.status_code, list(response.json()["errors"])) == (400, ["user"])


@pytest.mark.parametrize("stream", [False, True])
def test_another_users_ask_is_409_and_changes_nothing(stream: bool) -> None:
    session = a_session()
    ask("What?", session, user=ADA)
    before = history.read(session).history
    response = post({"question": "And?", "session_id": session, "user": "eve", "stream": stream})
    assert (response.status_code, response.json()["code"]) == (409, "other_user")
    assert history.read(session).history == before


def test_another_users_retry_is_409_and_gets_no_answer() -> None:
    session, body = a_session(), {"question": "What?"}
    assert post(body | {"session_id": session, "user": ADA}, Idempotency_Key="k-1").status_code == 200
    response = post(body | {"session_id": session, "user": "eve"}, Idempotency_Key="k-1")
    assert (response.status_code, response.json()["code"]) == (409, "other_user")
    assert "answer" not in response.json()


def test_a_conversation_without_a_user_is_given_one_later() -> None:
    session = a_session()
    ask("What?", session)
    assert user_of(session) is None
    ask("And?", session, user=ADA)
    assert (user_of(session), listed(ADA).count(session)) == (ADA, 1)


@pytest.mark.parametrize("primary", ALIASES)
def test_trimming_keeps_the_user(settings: Settings, primary: str) -> None:
    settings.CONV_STORE_PRIMARY = primary
    session = a_session()
    ask("What?", session, user=ADA)
    for number in range(20):
        ask(f"And {number}?", session)
    conversation = get(f"conversations/{session}/").json()
    assert (conversation["user"], len(conversation["messages"])) == (ADA, 32)
    assert post({"question": "And?", "session_id": session, "user": "eve"}).status_code == 409


def test_what_was_deleted_leaves_no_user() -> None:
    session = a_session()
    ask("What?", session, user=ADA)
    history.delete(session)
    ask("What?", session, user="eve")
    assert (user_of(session), session in listed(ADA), session in listed("eve")) == ("eve", False, True)


def test_the_same_name_in_two_tenants_is_two_users(settings: Settings) -> None:
    one, other, session = a_session(), a_session(), a_session()
    first, second = a_tenant(settings, one), a_tenant(settings, other)
    ask("What?", session, headers=first, user=ADA)
    assert (listed(ADA, **first), listed(ADA, **second)) == ([session], [])
    ask("What?", session, headers=second, user="eve")
    assert (user_of(session, **first), user_of(session, **second)) == (ADA, "eve")


@pytest.mark.parametrize("out", ["redis_out", "mongo_out"])
def test_the_list_with_a_store_out_has_what_the_other_has(
    settings: Settings, out: str, request: pytest.FixtureRequest
) -> None:
    tenant = a_session()
    headers, there = a_tenant(settings, tenant), MONGO if out == "redis_out" else REDIS
    sessions = [a_session() for _ in range(3)]
    for session in sessions:
        store(there).append(f"{tenant}:{session}", a_turn(user=ADA))
        store(there).append(f"{tenant}:{a_session()}", a_turn(user="eve"))
    request.getfixturevalue(out)
    state.forget()
    page = get(f"conversations/?user={quote(ADA)}", **headers).json()
    assert ([one["session_id"] for one in page["results"]], page["complete"]) == (sessions[::-1], False)


def test_a_merge_and_a_repair_keep_the_user() -> None:
    """Two first turns in two stores that could not see each other: the later user counts for all readers."""
    session, turns = a_session(), (a_turn(user=ADA), a_turn(), a_turn(user="eve"), a_turn())
    store(REDIS).append(session, None, turns[:2])
    store(MONGO).append(session, None, turns[2:], flag=True)
    assert repair.conversation(session)
    for alias in ALIASES:
        assert store(alias).load(session) == History.of(turns)
    assert user_of(session) == "eve"


@pytest.mark.usefixtures("redis_out")
def test_a_turn_taken_by_the_fallback_has_its_user() -> None:
    session = a_session()
    ask("What?", session, user=ADA)
    found = store(MONGO).load(session)
    assert found is not None and found.user == ADA
