"""POST /api/chat/ask with "stream": the answer piece by piece, as server-sent events."""

import json
from collections.abc import Iterator
from threading import Event
from typing import Any

import pytest
from pytest_django import Settings

from conversations.answerers import answerer
from conversations.answerers.base import Answerer
from conversations.errors import AnswererFailed
from conversations.turns import History
from tests import environment
from tests.api.talking import ask, post, said
from tests.api.test_errors import refused
from tests.builders import a_session
from tests.servers import MongoServer, RedisServer, eventually

PIECES = ["The answer\n", "is: “żółć\u2028”\r\n\r\n", "data: 42"]


class Pieces(Answerer):
    """Answers in three pieces, the last two when it is let."""

    go_on = Event()

    def answer(self, question: str, history: History) -> Iterator[str]:
        yield PIECES[0]
        self.go_on.wait(timeout=10)
        yield from PIECES[1:]


class FailsHalfWay(Answerer):
    def answer(self, question: str, history: History) -> Iterator[str]:
        yield PIECES[0]
        raise AnswererFailed("APITimeoutError")


class Breaks(Answerer):
    def answer(self, question: str, history: History) -> Iterator[str]:
        yield PIECES[0]
        raise RuntimeError("the words of a conversation")


class StopsTheStores(Answerer):
    def answer(self, question: str, history: History) -> Iterator[str]:
        yield PIECES[0]
        environment.REDIS.kill()
        environment.MONGO.kill()


@pytest.fixture
def answered_by(settings: Settings, request: pytest.FixtureRequest) -> Iterator[None]:
    """Let a stand-in of this module answer."""
    settings.ANSWERER = f"{__name__}.{request.param.__name__}"
    answerer.cache_clear()
    yield
    answerer.cache_clear()


@pytest.fixture
def go_on() -> Iterator[Event]:
    Pieces.go_on.clear()
    yield Pieces.go_on
    Pieces.go_on.set()


def let(stand_in: type[Answerer]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("answered_by", [stand_in], indirect=True)


def stream(session: str, question: str = "What?", **headers: str) -> Any:
    return post({"question": question, "session_id": session, "stream": True}, **headers)


def events(response: Any) -> list[tuple[str, dict[str, Any]]]:
    """Return the names and data of a whole stream, read as an event source reads it."""
    found = []
    for block in b"".join(response.streaming_content).decode().removesuffix("\n\n").split("\n\n"):
        name, data = block.split("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


def test_the_pieces_come_first_and_then_the_answer() -> None:
    session = a_session()
    ask("What is Redis?", session)
    response = stream(session, "What did I just ask?")
    assert response.status_code == 200
    *deltas, (last, answer) = events(response)
    assert deltas == [("delta", {"text": "You just asked: “What is Redis?”"})]
    assert last == "answer"
    assert (answer["answer"], answer["stored_in"]) == ("You just asked: “What is Redis?”", ["redis"])


def test_the_last_event_is_what_is_answered_without_streaming() -> None:
    plain, (_, streamed) = ask("What?", a_session()), events(stream(a_session()))[-1]
    assert list(streamed) == list(plain)
    assert {name: streamed[name] for name in streamed if name not in ("session_id", "message_id")} == {
        name: plain[name] for name in plain if name not in ("session_id", "message_id")
    }


def test_nothing_on_the_way_may_keep_it_back() -> None:
    response = stream(a_session())
    assert response["Content-Type"] == "text/event-stream"
    assert (response["Cache-Control"], response["X-Accel-Buffering"]) == ("no-store", "no")
    assert events(response)


@let(Pieces)
def test_a_piece_is_sent_before_the_next_is_made(answered_by: None, go_on: Event) -> None:
    sent = iter(stream(a_session()).streaming_content)
    assert next(sent) == b'event: delta\ndata: {"text":"The answer\\n"}\n\n'
    go_on.set()
    assert len(list(sent)) == 3


@let(Pieces)
def test_any_text_comes_through(answered_by: None, go_on: Event) -> None:
    """Line ends and field names would end an event if they were sent as they are."""
    go_on.set()
    session = a_session()
    *deltas, (_, answer) = events(stream(session))
    assert [data["text"] for _, data in deltas] == PIECES
    assert answer["answer"] == said(session)[1] == "".join(PIECES)


@let(Pieces)
def test_a_client_that_goes_away_does_not_lose_its_answer(answered_by: None, go_on: Event) -> None:
    """It was paid for, and is there when the client asks for the conversation."""
    session = a_session()
    response = stream(session)
    next(iter(response.streaming_content))
    response.close()
    assert said(session) == []
    go_on.set()
    eventually(lambda: len(said(session)) == 2, "the turn was not stored")
    assert said(session)[1] == "".join(PIECES)


def test_the_same_key_streams_the_stored_answer() -> None:
    session = a_session()
    first = events(stream(session, Idempotency_Key="k-1"))
    again = events(stream(session, Idempotency_Key="k-1"))
    assert again[0] == first[0]
    assert again[1][1] == first[1][1] | {"replayed": True}
    assert len(said(session)) == 2


@let(FailsHalfWay)
def test_an_answerer_that_fails_half_way_is_said_and_nothing_is_stored(answered_by: None) -> None:
    session = a_session()
    assert events(stream(session)) == [
        ("delta", {"text": PIECES[0]}),
        ("error", {"code": "answerer_failed", "detail": "The model gave no answer; nothing was stored. Try again."}),
    ]
    assert said(session) == []


@let(Breaks)
def test_a_fault_of_ours_is_said_without_its_words(answered_by: None, caplog: pytest.LogCaptureFixture) -> None:
    sent = events(stream(a_session()))
    assert [(name, data.get("code")) for name, data in sent] == [("delta", None), ("error", "answerer_failed")]
    assert "words" not in str(sent)
    assert "stream_failed" in caplog.messages


@let(StopsTheStores)
def test_an_answer_that_nobody_could_store_is_an_error_that_carries_it(
    answered_by: None, redis_server: RedisServer, mongo_server: MongoServer
) -> None:
    try:
        *_, (name, told) = events(stream(a_session()))
    finally:
        redis_server.start()
        mongo_server.start()
    assert (name, told["code"], told["answer"], told["persisted"]) == ("error", "not_persisted", PIECES[0], False)


class TestBeforeTheFirstPiece:
    """What is known by then is told as a status, as without streaming."""

    def test_a_question_that_is_not_valid(self) -> None:
        refused(post({"question": "", "stream": True}), 400, "invalid")

    def test_a_key_that_was_used_with_another_question(self) -> None:
        session = a_session()
        ask("What?", session, headers={"Idempotency_Key": "k-1"})
        refused(stream(session, "What else?", Idempotency_Key="k-1"), 422, "idempotency_key_reused")

    def test_context_that_is_needed_and_missing(self) -> None:
        later = ask("Elsewhere", a_session())["message_id"]
        question = {"question": "And?", "session_id": a_session(), "last_message_id": later}
        refused(post(question | {"require_context": True, "stream": True}), 503, "context_behind")

    def test_stores_that_are_both_out(self, redis_out: None, mongo_out: None) -> None:
        refused(stream(a_session()), 503, "store_unavailable")
