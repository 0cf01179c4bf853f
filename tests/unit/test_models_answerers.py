"""Answerers that call a model, against a test server with the vendors' protocols."""

import json
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any

import pytest
from pytest_django import Settings

from conversations.answerers.base import WINDOW_BYTES, Answerer, window
from conversations.answerers.models import AnthropicAnswerer, OpenAIAnswerer
from conversations.errors import AnswererFailed
from conversations.turns import History
from tests.builders import a_turn, some_turns

SECRET_WORDS = "the words of this conversation"
Reply = Callable[["Request"], None]


class Request(BaseHTTPRequestHandler):
    """One request to the model; the test's reply answers it."""

    protocol_version = "HTTP/1.0"  # the connection ends where the answer does, whole or not
    server: "Model"

    def do_POST(self) -> None:
        self.server.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.server.headers.append(dict(self.headers))
        self.server.reply(self)

    def begin(self, status: int = 200, kind: str = "text/event-stream") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.end_headers()

    def send(self, *lines: str) -> None:
        for line in lines:
            self.wfile.write(line.encode() + b"\n")
        self.wfile.flush()

    def handle(self) -> None:
        with suppress(ConnectionError):  # who asked has given up
            super().handle()

    def log_message(self, *args: Any) -> None:
        pass


class Model(ThreadingHTTPServer):
    """A model on a free port; `reply` sends its answer, `asked` has the requests."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.reply: Reply = lambda request: None


class Dialect:
    """A vendor's protocol."""

    def __init__(self, answerer: type[Answerer], path: str, piece: Callable[[str], str], end: str, error: str) -> None:
        self.answerer, self.path, self.piece, self.end, self.error = answerer, path, piece, end, error

    def reply(self, *pieces: str, end: bool = True) -> Reply:
        def reply(request: Request) -> None:
            request.begin()
            request.send(*(self.piece(piece) for piece in pieces), *([self.end] if end else []))

        return reply


def openai_piece(text: str) -> str:
    return f"data: {json.dumps({'choices': [{'index': 0, 'delta': {'content': text}, 'finish_reason': None}]})}\n"


def anthropic_piece(text: str) -> str:
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
    return f"event: content_block_delta\ndata: {json.dumps(delta)}\n"


OPENAI = Dialect(
    OpenAIAnswerer,
    "/v1",
    openai_piece,
    'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n',
    f'data: {{"error":{{"message":"{SECRET_WORDS}"}}}}\n',
)
ANTHROPIC = Dialect(
    AnthropicAnswerer,
    "",
    anthropic_piece,
    'event: message_stop\ndata: {"type":"message_stop"}\n',
    f'event: error\ndata: {{"type":"error","error":{{"type":"overloaded_error","message":"{SECRET_WORDS}"}}}}\n',
)


@pytest.fixture(params=[OPENAI, ANTHROPIC], ids=["openai", "anthropic"])
def dialect(request: pytest.FixtureRequest) -> Dialect:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def model(dialect: Dialect, settings: Settings) -> Iterator[Model]:
    """A running model that the settings name."""
    with Model() as server:
        settings.LLM_BASE_URL = f"http://127.0.0.1:{server.server_port}{dialect.path}"
        settings.LLM_API_KEY, settings.LLM_MODEL = "a-key", "a-model"
        settings.LLM_TIMEOUT_MS = 5000
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()


def answer(dialect: Dialect, question: str = SECRET_WORDS, history: History | None = None) -> list[str]:
    return list(dialect.answerer().answer(question, history or History()))


def failure(dialect: Dialect) -> str:
    """Return the error of a failed answer."""
    with pytest.raises(AnswererFailed) as caught:
        answer(dialect)
    assert SECRET_WORDS not in "".join(traceback.format_exception(caught.value))
    return str(caught.value)


def test_the_answer_is_streamed_in_pieces(dialect: Dialect, model: Model) -> None:
    model.reply = dialect.reply("Hel", "lo", " żółć ☃\n")
    assert answer(dialect) == ["Hel", "lo", " żółć ☃\n"]


def test_a_piece_arrives_before_the_next_is_produced(dialect: Dialect, model: Model) -> None:
    seen = Event()

    def reply(request: Request) -> None:
        dialect.reply("one", end=False)(request)
        if seen.wait(timeout=10):
            request.send(dialect.piece("two"), dialect.end)

    model.reply = reply
    pieces = dialect.answerer().answer("?", History())
    assert next(pieces) == "one"
    seen.set()
    assert list(pieces) == ["two"]


def test_the_model_is_shown_the_history_and_then_the_question(dialect: Dialect, model: Model) -> None:
    model.reply = dialect.reply("yes")
    answer(dialect, "And now?", History.of([a_turn("First?", "One."), a_turn("Second?", "Two.")]))
    (asked,) = model.asked
    assert asked["messages"] == [
        {"role": "user", "content": "First?"},
        {"role": "assistant", "content": "One."},
        {"role": "user", "content": "Second?"},
        {"role": "assistant", "content": "Two."},
        {"role": "user", "content": "And now?"},
    ]
    assert (asked["model"], asked["stream"]) == ("a-model", True)


def test_a_long_history_is_cut_at_whole_turns(dialect: Dialect, model: Model) -> None:
    model.reply = dialect.reply("yes")
    turns = some_turns(10, size=WINDOW_BYTES // 4)
    answer(dialect, "And now?", History.of(turns))
    contents = [message["content"] for message in model.asked[0]["messages"]]
    assert contents == [message.content for turn in turns[-3:] for message in turn.messages()] + ["And now?"]


def test_the_key_is_sent_in_the_vendors_header(dialect: Dialect, model: Model) -> None:
    model.reply = dialect.reply("yes")
    answer(dialect)
    sent = {name.lower(): value for name, value in model.headers[0].items()}
    assert "a-key" in (sent.get("x-api-key"), sent.get("authorization", "").removeprefix("Bearer "))


def test_another_host_never_gets_the_vendors_key(
    dialect: Dialect, model: Model, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The SDKs read keys from the environment; a local model must not get them."""
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"):
        monkeypatch.setenv(name, "its-makers")
    settings.LLM_API_KEY = ""
    model.reply = dialect.reply("yes")
    assert answer(dialect) == ["yes"]
    assert "its-makers" not in str(model.headers)


@pytest.mark.parametrize(
    ("status", "fault"),
    [
        (400, "BadRequestError"),
        (401, "AuthenticationError"),
        (429, "RateLimitError"),
        (500, "InternalServerError"),
    ],
)
def test_a_refusal_is_reported_by_class_and_not_retried(
    dialect: Dialect, model: Model, status: int, fault: str
) -> None:
    def reply(request: Request) -> None:
        request.begin(status, "application/json")
        request.send(json.dumps({"error": {"message": f"Bad: {SECRET_WORDS}"}}))

    model.reply = reply
    assert failure(dialect).endswith(fault)
    assert len(model.asked) == 1


def test_an_unreachable_model_is_a_failure(dialect: Dialect, model: Model) -> None:
    model.shutdown()
    model.server_close()
    assert failure(dialect).endswith("APIConnectionError")


def test_a_missing_key_is_a_failure(
    dialect: Dialect, model: Model, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    settings.LLM_API_KEY = settings.LLM_BASE_URL = ""
    assert failure(dialect)


def test_a_silent_model_fails_at_the_deadline(dialect: Dialect, model: Model, settings: Settings) -> None:
    settings.LLM_TIMEOUT_MS = 200
    model.reply = lambda request: time.sleep(20)
    begun = time.monotonic()
    assert failure(dialect).endswith("APITimeoutError")
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize("line", [": keep-alive\n", 'event: ping\ndata: {"type": "ping"}\n', "piece"])
def test_an_endless_answer_fails_at_the_deadline(dialect: Dialect, model: Model, settings: Settings, line: str) -> None:
    """It sends keep-alives or text without end."""
    settings.LLM_TIMEOUT_MS = 300

    def reply(request: Request) -> None:
        request.begin()
        for _ in range(200):
            request.send(dialect.piece("x") if line == "piece" else line)
            time.sleep(0.1)

    model.reply = reply
    begun = time.monotonic()
    assert failure(dialect).endswith("it took longer than LLM_TIMEOUT_MS")
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize("pieces", [(), ("",), (" ", "\n\t")], ids=str)
def test_an_empty_answer_is_a_failure(dialect: Dialect, model: Model, pieces: tuple[str, ...]) -> None:
    """If it were stored, the vendors would refuse every later question of the conversation."""
    model.reply = dialect.reply(*pieces)
    assert failure(dialect).endswith("its answer is empty")


def test_an_incomplete_answer_is_a_failure(dialect: Dialect, model: Model) -> None:
    """It must not be stored as if it were the whole answer."""
    model.reply = dialect.reply("The answer is", end=False)
    assert failure(dialect).endswith("it broke off in the middle of its answer")


def test_an_error_in_the_middle_is_a_failure(dialect: Dialect, model: Model) -> None:
    def reply(request: Request) -> None:
        dialect.reply("The answer is", end=False)(request)
        request.send(dialect.error)

    model.reply = reply
    assert failure(dialect).endswith("it reported an error in the middle of its answer")


@pytest.mark.parametrize("line", ["data: {no json\n", "data: [1, {}]\n", 'data: {"choices": 5, "delta": 5}\n'])
def test_garbage_is_a_failure(dialect: Dialect, model: Model, line: str) -> None:
    def reply(request: Request) -> None:
        request.begin()
        request.send(line)

    model.reply = reply
    assert failure(dialect)


class TestWindow:
    def test_it_has_the_newest_turns_that_fit(self) -> None:
        turns = some_turns(5, size=100)
        size = sum(len(message.content) for message in turns[0].messages())
        assert window(History.of(turns), 2 * size) == turns[-2:]
        assert window(History.of(turns), 2 * size - 1) == turns[-1:]
        assert window(History.of(turns)) == turns

    def test_it_counts_bytes(self) -> None:
        turn = a_turn("é" * 50, "é" * 50)
        assert window(History.of([turn]), 200) == (turn,)
        assert window(History.of([turn]), 199) == ()

    def test_no_older_turn_follows_one_that_did_not_fit(self) -> None:
        small, large, last = a_turn(), a_turn("q", "a" * 500), a_turn()
        assert window(History.of([small, large, last]), 100) == (last,)
