"""The client's rules without I/O: when it sends again, what it makes of pieces, and which error is which."""

import json
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from onesource_client import Retries, errors
from onesource_client.errors import OnesourceError, error_of
from onesource_client.events import Events, Pieces
from onesource_client.results import Answer
from onesource_client.retries import Attempts
from onesource_client.steps import Lost, Pause, Reply, Send, sent

CALL = Send("POST", "/api/chat/ask", {"question": "?"}, "k-1")
RETRIES = Retries(tries=4, seconds=30, pause=1.0)


def a_reply(status: int, code: str = "", **fields: Any) -> Reply:
    retry_after = str(fields.pop("retry_after", ""))
    return Reply(status, json.dumps({"code": code, "detail": "why", **fields}).encode(), retry_after)


class Clock:
    """A clock that goes on while the client pauses."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def played(*replies: Reply | Lost, read: Callable[[Reply], Any] = lambda reply: reply) -> tuple[Any, list[Any]]:
    """Return what comes of a request that gets these replies, an error too, and all its steps."""
    clock, left, taken = Clock(), list(replies), []
    steps = sent(CALL, Attempts(RETRIES, clock), read)
    result: Any = None
    try:
        while True:
            step = steps.send(result)
            taken.append(step)
            if isinstance(step, Pause):
                clock.now += step.seconds
            result = left.pop(0) if isinstance(step, Send) else None
    except StopIteration as done:
        return done.value, taken
    except OnesourceError as error:
        return error, taken


def calls(taken: list[Any]) -> list[Send]:
    return [step for step in taken if isinstance(step, Send)]


class TestSending:
    @pytest.mark.parametrize(
        "failed",
        [
            Lost("ReadError"),
            a_reply(503, "store_unavailable"),
            a_reply(503, "busy", retry_after=1),
            a_reply(408, "timeout"),
            a_reply(503, "not_persisted", answer="A."),
            a_reply(503, "outcome_unknown", answer="A.", idempotency_key="k-1"),
            a_reply(409, "idempotency_key_in_use"),
            a_reply(429, "throttled", retry_after=2),
            Reply(502, b"<html>"),
            Reply(503),
        ],
    )
    def test_what_is_safe_is_sent_again_with_its_key(self, failed: Reply | Lost) -> None:
        result, taken = played(failed, failed, Reply(200))
        assert result == Reply(200)
        assert [call.key for call in calls(taken)] == ["k-1"] * 3

    @pytest.mark.parametrize(
        ("status", "code", "kind"),
        [
            (400, "invalid", errors.InvalidRequest),
            (400, "parse_error", errors.InvalidRequest),
            (401, "not_authenticated", errors.NotAuthorized),
            (403, "permission_denied", errors.NotAuthorized),
            (404, "not_found", errors.NotFound),
            (409, "key_expired", errors.KeyExpired),
            (409, "no_later_turn", errors.NoLaterTurn),
            (413, "too_large", errors.InvalidRequest),
            (422, "idempotency_key_reused", errors.KeyReused),
            (500, "error", errors.ServerError),
            (502, "answerer_failed", errors.AnswererFailed),
            (502, "model_refused", errors.ModelRefused),
            (503, "context_behind", errors.ContextBehind),
            (301, "", errors.InvalidRequest),
        ],
    )
    def test_all_else_is_raised_at_once(self, status: int, code: str, kind: type[OnesourceError]) -> None:
        error, taken = played(a_reply(status, code))
        assert (type(error), error.status, error.code, error.detail) == (kind, status, code, "why")
        assert len(taken) == 1

    def test_tries_are_bounded(self) -> None:
        error, taken = played(*[Lost("ConnectError")] * 9)
        assert (type(error), error.idempotency_key, len(calls(taken))) == (errors.Unreachable, "k-1", RETRIES.tries)

    def test_a_single_try_is_not_repeated(self) -> None:
        attempts = Attempts(Retries(tries=1), Clock())
        with pytest.raises(errors.Unreachable):
            attempts.pause(errors.Unreachable("ConnectError"))
        assert attempts.repeated == 0

    def test_pauses_grow(self) -> None:
        _, taken = played(*[Lost("ConnectError")] * 9)
        pauses = [step.seconds for step in taken if isinstance(step, Pause)]
        assert all(2**n / 2 <= pause <= 2**n for n, pause in enumerate(pauses))

    def test_time_is_bounded(self) -> None:
        error, taken = played(a_reply(429, "throttled", retry_after=20), a_reply(429, "throttled", retry_after=20))
        assert (type(error), error.retry_after, len(calls(taken))) == (errors.RateLimited, 20, 2)

    @pytest.mark.parametrize(("status", "code"), [(429, "throttled"), (503, "busy"), (503, "")])
    def test_retry_after_is_waited_for(self, status: int, code: str) -> None:
        _, taken = played(a_reply(status, code, retry_after=7), Reply(200))
        assert 7 < taken[1].seconds <= 7 + RETRIES.pause

    def test_an_unknown_outcome_names_the_key_to_go_on_with(self) -> None:
        _, taken = played(a_reply(503, "outcome_unknown", idempotency_key="turn:1"), Reply(200))
        assert calls(taken)[1].key == "turn:1"

    @pytest.mark.parametrize(
        ("status", "code"), [(503, "not_persisted"), (503, "outcome_unknown"), (409, "no_later_turn")]
    )
    def test_an_answer_that_was_not_stored_is_kept(self, status: int, code: str) -> None:
        error = error_of(status, {"code": code, "detail": "", "answer": "A.", "session_id": "s"})
        assert isinstance(error, errors.NotStored)
        assert (error.answer, error.session_id) == ("A.", "s")

    def test_an_error_shows_no_words_and_can_be_pickled(self) -> None:
        error = error_of(503, {"code": "not_persisted", "detail": "why", "answer": "words"}, "1")
        assert "words" not in f"{error!r} {error}"
        assert vars(pickle.loads(pickle.dumps(error))) == vars(error)  # noqa: S301

    @pytest.mark.parametrize("content", [b"<html>", b"[]", b"{}", b"null"])
    def test_a_reply_that_is_none_of_the_service_is_asked_for_again(self, content: bytes) -> None:
        foreign = [Reply(200, content)] * RETRIES.tries
        error, taken = played(*foreign, read=lambda reply: Answer.of(reply.json()))
        assert (type(error), error.idempotency_key, len(calls(taken))) == (errors.Unreachable, "k-1", RETRIES.tries)

    @pytest.mark.parametrize(("header", "seconds"), [("", 0), ("soon", 0), ("-5", 0), ("nan", 0), ("3", 3)])
    def test_an_error_has_the_seconds_of_retry_after(self, header: str, seconds: float) -> None:
        assert error_of(429, {"code": "throttled"}, header).retry_after == seconds


class TestEvents:
    def test_events_are_read_whatever_the_chunks(self) -> None:
        data = 'event: delta\ndata: {"text":"Żółć\\n\\n"}\n\nevent: answer\ndata: {"a":1}\n\n'.encode()
        for size in (1, 2, 7, 1000):
            events = Events()
            found = [each for at in range(0, len(data), size) for each in events.feed(data[at : at + size])]
            assert found == [("delta", {"text": "Żółć\n\n"}), ("answer", {"a": 1})]

    def test_comments_are_left_out(self) -> None:
        assert list(Events().feed(b": ping\n\n")) == []


class TestPieces:
    def test_a_second_try_gives_only_the_rest(self) -> None:
        pieces = Pieces()
        first = [pieces.feed("You "), pieces.feed("asked")]
        pieces.begin()
        assert first + [pieces.feed("You as"), pieces.feed("ked: "), pieces.feed("x")] == [
            "You ",
            "asked",
            "",
            ": ",
            "x",
        ]
        assert (pieces.end("You asked: x"), pieces.replaced) == ("", False)

    def test_a_whole_answer_gives_the_rest(self) -> None:
        pieces = Pieces()
        pieces.feed("You ")
        assert (pieces.end("You asked"), pieces.replaced) == ("asked", False)

    def test_another_answer_is_not_mixed_with_the_first(self) -> None:
        pieces = Pieces()
        pieces.feed("You asked")
        pieces.begin()
        assert [pieces.feed("Some"), pieces.feed("thing else")] == ["", ""]
        assert (pieces.end("Something else"), pieces.replaced) == ("", True)


def test_fields_of_a_newer_service_are_ignored() -> None:
    body = {"session_id": "s", "answer": "A.", "message_id": "m", "msg_count_before": 0, "new_thread": True,
            "store": "redis", "stored_in": ["redis"], "context": "behind", "replayed": False, "persisted": True,
            "new": 1}  # fmt: skip
    assert Answer.of(body).behind
