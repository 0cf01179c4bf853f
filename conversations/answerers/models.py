"""Answerers that call a language model through its maker's own SDK.

The answer is read line by line and not by the SDK's own events: those swallow keep-alives, and a model
that sends nothing else would hold a thread for ever.
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

_MOST_TOKENS = 4096
_CONNECT_SECONDS = 5.0


class _ModelAnswerer(Answerer):
    """What both have in common: the window, the deadline, and faults told as ours."""

    def answer(self, question: str, history: History) -> Iterator[str]:
        messages = [
            {"role": message.role, "content": message.content}
            for turn in window(history)
            for message in turn.messages()
        ]
        said = False
        try:
            for piece in self._pieces([*messages, {"role": QUESTION, "content": question}]):
                said = said or bool(piece.strip())
                yield piece
        except AnswererFailed:
            raise
        except Exception as error:
            # The class alone: the message may repeat the request, and so the conversation. Any class, since
            # the SDKs' own are not all there is: httpx's come through, and TypeError where there is no key.
            raise AnswererFailed(type(error).__name__) from None
        if not said:
            raise AnswererFailed("it said nothing")

    def _pieces(self, messages: list[dict[str, str]]) -> Iterator[str]:
        """Yield what the model says; raise AnswererFailed when it does not say it in time or to the end."""
        client = self._client  # its first use imports the SDK, which takes most of a second of nobody's time
        deadline = time.monotonic() + settings.LLM_TIMEOUT_MS / 1000
        with self._ask(client, messages) as response:
            for line in response.iter_lines():
                if time.monotonic() > deadline:
                    raise AnswererFailed("it took longer than LLM_TIMEOUT_MS")
                if line.startswith("data:") and "{" in line:
                    event = orjson.loads(line[5:])
                    if event.get("error"):
                        raise AnswererFailed("it told an error in the middle of its answer")
                    piece, finished = self._read(event)
                    if piece:
                        yield piece
                    if finished:
                        return
        raise AnswererFailed("it broke off in the middle of its answer")

    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {"max_retries": 0}
        if settings.LLM_BASE_URL:
            # Said even where there is none: the SDK would send this host the key that it finds for its maker's.
            options |= {"base_url": settings.LLM_BASE_URL, "api_key": settings.LLM_API_KEY or "none"}
        elif settings.LLM_API_KEY:
            options["api_key"] = settings.LLM_API_KEY
        return options

    @property
    @abstractmethod
    def _client(self) -> Any:
        """The SDK's client, imported and made when it is first used: only who uses it should pay."""

    @abstractmethod
    def _ask(self, client: Any, messages: list[dict[str, str]]) -> Any:
        """Return a context manager of the model's response, which is a stream of events."""

    @abstractmethod
    def _read(self, event: dict[str, Any]) -> tuple[str | None, bool]:
        """Return the text of an event, if it has any, and whether it is the last."""


class OpenAIAnswerer(_ModelAnswerer):
    """Any endpoint that speaks OpenAI's chat completions."""

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
    """Anthropic's messages."""

    @cached_property
    def _client(self) -> Any:
        import anthropic

        seconds = settings.LLM_TIMEOUT_MS / 1000
        timeout = anthropic.Timeout(seconds, connect=min(seconds, _CONNECT_SECONDS))
        return anthropic.Anthropic(timeout=timeout, **self._options())

    def _ask(self, client: Any, messages: list[dict[str, str]]) -> Any:
        return client.messages.with_streaming_response.create(
            model=settings.LLM_MODEL, messages=messages, max_tokens=_MOST_TOKENS, stream=True
        )

    def _read(self, event: dict[str, Any]) -> tuple[str | None, bool]:
        return (event.get("delta") or {}).get("text"), event.get("type") == "message_stop"
