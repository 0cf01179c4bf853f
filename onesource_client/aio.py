"""The async client: the same as the sync one, with `await`."""

import asyncio
import time
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from onesource_client.client import options, reason, reply, request
from onesource_client.conversation import ConversationSteps, Format, StreamSteps
from onesource_client.events import Pieces
from onesource_client.results import Answer, History
from onesource_client.retries import Attempts, Retries
from onesource_client.steps import Lost, Pause, Piece, Read, Reply, Send, Step, Steps

T = TypeVar("T")


class AsyncClient:
    """A connection to the service at an address: see Client. For one event loop."""

    def __init__(
        self, url: str, token: str | None = None, *, timeout: float = 60.0, retries: Retries | None = None
    ) -> None:
        self._http = httpx.AsyncClient(**options(url, token, timeout))
        self._retries = retries or Retries()

    def conversation(
        self, session_id: str | None = None, *, last_message_id: str | None = None, user: str | None = None
    ) -> "AsyncConversation":
        """Return a conversation: a new one, or the one of that session_id. With a `user` it is theirs: it is found, and
        deleted, by that name."""
        return AsyncConversation(self, session_id, last_message_id, user)

    async def close(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _attempts(self) -> Attempts:
        return Attempts(self._retries, time.monotonic)

    async def _run(self, steps: Steps[T]) -> T:
        """Carry the steps out; return their result."""
        wire, result = _Wire(self._http), None
        try:
            while True:
                try:
                    step = steps.send(result)
                except StopIteration as done:
                    return done.value  # type: ignore[no-any-return]
                result = await wire.do(step)
        finally:
            await wire.close()


class AsyncConversation(ConversationSteps):
    """One conversation: see Conversation. Not for several tasks at a time."""

    def __init__(
        self, client: AsyncClient, session_id: str | None, last_message_id: str | None, user: str | None
    ) -> None:
        super().__init__(session_id, last_message_id, user)
        self._client = client

    async def ask(self, question: str, *, require_context: bool = False, idempotency_key: str | None = None) -> Answer:
        """Return the stored answer: see Conversation.ask."""
        attempts = self._client._attempts()
        return await self._client._run(self._asking(question, require_context, idempotency_key, attempts))

    def stream(
        self, question: str, *, require_context: bool = False, idempotency_key: str | None = None
    ) -> "AsyncStream":
        """Return the answer to iterate over with `async for`."""
        pieces = Pieces()
        steps = self._streaming(question, require_context, idempotency_key, self._client._attempts(), pieces)
        return AsyncStream(self._client._http, steps, pieces)

    async def add_turn(self, question: str, answer: str, *, idempotency_key: str | None = None) -> Answer:
        """Store a turn that was answered elsewhere."""
        attempts = self._client._attempts()
        return await self._client._run(self._adding(question, answer, idempotency_key, attempts))

    async def history(self) -> History:
        """Return the messages that are kept, none of a conversation that has not begun; raise NotFound."""
        return await self._client._run(self._reading(self._client._attempts()))

    async def delete(self) -> None:
        """Delete the conversation from every store; raise NotFound."""
        await self._client._run(self._deleting(self._client._attempts()))

    async def export(self, form: Format = "json") -> str:
        """Return the conversation as JSON or Markdown; raise NotFound."""
        return await self._client._run(self._exporting(form, self._client._attempts()))


class AsyncStream(StreamSteps):
    """An answer that comes piece by piece; iterate once. See Stream."""

    def __init__(self, http: httpx.AsyncClient, steps: Steps[Answer], pieces: Pieces) -> None:
        super().__init__(steps, pieces)
        self._http = http

    async def __aiter__(self) -> AsyncIterator[str]:
        wire, result = _Wire(self._http), None
        try:
            while True:
                try:
                    step = self._steps.send(result)
                except StopIteration as done:
                    self.answer = done.value or self.answer
                    return
                if isinstance(step, Piece):
                    result = None
                    yield step.text
                else:
                    result = await wire.do(step)
        finally:
            await wire.close()


class _Wire:
    """Carries out one step after another; at most one reply is open."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http
        self._open: httpx.Response | None = None
        self._chunks: AsyncIterator[bytes] | None = None

    async def do(self, step: Step) -> Any:
        if isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
            return None
        try:
            if isinstance(step, Send):
                return await self._send(step)
            return await self._read() if isinstance(step, Read) else None
        except httpx.RequestError as error:
            return Lost(reason(error))

    async def close(self) -> None:
        if self._open:
            await self._open.aclose()
            self._open = None

    async def _send(self, call: Send) -> Reply:
        await self.close()
        response = await self._http.send(request(self._http, call), stream=True)
        self._open = response
        if call.streams and response.is_success:
            self._chunks = response.aiter_bytes()
            return reply(response)
        await response.aread()
        return reply(response, response.content)

    async def _read(self) -> bytes:
        return await anext(self._chunks, b"") if self._chunks else b""
