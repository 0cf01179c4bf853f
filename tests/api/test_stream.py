"""POST /api/chat/ask with "stream": the answer in pieces, as server-sent events."""

import json
from collections.abc import Iterator
from threading import Event
from typing import Any

import pytest

from conversations.answerers.base import Answerer
from conversations.errors import AnswererFailed
from conversations.turns import History
from tests.api.talking import ask, contents, let, post, stop_the_stores
from tests.api.test_errors import refused
from tests.builders import a_session
from tests.servers import MongoServer, RedisServer, eventually

PIECES = ["The answer\n", "is: “żółć\u2028”\r\n\r\n", "data: 42"]


class Pieces(Answerer):
    """Answers in three pieces, the last two after `go_on` is set."""

    go_on = Event()

    def answer(self, question: str, history: History, *, behind: bool = False) -> Iterator[str]:
        yield PIECES[0]
        self.go_on.wait(timeout=10)
        yield from PIECES[1:]


class FailsHalfWay(Answerer):
    def answer(self, question: str, history: History, *, behind: bool = False) -> Iterator[str]:
        yield PIECES[0]
        raise AnswererFailed("APITimeoutError")


class Breaks(Answerer):
    def answer(self, question: str, history: History, *, behind: bool = False) -> Iterator[str]:
        yield PIECES[0]
        raise RuntimeError("the words of a conversation")


class StopsTheStores(Answerer):
    def answer(self, question: str, history: History, *, behind: bool = False) -> Iterator[str]:
        yield PIECES[0]
        stop_the_stores()


@pytest.fixture
def go_on() -> Iterator[Event]:
    Pieces.go_on.clear()
    yield Pieces.go_on
    Pieces.go_on.set()


def stream(session: str, question: str = "What?", **headers: str) -> Any:
    return post({"question": question, "session_id": session, "stream": True}, **headers)


def events(response: Any) -> list[tuple[str, dict[str, Any]]]:
    """Return the names and data of a whole stream, read as an event source reads it."""
    found = []
    for block in b"".join(response.streaming_content).decode().removesuffix("\n\n").split("\n\n"):
        name, data = block.split("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


def test_delta_events_come_before_the_answer() -> None:
    session = a_session()
    ask("What is Redis?", session)
    response = stream(session, "What did I just ask?")
    assert response.status_code == 200
    *deltas, (last, answer) = events(response)
    assert deltas == [("delta", {"text": "You just asked: “What is Redis?”"})]
    assert last == "answer"
    assert (answer["answer"], answer["stored_in"]) == ("You just asked: “What is Redis?”", ["redis"])


def test_the_last_event_equals_the_answer_without_streaming() -> None:
    plain, (_, streamed) = ask("What?", a_session()), events(stream(a_session()))[-1]
    assert list(streamed) == list(plain)
    assert {name: streamed[name] for name in streamed if name not in ("session_id", "message_id")} == {
        name: plain[name] for name in plain if name not in ("session_id", "message_id")
    }


def test_the_session_is_in_a_header_before_the_first_piece() -> None:
    response = post({"question": "What?", "stream": True})
    assert response["X-Session-ID"] == events(response)[-1][1]["session_id"]


def test_headers_forbid_buffering_and_caching() -> None:
    response = stream(a_session())
    assert response["Content-Type"] == "text/event-stream"
    assert (response["Cache-Control"], response["X-Accel-Buffering"]) == ("no-store", "no")
    assert events(response)


@let(Pieces)
def test_a_piece_is_sent_before_the_next_is_produced(answered_by: None, go_on: Event) -> None:
    sent = iter(stream(a_session()).streaming_content)
    assert next(sent) == b'event: delta\ndata: {"text":"The answer\\n"}\n\n'
    go_on.set()
    assert len(list(sent)) == 3


@let(Pieces)
def test_any_text_can_be_streamed(answered_by: None, go_on: Event) -> None:
    """Unescaped line ends and field names would end an event."""
    go_on.set()
    session = a_session()
    *deltas, (_, answer) = events(stream(session))
    assert [data["text"] for _, data in deltas] == PIECES
    assert answer["answer"] == contents(session)[1] == "".join(PIECES)


@let(Pieces)
def test_the_answer_is_stored_after_the_client_disconnects(answered_by: None, go_on: Event) -> None:
    """The answer was paid for; the client finds it in the conversation."""
    session = a_session()
    response = stream(session)
    next(iter(response.streaming_content))
    response.close()
    assert contents(session) == []
    go_on.set()
    eventually(lambda: len(contents(session)) == 2, "the turn was not stored")
    assert contents(session)[1] == "".join(PIECES)


def test_the_same_key_streams_the_stored_answer() -> None:
    session = a_session()
    first = events(stream(session, Idempotency_Key="k-1"))
    again = events(stream(session, Idempotency_Key="k-1"))
    assert again[0] == first[0]
    assert again[1][1] == first[1][1] | {"replayed": True}
    assert len(contents(session)) == 2


@let(FailsHalfWay)
def test_an_answerer_that_fails_in_the_middle_is_an_error_event_and_nothing_is_stored(answered_by: None) -> None:
    session = a_session()
    detail = "The model gave no answer; nothing was stored. Try again."
    assert events(stream(session, X_Request_ID="r-1")) == [
        ("delta", {"text": PIECES[0]}),
        ("error", {"code": "answerer_failed", "detail": detail, "request_id": "r-1"}),
    ]
    assert contents(session) == []


@let(Breaks)
def test_an_unexpected_error_is_an_error_event_without_details(
    answered_by: None, caplog: pytest.LogCaptureFixture
) -> None:
    sent = events(stream(a_session()))
    assert [(name, data.get("code")) for name, data in sent] == [("delta", None), ("error", "answerer_failed")]
    assert "words" not in str(sent)
    assert "stream_failed" in caplog.messages


@let(StopsTheStores)
def test_the_error_event_contains_an_answer_that_no_store_took(
    answered_by: None, redis_server: RedisServer, mongo_server: MongoServer
) -> None:
    try:
        *_, (name, error) = events(stream(a_session()))
    finally:
        redis_server.start()
        mongo_server.start()
    assert (name, error["code"], error["answer"], error["persisted"]) == ("error", "not_persisted", PIECES[0], False)


class TestBeforeTheFirstPiece:
    """Errors before the first piece have a status, as without streaming."""

    def test_an_invalid_question_is_400(self) -> None:
        refused(post({"question": "", "stream": True}), 400, "invalid")

    def test_a_key_used_with_another_question_is_422(self) -> None:
        session = a_session()
        ask("What?", session, headers={"Idempotency_Key": "k-1"})
        refused(stream(session, "What else?", Idempotency_Key="k-1"), 422, "idempotency_key_reused")

    def test_missing_required_context_is_503(self) -> None:
        later = ask("Elsewhere", a_session())["message_id"]
        question = {"question": "And?", "session_id": a_session(), "last_message_id": later}
        refused(post(question | {"require_context": True, "stream": True}), 503, "context_behind")

    def test_both_stores_down_is_503(self, redis_out: None, mongo_out: None) -> None:
        refused(stream(a_session()), 503, "store_unavailable")
