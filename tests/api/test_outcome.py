"""A turn that no store has confirmed and one may have: its question can be asked again, and is stored once."""

import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from pytest_django import Settings

from conversations import deadline
from conversations.answerers.base import Answerer
from conversations.background import watcher
from conversations.clock import now
from conversations.history import repair
from conversations.runtime import gauges
from conversations.stores import ALIASES, MONGO, REDIS, control, other, reachable, store
from conversations.turns import History, Turn
from tests import environment
from tests.api.talking import ask, contents, delete, let, post, sample
from tests.api.test_errors import refused
from tests.api.test_stream import events, stream
from tests.builders import a_session, a_turn
from tests.servers import MongoServer, RedisServer, eventually

QUESTION = "What is Redis?"
FROZEN_SECONDS = 0.3  # of a request's time that are left for a frozen store, which answers in none


class Freezes(Answerer):
    """Answers, and meanwhile does to the stores what the test wants, once."""

    stores: tuple[Any, ...] = ()
    kills: tuple[Any, ...] = ()
    asked = 0

    def answer(self, question: str, history: History, *, behind: bool = False) -> Iterator[str]:
        Freezes.asked += 1
        for server in self.stores:
            server.freeze()
            leave_little_time(REDIS if server is environment.REDIS else MONGO)
        for server in self.kills:
            server.kill()
        Freezes.stores = Freezes.kills = ()
        yield f"answer {Freezes.asked}"


def leave_little_time(alias: str) -> None:
    """Have the request wait for this store as long as one does in a deployment, not for the tests' own long timeouts.
    The other store has all its time."""
    request = deadline._deadline.get()
    assert request
    request.take(alias, request.left(alias, time.monotonic()) - FROZEN_SECONDS)


@pytest.fixture
def frozen(answered_by: None, redis_server: RedisServer, mongo_server: MongoServer) -> Iterator[type[Freezes]]:
    Freezes.stores, Freezes.kills, Freezes.asked = (redis_server, mongo_server), (), 0
    yield Freezes
    awake()


def awake() -> None:
    """Let both stores answer again; they execute now what they were sent."""
    for server in (environment.REDIS, environment.MONGO):
        if server.process:
            server.thaw()
        else:
            server.start()
    eventually(lambda: reachable() == ALIASES, "not every store answers")


def unknown(session: str, **headers: str) -> dict[str, Any]:
    """Ask; return the error, whose outcome is unknown."""
    response = post({"question": QUESTION, "session_id": session}, **headers)
    refused(response, 503, "outcome_unknown")
    return response.json()


@let(Freezes)
@pytest.mark.parametrize("primary", ALIASES)
@pytest.mark.parametrize("dual_write", [False, True])
class TestBothFrozen:
    @pytest.fixture(autouse=True)
    def _routed(self, settings: Settings, primary: str, dual_write: bool) -> None:
        settings.CONV_STORE_PRIMARY, settings.CONV_DUAL_WRITE = primary, dual_write

    def test_the_error_has_the_answer_and_a_key(self, frozen: type[Freezes]) -> None:
        gauges.start()
        session, before = a_session(), sample("turns_total", outcome="outcome_unknown")
        error = unknown(session)
        assert error.pop("detail")
        assert error.pop("request_id")
        assert error.pop("idempotency_key").startswith("turn:")
        assert error == {"code": "outcome_unknown", "answer": "answer 1", "session_id": session, "persisted": False}
        assert sample("turns_total", outcome="outcome_unknown") == before + 1

    @pytest.mark.parametrize("headers", [{}, {"Idempotency_Key": "k-1"}], ids=str)
    def test_asked_again_with_the_key_there_is_one_turn(self, frozen: type[Freezes], headers: dict[str, str]) -> None:
        """Both stores were sent it, and execute it when they wake up; or an earlier fault kept it from them."""
        session = a_session()
        key = unknown(session, **headers)["idempotency_key"]
        assert headers.get("Idempotency_Key", key) == key
        awake()
        again = ask(QUESTION, session, headers={"Idempotency_Key": key})
        assert again["answer"] == f"answer {frozen.asked}"
        assert contents(session) == [QUESTION, again["answer"]]
        assert ask(QUESTION, session, headers={"Idempotency_Key": key})["replayed"]
        repair.conversation(session)
        found = [store(alias).load(session) for alias in ALIASES]
        assert found[0] == found[1]
        assert contents(session) == [QUESTION, again["answer"]]


@let(Freezes)
class TestOneFrozen:
    @pytest.mark.parametrize("primary", ALIASES)
    @pytest.mark.parametrize("dual_write", [False, True])
    def test_with_the_other_store_alive_the_turn_is_stored(
        self, frozen: type[Freezes], settings: Settings, redis_server: RedisServer, primary: str, dual_write: bool
    ) -> None:
        settings.CONV_STORE_PRIMARY, settings.CONV_DUAL_WRITE = primary, dual_write
        frozen.stores = (redis_server,)
        assert ask(QUESTION, a_session())["stored_in"] == ["mongo"]

    @pytest.mark.parametrize("alias", ALIASES)
    def test_frozen_before_it_is_read_it_is_not_waited_for_again(
        self, frozen: type[Freezes], settings: Settings, alias: str
    ) -> None:
        """Reading times out, and the turn is stored in the store that was read."""
        settings.CONV_DUAL_WRITE, frozen.stores = True, ()
        (environment.REDIS if alias == "redis" else environment.MONGO).freeze()
        answer = ask(QUESTION, a_session())
        assert answer["stored_in"] == [other(alias)]

    @pytest.mark.parametrize("alias", ALIASES)
    @pytest.mark.parametrize("dual_write", [False, True])
    def test_with_the_other_one_refusing_the_outcome_is_unknown(
        self, frozen: type[Freezes], settings: Settings, alias: str, dual_write: bool
    ) -> None:
        settings.CONV_DUAL_WRITE = dual_write
        servers = {"redis": environment.REDIS, "mongo": environment.MONGO}
        frozen.stores, frozen.kills = (servers[alias],), (servers[other(alias)],)
        session = a_session()
        key = unknown(session)["idempotency_key"]
        awake()
        again = ask(QUESTION, session, headers={"Idempotency_Key": key})
        assert contents(session) == [QUESTION, again["answer"]]

    @pytest.mark.parametrize("alias", ALIASES)
    def test_what_one_store_has_taken_after_all_is_flagged_there(
        self, frozen: type[Freezes], settings: Settings, alias: str
    ) -> None:
        """Nobody asks again, and the other store would never get it."""
        settings.CONV_DUAL_WRITE = True
        servers = {"redis": environment.REDIS, "mongo": environment.MONGO}
        frozen.stores, frozen.kills = (servers[alias],), (servers[other(alias)],)
        session = a_session()
        unknown(session)
        awake()
        watcher._tick()
        assert session in control(alias).flags(10_000).sessions


@let(Freezes)
def test_the_last_event_of_a_stream_has_the_key(frozen: type[Freezes]) -> None:
    *_, (name, error) = events(stream(a_session(), QUESTION))
    assert (name, error["code"], error["answer"], error["persisted"]) == ("error", "outcome_unknown", "answer 1", False)
    assert error["idempotency_key"].startswith("turn:")


def test_a_question_asked_without_a_key_is_answered_again_by_the_key_of_its_id() -> None:
    session = a_session()
    ask(QUESTION, session)
    turn = store("redis").load(session).turns()[0]
    assert ask(QUESTION, session, headers={"Idempotency_Key": turn.key})["replayed"]
    refused(
        post({"question": "Another?", "session_id": session}, Idempotency_Key=turn.key), 422, "idempotency_key_reused"
    )


class TestKeptKeys:
    """A key is kept for 24 hours, whether or not its turn is."""

    def test_a_trimmed_turn_is_not_asked_again(self) -> None:
        session = a_session()
        ask(QUESTION, session, headers={"Idempotency_Key": "k-1"})
        at = store("redis").load(session).turns()[0].question.at
        for alias in ALIASES:
            store(alias).append(session, None, some_turns_now(16))
        response = post({"question": QUESTION, "session_id": session}, Idempotency_Key="k-1")
        refused(response, 409, "key_expired")
        assert response.json()["asked_at"] == at
        assert QUESTION not in contents(session)

    @pytest.mark.parametrize("primary", ALIASES)
    @pytest.mark.parametrize("own", [True, False])
    def test_a_deleted_turn_is_not_asked_again(self, settings: Settings, primary: str, own: bool) -> None:
        settings.CONV_STORE_PRIMARY = primary
        session = a_session()
        ask(QUESTION, session, headers={"Idempotency_Key": "k-1"} if own else {})
        key = "k-1" if own else store(primary).load(session).turns()[0].key
        assert delete(f"conversations/{session}/").status_code == 204
        refused(post({"question": QUESTION, "session_id": session}, Idempotency_Key=key), 409, "key_expired")
        assert contents(session) == []

    @let(Freezes)
    def test_no_model_is_asked(self, frozen: type[Freezes]) -> None:
        frozen.stores, session = (), a_session()
        ask(QUESTION, session, headers={"Idempotency_Key": "k-1"})
        delete(f"conversations/{session}/")
        post({"question": QUESTION, "session_id": session}, Idempotency_Key="k-1")
        assert frozen.asked == 1

    def test_the_store_that_takes_over_has_the_keys(self, settings: Settings, redis_server: RedisServer) -> None:
        settings.CONV_DUAL_WRITE = True
        session = a_session()
        ask(QUESTION, session, headers={"Idempotency_Key": "k-1"})
        delete(f"conversations/{session}/")
        redis_server.kill()
        try:
            response = post({"question": QUESTION, "session_id": session}, Idempotency_Key="k-1")
        finally:
            redis_server.start()
        refused(response, 409, "key_expired")


def some_turns_now(number: int) -> list[Turn]:
    return [a_turn(at=now() + timedelta(seconds=second)) for second in range(1, number + 1)]
