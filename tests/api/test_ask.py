"""POST /api/chat/ask: one turn over HTTP, with both stores up, and with one or both of them down."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import connections
from pytest_django import Settings

from conversations.answerers.base import Answerer
from conversations.answerers.recall import BEHIND, NOT_A_MODEL
from conversations.clock import now
from conversations.errors import AnswererFailed
from conversations.history import repair, routing
from conversations.ids import MESSAGE_ID
from conversations.policy import Routing
from conversations.runtime import gauges, state
from conversations.stores import MONGO, REDIS, store
from conversations.turns import SESSION_ID, History
from tests import environment
from tests.api.talking import Lines, ask, contents, delete, get, let, post, sample, stop_the_stores
from tests.builders import a_session, a_turn, make_token
from tests.servers import MongoServer, RedisServer

BOTH = [REDIS, MONGO]
LAST = a_turn(at=datetime(6429, 10, 17, 2, 45, 55, 327_000, tzinfo=UTC))


class StopsTheStores(Answerer):
    """Answers, and stops both stores meanwhile."""

    def answer(self, question: str, history: History, *, behind: bool = False) -> Iterator[str]:
        stop_the_stores()
        yield "An answer that was "
        yield "paid for."


class Fails(Answerer):
    """A model that fails in the middle of its answer."""

    def answer(self, question: str, history: History, *, behind: bool = False) -> Iterator[str]:
        yield "The answer"
        raise AnswererFailed("APITimeoutError")


class HalfACharacter(Answerer):
    """A model that answers with half a surrogate pair, which is no text."""

    def answer(self, question: str, history: History, *, behind: bool = False) -> Iterator[str]:
        yield "so \ud83d"


class Slowly(Answerer):
    """Takes long enough for a second request with the same key to arrive."""

    asked = 0

    def answer(self, question: str, history: History, *, behind: bool = False) -> Iterator[str]:
        Slowly.asked += 1
        time.sleep(0.3)
        yield f"answer {Slowly.asked}"


class FreezesRedis(Answerer):
    """Answers, and freezes Redis meanwhile: Redis may execute later what it is sent then."""

    asked = 0

    def answer(self, question: str, history: History, *, behind: bool = False) -> Iterator[str]:
        FreezesRedis.asked += 1
        environment.REDIS.freeze()
        yield f"answer {FreezesRedis.asked}"


class Overtaken(Answerer):
    """Answers; meanwhile another machine answers a request with the same key."""

    session = ""
    duplicate = a_turn("What is Redis?", "Theirs.", at=now(), key="k-1")

    def answer(self, question: str, history: History, *, behind: bool = False) -> Iterator[str]:
        for alias in routing().wanted:
            store(alias).append(self.session, self.duplicate)
        yield "Ours."


class TestAnswer:
    def test_an_answer_has_the_fields_of_the_contract(self) -> None:
        session = a_session()
        answer = ask("What is Redis?", session)
        assert MESSAGE_ID.fullmatch(answer.pop("message_id"))
        assert answer == {
            "session_id": session,
            "answer": NOT_A_MODEL,
            "msg_count_before": 0,
            "new_thread": True,
            "store": "redis",
            "stored_in": ["redis"],
            "persisted": True,
            "context": "full",
            "replayed": False,
        }

    def test_the_second_answer_quotes_the_first_question(self) -> None:
        """The runbook's end-to-end test."""
        session = a_session()
        ask("Test conversation memory", session)
        answer = ask("What did I just ask about?", session)
        assert answer["answer"] == "You just asked: “Test conversation memory”"
        assert (answer["msg_count_before"], answer["new_thread"]) == (2, False)

    def test_msg_count_before_counts_messages_before_the_turn(self) -> None:
        session = a_session()
        answers = [ask("And?", session) for _ in range(4)]
        assert [answer["msg_count_before"] for answer in answers] == [0, 2, 4, 6]
        assert [answer["new_thread"] for answer in answers] == [True, False, False, False]

    def test_a_conversation_is_trimmed_to_sixteen_turns(self) -> None:
        session = a_session()
        answers = [ask(f"Question {number}", session) for number in range(18)]
        assert [answer["msg_count_before"] for answer in answers[-3:]] == [30, 32, 32]
        assert contents(session)[0] == "Question 2"

    def test_a_question_without_session_id_starts_a_conversation(self) -> None:
        first, second = ask("Who are you?"), ask("Who are you?")
        assert SESSION_ID.fullmatch(first["session_id"])
        assert first["session_id"] != second["session_id"]
        assert ask("What did I just ask?", first["session_id"])["answer"] == "You just asked: “Who are you?”"

    def test_sessions_are_separate(self) -> None:
        ask("What is Redis?", a_session())
        assert ask("What did I just ask?", a_session())["msg_count_before"] == 0

    @pytest.mark.parametrize("text", ["żółć ☃ 𝄞", "  spaces\tkept \r\n\u2028", 'a "quoted" \\ back', "a" * 65_536])
    def test_a_question_is_stored_unchanged(self, text: str) -> None:
        session = a_session()
        ask(text, session)
        assert contents(session)[0] == text

    def test_message_ids_sort_in_the_order_of_turns(self) -> None:
        session = a_session()
        ids = [ask("And?", session)["message_id"] for _ in range(5)]
        assert ids == sorted(ids)

    @let(HalfACharacter)
    def test_half_a_surrogate_pair_in_an_answer_is_replaced(self, answered_by: None) -> None:
        session = a_session()
        assert ask("What?", session)["answer"] == contents(session)[1] == "so ?"


class DeletedFarAhead(Answerer):
    """Answers; meanwhile the conversation is deleted up to the last possible time."""

    session = ""

    def answer(self, question: str, history: History, *, behind: bool = False) -> Iterator[str]:
        store(REDIS).delete(self.session, LAST.answer.id)
        yield "An answer that was paid for."


class TestTheLastTime:
    """No turn can follow one with the last time that an id can have; a very wrong clock may have made it."""

    @pytest.mark.parametrize("stream", [False, True])
    def test_the_model_is_not_asked_where_no_later_turn_is_possible(self, stream: bool) -> None:
        session = a_session()
        store(REDIS).append(session, LAST)
        response = post({"question": "And?", "session_id": session, "stream": stream})
        assert (response.status_code, response.json()["code"]) == (409, "no_later_turn")
        assert "answer" not in response.json()
        assert store(REDIS).load(session) == History.of([LAST])

    @let(DeletedFarAhead)
    def test_the_error_contains_the_answer_that_was_not_stored(self, answered_by: None) -> None:
        DeletedFarAhead.session = session = a_session()
        response = post({"question": "And?", "session_id": session})
        assert (response.status_code, response.json()["code"]) == (409, "no_later_turn")
        assert (response.json()["answer"], response.json()["persisted"]) == ("An answer that was paid for.", False)
        assert store(REDIS).load(session) is None

    def test_a_stored_answer_is_replayed_by_its_key(self) -> None:
        session = a_session()
        turn = a_turn("And?", "So.", at=LAST.question.time, key="k-1")
        store(REDIS).append(session, turn)
        assert ask("And?", session, headers={"Idempotency_Key": "k-1"})["replayed"]


class TestATombstoneThatIsNoId:
    """A tombstone that another program wrote."""

    @pytest.mark.parametrize("dual_write", [False, True])
    def test_the_conversation_continues_and_the_fault_is_logged_and_counted(
        self, settings: Settings, log: Lines, dual_write: bool
    ) -> None:
        settings.CONV_DUAL_WRITE = dual_write
        session = a_session()
        ask("What is Redis?", session)
        with environment.REDIS.client() as client:
            client.set(f"tomb:{{conv:{session}}}", "zzz", ex=60)
        gauges.start()
        before = sample("history_corrupt_total", store="redis")
        assert ask("And?", session)["msg_count_before"] == 2
        assert sample("history_corrupt_total", store="redis") > before
        assert [each["store"] for each in log.events() if each["event"] == "corrupt_tombstone"] == ["redis"]
        assert len(contents(session)) == 4

    def test_the_conversation_can_be_deleted_and_stays_deleted(self) -> None:
        session = a_session()
        ask("What is Redis?", session)
        with environment.REDIS.client() as client:
            client.set(f"tomb:{{conv:{session}}}", "zzz", ex=60)
        assert delete(f"conversations/{session}/").status_code == 204
        repair.conversation(session)
        assert get(f"conversations/{session}/").status_code == 404


class TestStores:
    @pytest.mark.parametrize(
        ("primary", "dual_write", "stored_in"),
        [
            ("redis", False, ["redis"]),
            ("mongo", False, ["mongo"]),
            ("redis", True, ["redis", "mongo"]),
            ("mongo", True, ["mongo", "redis"]),
        ],
    )
    def test_stored_in_names_every_store_that_has_the_turn(
        self, settings: Settings, primary: str, dual_write: bool, stored_in: list[str]
    ) -> None:
        settings.CONV_STORE_PRIMARY, settings.CONV_DUAL_WRITE = primary, dual_write
        session = a_session()
        answer = ask("What is Redis?", session)
        assert (answer["store"], answer["stored_in"]) == (primary, stored_in)
        assert {alias for alias in BOTH if store(alias).load(session)} == set(stored_in)

    def test_a_conversation_only_in_the_fallback_continues(self, settings: Settings) -> None:
        """A switch forgets no conversation."""
        session = a_session()
        settings.CONV_STORE_PRIMARY = "mongo"
        ask("What is Redis?", session)
        settings.CONV_STORE_PRIMARY = "redis"
        state.forget()
        answer = ask("What did I just ask?", session)
        assert (answer["answer"], answer["store"]) == ("You just asked: “What is Redis?”", "mongo")
        assert len(store(REDIS).load(session) or ()) == 4


class TestContext:
    def test_context_is_full_with_the_last_message_id(self) -> None:
        session = a_session()
        given = ask("What is Redis?", session)["message_id"]
        answer = ask("And?", session, last_message_id=given, require_context=True)
        assert (answer["context"], answer["msg_count_before"]) == ("full", 2)

    def test_context_is_behind_where_messages_are_missing(self) -> None:
        """An answer without turns that were acknowledged to its client has context: behind."""
        session = a_session()
        ask("What is Redis?", session)
        later = ask("Elsewhere", a_session())["message_id"]
        answer = ask("What did I just ask?", session, last_message_id=later)
        assert (answer["context"], answer["answer"]) == ("behind", f"You just asked: “What is Redis?”\n\n{BEHIND}")
        assert ask("And?", a_session(), last_message_id=later)["context"] == "behind"

    def test_require_context_gets_503_where_messages_are_missing(self) -> None:
        session = a_session()
        ask("What is Redis?", session)
        later = ask("Elsewhere", a_session())["message_id"]
        response = post({"question": "And?", "session_id": session, "last_message_id": later, "require_context": True})
        assert (response.status_code, response.json()["code"]) == (503, "context_behind")
        assert response["Retry-After"] == "1"
        assert len(contents(session)) == 2

    def test_context_is_full_for_a_client_without_last_message_id(self) -> None:
        answer = ask("What is Redis?", a_session(), last_message_id=None, require_context=True)
        assert answer["context"] == "full"


class TestIdempotencyKey:
    def test_the_same_key_gives_the_stored_answer(self) -> None:
        session = a_session()
        ask("Before", session)
        first = ask("What is Redis?", session, headers={"Idempotency_Key": "k-1"})
        ask("After", session)
        again = ask("What is Redis?", session, headers={"Idempotency_Key": "k-1"})
        assert again == first | {"replayed": True}
        assert len(contents(session)) == 6

    def test_the_same_key_with_another_question_is_422(self) -> None:
        session = a_session()
        ask("What is Redis?", session, headers={"Idempotency_Key": "k-1"})
        response = post({"question": "What else?", "session_id": session}, Idempotency_Key="k-1")
        assert (response.status_code, response.json()["code"]) == (422, "idempotency_key_reused")
        assert len(contents(session)) == 2

    def test_the_same_key_in_another_session_is_independent(self) -> None:
        for session in (a_session(), a_session()):
            assert not ask("What is Redis?", session, headers={"Idempotency_Key": "k-1"})["replayed"]

    def test_a_retry_without_session_id_finds_the_conversation_that_was_begun(self) -> None:
        """Its client has no session_id yet: the first response was lost."""
        key = {"Idempotency_Key": a_session()}
        first = ask("What is Redis?", headers=key)
        assert ask("What is Redis?", headers=key) == first | {"replayed": True}
        assert SESSION_ID.fullmatch(first["session_id"])
        assert ask("And?", first["session_id"])["msg_count_before"] == 2

    def test_another_question_without_session_id_is_422(self) -> None:
        key = a_session()
        ask("What is Redis?", headers={"Idempotency_Key": key})
        response = post({"question": "What else?"}, Idempotency_Key=key)
        assert (response.status_code, response.json()["code"]) == (422, "idempotency_key_reused")

    def test_another_key_without_session_id_begins_another_conversation(self) -> None:
        sessions = {ask("What?", headers={"Idempotency_Key": a_session()})["session_id"] for _ in range(3)}
        assert len(sessions) == 3

    def test_a_key_without_session_id_belongs_to_one_token(self, settings: Settings) -> None:
        """Also among the tokens of one tenant: their clients know nothing of each other's keys."""
        settings.CHAT_AUTH, settings.CHAT_RATE = "token", ""
        key, tenant = a_session(), a_session()
        holders = [("one", tenant), ("two", tenant), ("one", a_session())]
        found = [
            ask("What?", headers={"Idempotency_Key": key, "Authorization": f"Bearer {make_token(*holder)}"})
            for holder in holders
        ]
        assert len({each["session_id"] for each in found}) == 3
        assert [each["replayed"] for each in found] == [False] * 3

    @let(Slowly)
    def test_concurrent_requests_with_one_key_begin_one_conversation(self, answered_by: None) -> None:
        key, asked = a_session(), Slowly.asked

        def send(number: int) -> Any:
            try:
                return ask("What is Redis?", headers={"Idempotency_Key": key})
            finally:
                connections.close_all()

        with ThreadPoolExecutor(2) as pool:
            one, two = pool.map(send, range(2))
        assert (one["session_id"], one["message_id"]) == (two["session_id"], two["message_id"])
        assert sorted([one["replayed"], two["replayed"]]) == [False, True]
        assert (len(contents(one["session_id"])), Slowly.asked - asked) == (2, 1)

    def test_a_replay_adds_the_turn_to_the_store_where_it_is_missing(self, settings: Settings) -> None:
        """A process was killed between the two writes of a dual write, and the client asks again."""
        settings.CONV_DUAL_WRITE = True
        session, turn = a_session(), a_turn("What is Redis?", "Ours.", at=now(), key="k-1")
        store(REDIS).append(session, turn)
        answer = ask("What is Redis?", session, headers={"Idempotency_Key": "k-1"})
        assert (answer["answer"], answer["replayed"], answer["stored_in"]) == ("Ours.", True, BOTH)
        assert store(MONGO).load(session) == History.of([turn])

    def test_a_replay_restores_nothing_that_was_deleted(self, settings: Settings) -> None:
        settings.CONV_DUAL_WRITE = True
        session, turn = a_session(), a_turn("What is Redis?", "Ours.", at=now(), key="k-1")
        store(REDIS).append(session, turn)
        store(MONGO).delete(session, turn.answer.id)
        ask("What is Redis?", session, headers={"Idempotency_Key": "k-1"})
        assert store(MONGO).load(session) is None

    @let(Slowly)
    def test_concurrent_requests_with_one_key_share_one_call_of_the_model(self, answered_by: None) -> None:
        """A client repeats its question while it is still being answered."""
        session, asked = a_session(), Slowly.asked

        def send() -> Any:
            try:
                return ask("What is Redis?", session, headers={"Idempotency_Key": "k-1"})
            finally:
                connections.close_all()

        with ThreadPoolExecutor(2) as pool:
            one, two = (future.result() for future in [pool.submit(send), pool.submit(send)])
        assert one["message_id"] == two["message_id"]
        assert sorted([one["replayed"], two["replayed"]]) == [False, True]
        assert (len(contents(session)), Slowly.asked - asked) == (2, 1)

    @pytest.mark.parametrize("dual_write", [False, True])
    @let(Overtaken)
    def test_a_duplicate_from_another_machine_is_stored_once_and_gets_the_same_answer(
        self, answered_by: None, settings: Settings, dual_write: bool
    ) -> None:
        settings.CONV_DUAL_WRITE = dual_write
        Overtaken.session = a_session()
        answer = ask("What is Redis?", Overtaken.session, headers={"Idempotency_Key": "k-1"})
        assert (answer["answer"], answer["replayed"]) == ("Theirs.", True)
        assert answer["message_id"] == Overtaken.duplicate.answer.id
        assert contents(Overtaken.session) == ["What is Redis?", "Theirs."]

    @pytest.mark.parametrize("key", ["k" * 128, "550e8400-e29b-41d4-a716-446655440000", "a:b~c+d/e=f._-"])
    def test_usual_idempotency_keys_are_accepted(self, key: str) -> None:
        session = a_session()
        ask("What is Redis?", session, headers={"Idempotency_Key": key})
        assert ask("What is Redis?", session, headers={"Idempotency_Key": key})["replayed"]

    @pytest.mark.parametrize("key", ["", "k" * 129, "a b", 'a"b', "é", "a\\b"])
    def test_an_invalid_idempotency_key_is_400(self, key: str) -> None:
        response = post({"question": "What?", "session_id": a_session()}, Idempotency_Key=key)
        assert response.status_code == 400
        assert "Idempotency-Key" in response.json()["detail"]


class TestAnswererFails:
    @let(Fails)
    def test_a_failed_answerer_is_502_and_nothing_is_stored(self, answered_by: None) -> None:
        session = a_session()
        response = post({"question": "What is Redis?", "session_id": session})
        assert (response.status_code, response.json()["code"]) == (502, "answerer_failed")
        assert contents(session) == []


class TestRedisOut:
    def test_mongo_answers_while_redis_is_down(self, settings: Settings, redis_server: RedisServer) -> None:
        settings.CONV_DUAL_WRITE = True
        session = a_session()
        ask("What is Redis?", session)
        redis_server.kill()
        try:
            answer = ask("What did I just ask?", session)
        finally:
            redis_server.start()
        assert answer["answer"] == "You just asked: “What is Redis?”"
        assert (answer["store"], answer["stored_in"]) == ("mongo", ["mongo"])

    def test_a_new_conversation_starts_in_mongo(self, redis_out: None) -> None:
        session = a_session()
        first, second = ask("What is Redis?", session), ask("What did I just ask?", session)
        assert [answer["store"] for answer in (first, second)] == ["mongo", "mongo"]
        assert [answer["stored_in"] for answer in (first, second)] == [["mongo"], ["mongo"]]
        assert second["answer"].startswith("You just asked: “What is Redis?”")

    @pytest.mark.parametrize("sends_last_message_id", [True, False])
    def test_context_is_behind_where_only_redis_has_turns(
        self, redis_server: RedisServer, sends_last_message_id: bool
    ) -> None:
        """Without dual write, while the store that has the turns is down."""
        session = a_session()
        given = ask("What is Redis?", session)["message_id"]
        redis_server.kill()
        try:
            answer = ask("And?", session, last_message_id=given if sends_last_message_id else None)
        finally:
            redis_server.start()
        assert (answer["store"], answer["context"], answer["msg_count_before"]) == ("mongo", "behind", 0)

    def test_the_same_key_gives_the_stored_answer_from_mongo(
        self, settings: Settings, redis_server: RedisServer
    ) -> None:
        settings.CONV_DUAL_WRITE = True
        session = a_session()
        first = ask("What is Redis?", session, headers={"Idempotency_Key": "k-1"})
        redis_server.kill()
        try:
            again = ask("What is Redis?", session, headers={"Idempotency_Key": "k-1"})
        finally:
            redis_server.start()
        assert again["replayed"]
        assert again["message_id"] == first["message_id"]

    @pytest.mark.parametrize("primary", BOTH)
    @pytest.mark.parametrize("dual_write", [False, True])
    @let(FreezesRedis)
    def test_a_retry_after_an_unknown_outcome_calls_no_model(
        self, answered_by: None, settings: Settings, redis_server: RedisServer, dual_write: bool, primary: str
    ) -> None:
        """Redis got the turn and did not answer; then an operator switches, or not."""
        settings.CONV_DUAL_WRITE = dual_write
        session, asked = a_session(), FreezesRedis.asked
        try:
            first = ask("What is Redis?", session, headers={"Idempotency_Key": "k-1"})
        finally:
            redis_server.thaw()
        assert (first["stored_in"], first["replayed"]) == (["mongo"], False)
        state.state().routing = Routing(primary, dual_write)
        again = ask("What is Redis?", session, headers={"Idempotency_Key": "k-1"})
        assert (again["message_id"], again["answer"], again["replayed"]) == (
            first["message_id"],
            first["answer"],
            True,
        )
        assert FreezesRedis.asked - asked == 1
        repair.conversation(session)
        assert [len(store(alias).load(session) or ()) for alias in BOTH] == [2, 2]


class TestMongoOut:
    def test_answers_are_the_same_while_mongo_is_down(self, mongo_out: None) -> None:
        session = a_session()
        ask("What is Redis?", session)
        answer = ask("What did I just ask?", session)
        assert answer["answer"] == "You just asked: “What is Redis?”"
        assert (answer["store"], answer["stored_in"], answer["context"]) == ("redis", ["redis"], "full")

    def test_with_dual_write_only_stored_in_changes(self, settings: Settings, mongo_out: None) -> None:
        settings.CONV_DUAL_WRITE = True
        answer = ask("What is Redis?", a_session())
        assert (answer["store"], answer["stored_in"], answer["persisted"]) == ("redis", ["redis"], True)


class TestBothOut:
    def test_with_both_stores_down_the_answer_is_a_fast_503(self, redis_out: None, mongo_out: None) -> None:
        for _ in range(3):
            begun = time.monotonic()
            response = post({"question": "What is Redis?", "session_id": a_session()})
            assert time.monotonic() - begun < 1
            assert (response.status_code, response.json()["code"]) == (503, "store_unavailable")
            assert response["Retry-After"] == "1"

    @let(StopsTheStores)
    def test_an_answer_that_no_store_took_is_in_the_503(
        self, answered_by: None, redis_server: RedisServer, mongo_server: MongoServer
    ) -> None:
        session = a_session()
        try:
            response = post({"question": "What is Redis?", "session_id": session})
        finally:
            redis_server.start()
            mongo_server.start()
        error = response.json()
        assert (response.status_code, error.pop("code")) == (503, "not_persisted")
        assert error.pop("detail")
        assert error.pop("request_id")
        assert error == {"answer": "An answer that was paid for.", "session_id": session, "persisted": False}

    def test_the_conversation_continues_when_the_stores_are_back(
        self, redis_server: RedisServer, mongo_server: MongoServer
    ) -> None:
        session = a_session()
        ask("What is Redis?", session)
        redis_server.kill()
        mongo_server.kill()
        try:
            assert get(f"conversations/{session}/").status_code == 503
        finally:
            redis_server.start()
            mongo_server.start()
        assert ask("What did I just ask?", session)["answer"].startswith("You just asked: “What is Redis?”")
