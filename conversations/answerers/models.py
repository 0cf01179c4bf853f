"""Answerers that call a language model through its vendor's SDK.

The response is read line by line, not through the SDK's events: those hide keep-alives, so that a model which
sends only keep-alives would hold a thread for ever.
"""

import time
from abc import abstractmethod
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import orjson
from django.conf import settings

from conversations.answerers.base import Answerer, window
from conversations.errors import AnswererFailed
from conversations.turns import QUESTION, History

_MAX_TOKENS = 4096
_CONNECT_SECONDS = 5.0


class _ModelAnswerer(Answerer):
    """What both have in common: the window, the deadline, and AnswererFailed for every fault."""

    def answer(self, question: str, history: History) -> Iterator[str]:
        messages = [
            {"role": message.role, "content": message.content}
            for turn in window(history)
            for message in turn.messages()
        ]
        answered = False
        try:
            for piece in self._pieces([*messages, {"role": QUESTION, "content": question}]):
                answered = answered or bool(piece.strip())
                yield piece
        except AnswererFailed:
            raise
        except Exception as error:
            # Only the class is named: the message may repeat the request, and so the conversation. Any class is
            # caught: besides the SDK's own there are httpx's, and TypeError where there is no API key.
            raise AnswererFailed(type(error).__name__) from None
        if not answered:
            raise AnswererFailed("its answer is empty")

    def _pieces(self, messages: list[dict[str, str]]) -> Iterator[str]:
        """Yield the text of the response; raise AnswererFailed when it is late or incomplete."""
        client = (
            self._client
        )  # made before the deadline begins: its first use imports the SDK, which takes most of a second
        deadline = time.monotonic() + settings.LLM_TIMEOUT_MS / 1000
        with self._ask(client, messages) as response:
            for line in response.iter_lines():
                if time.monotonic() > deadline:
                    raise AnswererFailed("it took longer than LLM_TIMEOUT_MS")
                if line.startswith("data:") and "{" in line:
                    event = orjson.loads(line[5:])
                    if event.get("error"):
                        raise AnswererFailed("it reported an error in the middle of its answer")
                    piece, finished = self._read(event)
                    if piece:
                        yield piece
                    if finished:
                        return
        raise AnswererFailed("it broke off in the middle of its answer")

    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {"max_retries": 0}
        if settings.LLM_BASE_URL:
            # A key is passed even where there is none: else the SDK would send this host its vendor's key, which it
            # reads from the environment.
            options |= {"base_url": settings.LLM_BASE_URL, "api_key": settings.LLM_API_KEY or "none"}
        elif settings.LLM_API_KEY:
            options["api_key"] = settings.LLM_API_KEY
        return options

    @property
    @abstractmethod
    def _client(self) -> Any:
        """The SDK's client; the SDK is imported when it is first used, since few processes need it."""

    @abstractmethod
    def _ask(self, client: Any, messages: list[dict[str, str]]) -> Any:
        """Return a context manager of the streaming response."""

    @abstractmethod
    def _read(self, event: dict[str, Any]) -> tuple[str | None, bool]:
        """Return the text of an event, if it has any, and whether it is the last."""


class OpenAIAnswerer(_ModelAnswerer):
    """Any endpoint with OpenAI's chat completions API."""

    @cached_property
    def _client(self) -> Any:
        import openai

        seconds = settings.LLM_TIMEOUT_MS / 1000
        timeout = openai.Timeout(seconds, connect=min(seconds, _CONNECT_SECONDS))
        return openai.OpenAI(timeout=timeout, **self._options())

    def _ask(self, client: Any, messages: list[dict[str, str]]) -> Any:
        return client.chat.completions.with_streaming_response.create(
            model=settings.LLM_MODEL, messages=messages, stream=True
        )

    def _read(self, event: dict[str, Any]) -> tuple[str | None, bool]:
        if not event.get("choices"):
            return None, False
        choice = event["choices"][0]
        return (choice.get("delta") or {}).get("content"), bool(choice.get("finish_reason"))


class AnthropicAnswerer(_ModelAnswerer):
    """Anthropic's messages API."""

    @cached_property
    def _client(self) -> Any:
        import anthropic

        seconds = settings.LLM_TIMEOUT_MS / 1000
        timeout = anthropic.Timeout(seconds, connect=min(seconds, _CONNECT_SECONDS))
        return anthropic.Anthropic(timeout=timeout, **self._options())

    def _ask(self, client: Any, messages: list[dict[str, str]]) -> Any:
        return client.messages.with_streaming_response.create(
            model=settings.LLM_MODEL, messages=messages, max_tokens=_MAX_TOKENS, stream=True
        )

    def _read(self, event: dict[str, Any]) -> tuple[str | None, bool]:
        return (event.get("delta") or {}).get("text"), event.get("type") == "message_stop"
