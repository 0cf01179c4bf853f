"""The sync client."""

import re
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from onesource_client.conversation import ConversationSteps, Format, StreamSteps
from onesource_client.events import Pieces
from onesource_client.results import Answer, History
from onesource_client.retries import Attempts, Retries
from onesource_client.steps import Lost, Pause, Piece, Read, Reply, Send, Step, Steps

T = TypeVar("T")
CONNECT_SECONDS = 5.0
TOKEN = re.compile(r"[ -~]+")


class Client:
    """A connection to the service at an address; with `CHAT_AUTH=token` it needs a token. For any number of threads,
    each with conversations of its own.

    `timeout` is for one reply and contains the model's time; `retries` says how often a request is sent again.
    """

    def __init__(
        self, url: str, token: str | None = None, *, timeout: float = 60.0, retries: Retries | None = None
    ) -> None:
        self._http = httpx.Client(**options(url, token, timeout))
        self._retries = retries or Retries()

    def conversation(
        self, session_id: str | None = None, *, last_message_id: str | None = None, user: str | None = None
    ) -> "Conversation":
        """Return a conversation: a new one, or the one of that session_id. With a `user` it is theirs: it is found, and
        deleted, by that name."""
        return Conversation(self, session_id, last_message_id, user)

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _attempts(self) -> Attempts:
        return Attempts(self._retries, time.monotonic)

    def _run(self, steps: Steps[T]) -> T:
        """Carry the steps out; return their result."""
        wire, result = _Wire(self._http), None
        try:
            while True:
                result = wire.do(steps.send(result))
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
        finally:
            wire.close()


class Conversation(ConversationSteps):
    """One conversation. Each question has an Idempotency-Key and says what this client was given last; it is sent
    again where that is safe. Not for several threads at a time."""

    def __init__(self, client: Client, session_id: str | None, last_message_id: str | None, user: str | None) -> None:
        super().__init__(session_id, last_message_id, user)
        self._client = client

    def ask(self, question: str, *, require_context: bool = False, idempotency_key: str | None = None) -> Answer:
        """Return the stored answer. `require_context`: raise ContextBehind rather than have the question answered
        without what this client was given. `idempotency_key`: that of an error, to go on with its question."""
        attempts = self._client._attempts()
        return self._client._run(self._asking(question, require_context, idempotency_key, attempts))

    def stream(self, question: str, *, require_context: bool = False, idempotency_key: str | None = None) -> "Stream":
        """Return the answer to iterate over, piece by piece; raise as `ask` does, while it is iterated over."""
        pieces = Pieces()
        steps = self._streaming(question, require_context, idempotency_key, self._client._attempts(), pieces)
        return Stream(self._client._http, steps, pieces)

    def add_turn(self, question: str, answer: str, *, idempotency_key: str | None = None) -> Answer:
        """Store a turn that was answered elsewhere."""
        attempts = self._client._attempts()
        return self._client._run(self._adding(question, answer, idempotency_key, attempts))

    def history(self) -> History:
        """Return the messages that are kept, none of a conversation that has not begun; raise NotFound."""
        return self._client._run(self._reading(self._client._attempts()))

    def delete(self) -> None:
        """Delete the conversation from every store; raise NotFound."""
        self._client._run(self._deleting(self._client._attempts()))

    def export(self, form: Format = "json") -> str:
        """Return the conversation as JSON or Markdown; raise NotFound."""
        return self._client._run(self._exporting(form, self._client._attempts()))


class Stream(StreamSteps):
    """An answer that comes piece by piece; iterate once."""

    def __init__(self, http: httpx.Client, steps: Steps[Answer], pieces: Pieces) -> None:
        super().__init__(steps, pieces)
        self._http = http

    def __iter__(self) -> Iterator[str]:
        wire, result = _Wire(self._http), None
        try:
            while True:
                step = self._steps.send(result)
                if isinstance(step, Piece):
                    result = None
                    yield step.text
                else:
                    result = wire.do(step)
        except StopIteration as done:
            self.answer = done.value or self.answer
        finally:
            wire.close()


class _Wire:
    """Carries out one step after another; at most one reply is open."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http
        self._open: httpx.Response | None = None
        self._chunks: Iterator[bytes] = iter(())

    def do(self, step: Step) -> Any:
        if isinstance(step, Pause):
            time.sleep(step.seconds)
            return None
        try:
            return self._send(step) if isinstance(step, Send) else self._read() if isinstance(step, Read) else None
        except httpx.RequestError as error:
            return Lost(reason(error))

    def close(self) -> None:
        if self._open:
            self._open.close()
            self._open = None

    def _send(self, call: Send) -> Reply:
        self.close()
        response = self._http.send(request(self._http, call), stream=True)
        self._open = response
        if call.streams and response.is_success:
            self._chunks = response.iter_bytes()
            return reply(response)
        response.read()
        return reply(response, response.content)

    def _read(self) -> bytes:
        return next(self._chunks, b"")


def options(url: str, token: str | None, timeout: float) -> dict[str, Any]:
    """Return the options of httpx' client; raise ValueError where no request could be sent with them."""
    address = httpx.URL(url)
    if address.scheme not in ("http", "https") or not address.host:
        raise ValueError("the url of the service begins with http:// or https://, and has a host")
    if token and not TOKEN.fullmatch(token):
        raise ValueError("a token has only characters of ASCII, and no line ends")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return {"base_url": url, "headers": headers, "timeout": httpx.Timeout(timeout, connect=CONNECT_SECONDS)}


def request(http: httpx.Client | httpx.AsyncClient, call: Send) -> httpx.Request:
    return http.build_request(call.method, call.path, json=call.body, headers=call.headers, params=call.query)


def reply(response: httpx.Response, content: bytes = b"") -> Reply:
    headers = response.headers
    return Reply(response.status_code, content, headers.get("Retry-After", ""), headers.get("X-Session-ID", ""))


def reason(error: httpx.RequestError) -> str:
    return f"{type(error).__name__}: {error}"
