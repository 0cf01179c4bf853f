"""POST /api/chat/conversations/<session_id>/turns: storing a turn that was answered elsewhere."""

from typing import Any

import pytest
from pytest_django import Settings

from conversations.runtime import state
from conversations.runtime.rates import rates
from conversations.stores import MONGO, REDIS, store
from tests.api.talking import ask, contents, delete, post
from tests.api.test_errors import refused
from tests.builders import a_session, a_turn, make_token
from tests.round_trips import to_mongo, to_redis
from tests.servers import MongoServer, RedisServer

TURN = {"question": "What is Redis?", "answer": "A store."}


def add(session: str, headers: dict[str, str] | None = None, **fields: Any) -> Any:
    """Send a turn; return the response."""
    return post(TURN | fields, f"/api/chat/conversations/{session}/turns", **(headers or {}))


def added(session: str, headers: dict[str, str] | None = None, **fields: Any) -> dict[str, Any]:
    """Store a turn; return the body of the 200."""
    response = add(session, headers, **fields)
    assert response.status_code == 200, response.content
    body: dict[str, Any] = response.json()
    return body


class TestStoring:
    def test_the_response_is_that_of_a_question(self) -> None:
        session = a_session()
        body = added(session)
        assert body == {
            "session_id": session,
            "answer": "A store.",
            "message_id": body["message_id"],
            "msg_count_before": 0,
            "new_thread": True,
            "store": "redis",
            "stored_in": ["redis"],
            "persisted": True,
            "context": "full",
            "replayed": False,
        }
        assert contents(session) == ["What is Redis?", "A store."]

    def test_the_next_question_is_answered_with_it(self) -> None:
        session = a_session()
        added(session)
        assert "What is Redis?" in ask("What did I just ask?", session)["answer"]

    def test_text_is_stored_unchanged(self) -> None:
        session, text = a_session(), " Żółć\n\t\u2028 \U0001f600 "
        added(session, question=text, answer=text)
        assert contents(session) == [text, text]

    def test_with_dual_write_both_stores_have_it(self, settings: Settings) -> None:
        settings.CONV_DUAL_WRITE = True
        assert added(a_session())["stored_in"] == ["redis", "mongo"]

    @pytest.mark.parametrize("headers", [{}, {"Idempotency_Key": "k-1"}])
    def test_it_takes_one_read_and_one_write(self, headers: dict[str, str]) -> None:
        session = a_session()
        for _ in range(2):  # Redis has the scripts from now on
            added(session)
        added(session, {"Idempotency_Key": "k-0"})
        state.state()
        with to_redis() as redis, to_mongo() as mongo:
            added(session, headers)
        assert (len(redis), mongo) == (2, [])

    def test_no_model_is_asked(self, settings: Settings) -> None:
        settings.ANSWERER = "there.is.None"
        assert added(a_session())["answer"] == "A store."

    def test_it_is_later_than_what_the_client_was_given(self) -> None:
        session, given = a_session(), a_turn().answer.id
        body = added(session, last_message_id=given)
        assert body["context"] == "behind"
        assert body["message_id"] > given

    def test_a_deleted_conversation_begins_anew(self) -> None:
        session = a_session()
        added(session)
        delete(f"conversations/{session}/")
        assert added(session)["new_thread"]
        assert len(contents(session)) == 2

    def test_the_trailing_slash_is_optional(self) -> None:
        session = a_session()
        assert post(TURN, f"/api/chat/conversations/{session}/turns/").status_code == 200


class TestIdempotencyKey:
    def test_the_same_key_stores_it_once(self) -> None:
        session, key = a_session(), {"Idempotency_Key": "k-1"}
        first = added(session, key)
        assert added(session, key) == first | {"replayed": True}
        assert len(contents(session)) == 2

    @pytest.mark.parametrize("other", [{"question": "What else?"}, {"answer": "Another one."}])
    def test_the_same_key_with_another_turn_is_422(self, other: dict[str, str]) -> None:
        session, key = a_session(), {"Idempotency_Key": "k-1"}
        added(session, key)
        refused(add(session, key, **other), 422, "idempotency_key_reused")
        assert len(contents(session)) == 2

    def test_a_question_with_its_key_gets_the_answer_from_elsewhere(self) -> None:
        session, key = a_session(), {"Idempotency_Key": "k-1"}
        added(session, key)
        answer = ask(TURN["question"], session, headers=key)
        assert (answer["answer"], answer["replayed"]) == ("A store.", True)

    def test_a_key_whose_turn_was_deleted_is_409(self) -> None:
        session, key = a_session(), {"Idempotency_Key": "k-1"}
        added(session, key)
        delete(f"conversations/{session}/")
        refused(add(session, key), 409, "key_expired")

    def test_an_invalid_key_is_400(self) -> None:
        refused(add(a_session(), {"Idempotency_Key": "a b"}), 400, "invalid")


class TestRefused:
    @pytest.mark.parametrize("field", ["question", "answer"])
    @pytest.mark.parametrize("value", ["", " ", "\0", None, 1, ["a"], "x" * 65_537])
    def test_an_invalid_text_is_400_and_named(self, field: str, value: Any) -> None:
        session = a_session()
        assert refused(add(session, **{field: value}), 400, "invalid").startswith(f"{field}: ")
        assert contents(session) == []

    @pytest.mark.parametrize("field", ["question", "answer"])
    def test_a_missing_text_is_400_and_named(self, field: str) -> None:
        turn = {name: text for name, text in TURN.items() if name != field}
        response = post(turn, f"/api/chat/conversations/{a_session()}/turns")
        assert refused(response, 400, "invalid").startswith(f"{field}: ")

    @pytest.mark.parametrize("field", ["session_id", "stream", "require_context", "id"])
    def test_another_field_is_400_and_named(self, field: str) -> None:
        assert refused(add(a_session(), **{field: True}), 400, "invalid") == f"{field}: Unknown field."

    def test_a_session_id_that_is_none_is_400(self) -> None:
        assert refused(add("tenant:a"), 400, "invalid").startswith("session_id: ")

    def test_a_long_body_is_413(self, settings: Settings) -> None:
        settings.MAX_BODY_BYTES = 100
        refused(add(a_session(), answer="x" * 100), 413, "too_large")

    def test_without_a_token_it_is_401(self, settings: Settings) -> None:
        settings.CHAT_AUTH = "token"
        refused(add(a_session()), 401, "not_authenticated")

    def test_it_is_counted_with_the_questions(self, settings: Settings) -> None:
        settings.CHAT_AUTH, settings.CHAT_RATE = "token", "2/min"
        rates.forget()
        headers = {"Authorization": f"Bearer {make_token('tester', a_session())}"}
        ask("What is Redis?", headers=headers)
        added(a_session(), headers)
        response = add(a_session(), headers)
        refused(response, 429, "throttled")
        assert int(response["Retry-After"]) > 0


class TestOutages:
    def test_while_redis_is_down_mongo_has_it(self, redis_out: None) -> None:
        session = a_session()
        assert added(session)["stored_in"] == ["mongo"]
        assert store(MONGO).inspect(session).flag

    def test_with_both_stores_down_nothing_is_acknowledged(self, redis_out: None, mongo_out: None) -> None:
        refused(add(a_session()), 503, "store_unavailable")

    def test_an_unknown_outcome_is_stored_once_with_its_key(
        self, settings: Settings, redis_server: RedisServer, mongo_server: MongoServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Both stores are sent the turn and do not answer in time."""
        settings.MONGO_TIMEOUT_MS = 300
        session = a_session()
        added(session, answer="Before.")
        one, append = store(REDIS), type(store(REDIS))._append

        def frozen(*these: Any) -> Any:
            redis_server.freeze()
            mongo_server.freeze()
            return append(*these)

        monkeypatch.setattr(type(one), "_append", frozen)
        monkeypatch.setattr(type(one), "append_after", lambda self, session, seen, turn, flag=False: frozen(
            self, session, turn, (), flag))  # fmt: skip
        try:
            response = add(session)
        finally:
            monkeypatch.undo()
            redis_server.thaw()
            mongo_server.thaw()
        refused(response, 503, "outcome_unknown")
        key = response.json()["idempotency_key"]
        assert response.json()["answer"] == "A store."
        added(session, {"Idempotency_Key": key})
        assert contents(session).count("A store.") == 1
