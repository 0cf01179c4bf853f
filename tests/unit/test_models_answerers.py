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

from conversations.answerers import models
from conversations.answerers.base import BYTES_PER_TOKEN, Answerer, window
from conversations.answerers.models import AnthropicAnswerer, OpenAIAnswerer
from conversations.errors import AnswererFailed, ModelRefused
from conversations.turns import History
from telemetry import metrics
from tests.builders import a_turn, some_turns

SECRET_WORDS = "the words of this conversation"
Reply = Callable[["Request"], None]
Counts = tuple[str, str]


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
    """A vendor's protocol; `counts` is the tokens of the request before the pieces, and of the answer after them."""

    def __init__(
        self, answerer: type[Answerer], path: str, piece: Callable[[str], str], end: str, error: str, counts: Counts
    ) -> None:
        self.answerer, self.path, self.piece, self.end, self.error = answerer, path, piece, end, error
        self.counts = counts

    def reply(self, *pieces: str, end: bool = True, counted: bool = False) -> Reply:
        before, last = self.counts if counted else ("", self.end)

        def reply(request: Request) -> None:
            request.begin()
            request.send(before, *(self.piece(piece) for piece in pieces), *([last] if end else []))

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
    (
        'data: {"choices":[],"usage":null}\n',
        'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
        'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3}}\n\ndata: [DONE]\n',
    ),
)
ANTHROPIC = Dialect(
    AnthropicAnswerer,
    "",
    anthropic_piece,
    'event: message_stop\ndata: {"type":"message_stop"}\n',
    f'event: error\ndata: {{"type":"error","error":{{"type":"overloaded_error","message":"{SECRET_WORDS}"}}}}\n',
    (
        'data: {"type":"message_start","message":{"usage":{"input_tokens":7,"output_tokens":1}}}\n',
        'data: {"type":"message_delta","delta":{},"usage":{"output_tokens":3}}\n\ndata: {"type":"message_stop"}\n',
    ),
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


def test_a_long_history_is_cut_at_whole_turns(dialect: Dialect, model: Model, settings: Settings) -> None:
    """The window has the system prompt and the question too; a token counts as four bytes."""
    model.reply = dialect.reply("yes")
    turns = some_turns(10, size=4000)
    for tokens, shown in ((4096, 4), (3 * 1100, 3), (100, 0)):
        settings.LLM_WINDOW_TOKENS = tokens
        answer(dialect, "And now?", History.of(turns))
        expected = [message.content for turn in turns[10 - shown :] for message in turn.messages()] + ["And now?"]
        assert [message["content"] for message in model.asked[-1]["messages"]] == expected
    settings.LLM_WINDOW_TOKENS = 2 * 1100
    settings.SYSTEM_PROMPT = "s" * 1100 * BYTES_PER_TOKEN
    answer(dialect, "And now?", History.of(turns))
    assert turns[-1].question.content in str(model.asked[-1]) and turns[-2].question.content not in str(model.asked[-1])


def test_what_is_set_is_sent(dialect: Dialect, model: Model, settings: Settings) -> None:
    model.reply = dialect.reply("yes")
    settings.SYSTEM_PROMPT, settings.LLM_TEMPERATURE, settings.LLM_MAX_TOKENS = "Be brief.", 0.0, 100
    answer(dialect, "And now?")
    (asked,) = model.asked
    first = asked["messages"][0] if dialect is OPENAI else {"role": "system", "content": asked["system"]}
    assert first == {"role": "system", "content": "Be brief."}
    assert asked["messages"][-1] == {"role": "user", "content": "And now?"}
    assert (asked["temperature"], asked["max_tokens"]) == (0.0, 100)


def test_what_is_not_set_is_left_to_the_model(dialect: Dialect, model: Model) -> None:
    model.reply = dialect.reply("yes")
    answer(dialect)
    (asked,) = model.asked
    assert "temperature" not in asked and "system" not in str(asked)
    assert asked.get("max_tokens") == (None if dialect is OPENAI else 4096)


def test_openai_itself_gets_its_newer_name_of_the_limit(settings: Settings) -> None:
    """Its newer models refuse the old one, which other endpoints alone know."""
    settings.LLM_MAX_TOKENS, settings.LLM_BASE_URL = 100, ""
    assert OpenAIAnswerer()._max_tokens() == {"max_completion_tokens": 100}


def counted() -> tuple[float, float]:
    sent, made = (metrics.llm_tokens.labels(direction=direction)._value.get() for direction in ("in", "out"))
    return sent, made


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The fields of each event."""
    found: list[dict[str, Any]] = []
    monkeypatch.setattr(models, "event", lambda logger, level, name, **fields: found.append({"name": name, **fields}))
    return found


def test_the_tokens_are_counted_and_logged(dialect: Dialect, model: Model, used: list[dict[str, Any]]) -> None:
    before = counted()
    model.reply = dialect.reply("yes", counted=True)
    assert answer(dialect) == ["yes"]
    assert counted() == (before[0] + 7, before[1] + 3)
    assert used == [{"name": "model_usage", "model": "a-model", "tokens_in": 7, "tokens_out": 3}]


def test_a_model_that_counts_no_tokens_is_not_logged(
    dialect: Dialect, model: Model, used: list[dict[str, Any]]
) -> None:
    model.reply = dialect.reply("yes")
    assert (answer(dialect), used) == (["yes"], [])


@pytest.mark.parametrize("end", ["", ": keep-alive\n", "data: {no json\n", 'data: {"error": {}, "usage": 5}\n'])
def test_a_whole_answer_is_taken_without_its_count(model: Model, dialect: Dialect, end: str) -> None:
    """The count follows the answer; where it does not come, only the count is missing."""

    def reply(request: Request) -> None:
        dialect.reply("yes", end=False)(request)
        request.send(dialect.end.partition("\n\ndata: [DONE]")[0], "", end)

    model.reply = reply
    assert answer(dialect) == ["yes"]


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


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (401, "LLM_API_KEY is missing, wrong or expired (401 AuthenticationError)"),
        (403, "the key may not ask the model of LLM_MODEL, or not from here (403 PermissionDeniedError)"),
    ],
)
def test_a_refused_key_is_for_the_operator(dialect: Dialect, model: Model, status: int, reason: str) -> None:
    """The client is not asked to try again; the reason is for the log alone."""

    def reply(request: Request) -> None:
        request.begin(status, "application/json")
        request.send(json.dumps({"error": {"message": f"Bad: {SECRET_WORDS}"}}))

    model.reply = reply
    with pytest.raises(ModelRefused) as caught:
        answer(dialect)
    assert str(caught.value).endswith(reason)
    assert SECRET_WORDS not in "".join(traceback.format_exception(caught.value))
    assert (caught.value.code, caught.value.status) == ("model_refused", 502)
    assert "ry again" not in caught.value.detail and "LLM_API_KEY" not in caught.value.detail
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
        assert window(History.of(turns), 10 * size) == turns

    def test_it_counts_bytes(self) -> None:
        turn = a_turn("é" * 50, "é" * 50)
        assert window(History.of([turn]), 200) == (turn,)
        assert window(History.of([turn]), 199) == ()

    def test_no_older_turn_follows_one_that_did_not_fit(self) -> None:
        small, large, last = a_turn(), a_turn("q", "a" * 500), a_turn()
        assert window(History.of([small, large, last]), 100) == (last,)
