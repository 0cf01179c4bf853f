"""Promises that a change elsewhere can break: each of these was broken once."""

import base64
from pathlib import Path

import pytest
from django.test import Client
from pytest_django import Settings

from conversations import history
from conversations.answerers import answerer
from conversations.clock import now
from conversations.runtime import gauges, state
from conversations.stores import MONGO, REDIS, store
from conversations.stores.mongo.turns import DocumentStore
from tests import environment
from tests.api.talking import Lines, ask, get, let, post, sample
from tests.api.test_ask import Overtaken
from tests.builders import a_session, a_turn, make_token
from tests.servers import MongoServer, RedisServer


def bearer(name: str, tenant: str = "") -> dict[str, str]:
    return {"Authorization": f"Bearer {make_token(name, tenant)}"}


def test_an_impossible_date_is_treated_as_corrupt() -> None:
    session = a_session()
    ask("What?", session)
    with environment.REDIS.client() as client:
        value = client.get(f"conv:{session}")
        client.set(f"conv:{session}", value.replace(value[-27:-3], b"2026-99-99T99:99:99.999Z"), ex=60)
    assert ask("And?", session)["msg_count_before"] == 0


def test_no_log_line_has_a_session_even_for_a_refused_host(log: Lines) -> None:
    session = a_session()
    Client(headers={"Host": "elsewhere.example"}).get(f"/api/chat/conversations/{session}/")
    assert log.lines
    assert not [line for line in log.lines if session in line]


@let(Overtaken)
def test_a_turn_acknowledged_by_two_stores_is_the_same_in_both(answered_by: None, settings: Settings) -> None:
    """Dual write, while another machine answers the same question first."""
    settings.CONV_DUAL_WRITE = True
    Overtaken.session = a_session()
    answer = ask("What is Redis?", Overtaken.session, headers={"Idempotency_Key": "k-1"})
    assert answer["stored_in"] == ["redis", "mongo"]
    for alias in answer["stored_in"]:
        assert [turn.id for turn in store(alias).load(Overtaken.session).turns()] == [Overtaken.duplicate.id]


def test_a_store_that_fails_during_the_duplicate_check_counts_as_missed(
    settings: Settings, mongo_server: MongoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis has the turn: it is acknowledged, and MongoDB gets it when it is back."""
    settings.CONV_DUAL_WRITE = True
    session, inspect = a_session(), DocumentStore.inspect
    store(REDIS).append(session, a_turn(at=now()))
    store(MONGO).append(session, a_turn("What is Redis?", at=now(), key="k-1"))
    monkeypatch.setattr(DocumentStore, "inspect", lambda *these: (mongo_server.kill(), inspect(*these))[1])
    try:
        answer = ask("What is Redis?", session, headers={"Idempotency_Key": "k-1"})
    finally:
        mongo_server.start()
    assert (answer["stored_in"], answer["replayed"]) == (["redis"], False)
    assert store(REDIS).inspect(session).flag


def test_a_value_corrupted_during_the_duplicate_check_counts_as_missed(settings: Settings) -> None:
    """MongoDB has the turn: it is acknowledged, and repair corrects Redis."""
    settings.CONV_DUAL_WRITE, settings.CONV_STORE_PRIMARY = True, "mongo"
    state.forget()
    session, turn = a_session(), a_turn(key="k-1")
    store(REDIS).append(session, None, [a_turn(key="k-1"), a_turn(), a_turn()])
    reading = history.read(a_session())
    with environment.REDIS.client() as client:
        key = f"conv:{session}"
        client.set(key, client.get(key).replace(b"That.", b"\xff", 1), ex=60)  # looks right at both ends
    assert history.append(session, turn, reading).stored_in == ("mongo",)
    assert store(MONGO).inspect(session).flag


@pytest.mark.parametrize("question", ["What did I ask?", "And?"], ids=["needs the messages", "needs none"])
def test_a_fault_in_the_middle_of_a_value_is_quarantined_once_its_messages_are_wanted(question: str) -> None:
    session = a_session()
    store(REDIS).append(session, None, [a_turn(), a_turn(), a_turn()])
    with environment.REDIS.client() as client:
        key = f"conv:{session}"
        client.set(key, client.get(key).replace(b"That.", b"\xff", 1), ex=60)  # looks right at both ends
    answer = ask(question, session)
    if question == "What did I ask?":
        assert (answer["answer"], answer["msg_count_before"]) == ("You have asked nothing before this question.", 0)
    assert get(f"conversations/{session}/").status_code in (200, 404)
    assert ask("And?", session)["persisted"]
    with environment.REDIS.client() as client:
        assert client.exists(f"corrupt:{{conv:{session}}}:1")


def test_a_fault_in_the_middle_of_a_value_is_quarantined_when_its_key_is_looked_up() -> None:
    session = a_session()
    store(REDIS).append(session, None, [a_turn(), a_turn(at=now(), key="k-1"), a_turn(at=now())])
    with environment.REDIS.client() as client:
        key = f"conv:{session}"
        client.set(key, client.get(key).replace(b"That.", b"\xff", 1), ex=60)  # looks right at both ends
        answer = post({"question": "What?", "session_id": session}, Idempotency_Key="k-1")
        assert client.exists(f"corrupt:{{conv:{session}}}:1")
    assert answer.json()["code"] == "key_expired"  # the key is kept, and its turn is in no store


def test_context_is_behind_with_the_last_message_but_not_all_before_it(redis_server: RedisServer) -> None:
    """In an outage without dual write, the second answer is missing the same turns, with context: behind."""
    session = a_session()
    given = ask("What is Redis?", session)["message_id"]
    redis_server.kill()
    try:
        first = ask("And?", session, last_message_id=given)
        second = ask("And?", session, last_message_id=first["message_id"])
    finally:
        redis_server.start()
    assert [first["context"], second["context"]] == ["behind", "behind"]


def test_no_cursor_contains_another_tenants_session(settings: Settings) -> None:
    settings.CHAT_AUTH, settings.CHAT_RATE = "token", ""
    settings.CONV_STORE_PRIMARY = "mongo"
    state.forget()
    sessions = [ask("What?", headers=bearer("them", a_session()))["session_id"] for _ in range(5)]
    cursor, seen = "", []
    while cursor is not None:
        cursor = get(f"conversations/?limit=1&cursor={cursor}", **bearer("nobody")).json()["next"]
        seen.append(base64.urlsafe_b64decode(f"{cursor or ''}===").decode())
    assert not [cursor for cursor in seen for session in sessions if session in cursor]


def test_a_skipped_store_counts_as_a_persist_error(settings: Settings, redis_out: None) -> None:
    """PersistenceErrorsHigh must fire in an outage, also while the breaker keeps calls from Redis."""
    settings.CONV_DUAL_WRITE = True
    gauges.start()
    before = sample("history_persist_errors_total", store="redis")
    for _ in range(5):
        assert ask("What?", a_session())["stored_in"] == ["mongo"]
    assert sample("history_persist_errors_total", store="redis") == before + 5


def test_a_header_does_not_evade_the_rate_limit(settings: Settings) -> None:
    settings.CHAT_RATE = "1/min"
    tries = [post({"question": "a"}, X_Forwarded_For=f"10.0.0.{number}").status_code for number in range(3)]
    assert tries == [200, 429, 429]


def test_questions_are_answered_without_a_usable_var_dir(settings: Settings, tmp_path: Path) -> None:
    state.state()
    settings.VAR_DIR = tmp_path / "file"
    settings.VAR_DIR.write_text("")
    assert post({"question": "a", "session_id": a_session()}, Idempotency_Key="k").status_code == 200


def test_the_message_of_an_unexpected_error_is_not_logged(log: Lines, settings: Settings) -> None:
    """The message may quote a conversation; the class and the place are enough."""
    settings.ANSWERER = "tests.api.test_stream.Breaks"
    answerer.cache_clear()
    client = Client(raise_request_exception=False)
    response = client.post("/api/chat/ask", {"question": "a"}, content_type="application/json")
    answerer.cache_clear()
    assert response.status_code == 500
    assert any("RuntimeError" in line for line in log.lines)
    assert not [line for line in log.lines if "the words of a conversation" in line]


def test_another_method_on_a_probe_is_405() -> None:
    response = Client().post("/healthz")
    assert (response.status_code, response.json()["code"]) == (405, "method_not_allowed")
