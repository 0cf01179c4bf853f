"""Answerers that call a language model through its vendor's SDK.

The response is read line by line, not through the SDK's events: those hide keep-alives, so that a model which
sends only keep-alives would hold a thread for ever.
"""

import logging
import time
from abc import abstractmethod
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import orjson
from django.conf import settings

from conversations.answerers.base import BYTES_PER_TOKEN, Answerer, window
from conversations.errors import AnswererFailed, ModelRefused
from conversations.turns import QUESTION, History
from telemetry import metrics, traces
from telemetry.logs import event

_MAX_TOKENS = 4096  # of an answer, where the vendor wants a limit and none is set
_CONNECT_SECONDS = 5.0
_REFUSALS = {
    401: "LLM_API_KEY is missing, wrong or expired",
    403: "the key may not ask the model of LLM_MODEL, or not from here",
}

logger = logging.getLogger(__name__)


class _ModelAnswerer(Answerer):
    """What both have in common: the window, the deadline, what was used, and AnswererFailed for every fault."""

    usage_follows = False
    """Whether the tokens are counted in an event after the last piece."""

    def answer(self, question: str, history: History, *, behind: bool = False) -> Iterator[str]:
        answered = False
        try:
            for piece in self._pieces(_messages(question, history)):
                answered = answered or bool(piece.strip())
                yield piece
        except AnswererFailed:
            raise
        except Exception as error:
            # Any class is caught: besides the SDK's own there are httpx's, and TypeError where there is no API key.
            raise _failure(error) from None
        if not answered:
            raise AnswererFailed("its answer is empty")

    def _pieces(self, messages: list[dict[str, str]]) -> Iterator[str]:
        """Yield the text of the response; raise AnswererFailed when it is late or incomplete."""
        client = (
            self._client
        )  # made before the deadline begins: its first use imports the SDK, which takes most of a second
        deadline = time.monotonic() + settings.LLM_TIMEOUT_MS / 1000
        usage: dict[str, int] = {}
        finished = False
        try:
            with self._ask(client, messages) as response:
                for line in response.iter_lines():
                    if time.monotonic() > deadline:
                        raise AnswererFailed("it took longer than LLM_TIMEOUT_MS")
                    if line.startswith("data:") and "{" in line:
                        data = orjson.loads(line[5:])
                        if data.get("error"):
                            raise AnswererFailed("it reported an error in the middle of its answer")
                        usage |= self._usage(data)
                        piece, last = self._read(data)
                        if piece:
                            yield piece
                        finished = finished or last
                    if finished and (usage or not self.usage_follows or "[DONE]" in line):
                        break
        except Exception:
            if not finished:  # else only the count of its tokens is missing
                raise
        finally:
            _count(usage)
        if not finished:
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
    def _read(self, data: dict[str, Any]) -> tuple[str | None, bool]:
        """Return the text of an event, if it has any, and whether it is the last with text."""

    @abstractmethod
    def _usage(self, data: dict[str, Any]) -> dict[str, int]:
        """Return the tokens that an event counts, `in` and `out`."""


def _messages(question: str, history: History) -> list[dict[str, str]]:
    """Return the turns that fit in the window beside the system prompt and the question, and the question."""
    taken = sum(len(text.encode(errors="replace")) for text in (settings.SYSTEM_PROMPT, question))
    shown = window(history, settings.LLM_WINDOW_TOKENS * BYTES_PER_TOKEN - taken)
    messages = [{"role": message.role, "content": message.content} for turn in shown for message in turn.messages()]
    return [*messages, {"role": QUESTION, "content": question}]


def _failure(error: Exception) -> AnswererFailed:
    """Return the error with the status and class of the SDK's: its message may repeat the request, and so the
    conversation."""
    status, name = getattr(error, "status_code", None), type(error).__name__
    if status in _REFUSALS:
        return ModelRefused(f"{_REFUSALS[status]} ({status} {name})")
    return AnswererFailed(name)


def _tokens(usage: Any, **names: str) -> dict[str, int]:
    """Return what is counted under these names."""
    found = {direction: usage.get(name) for direction, name in names.items()} if isinstance(usage, dict) else {}
    return {direction: number for direction, number in found.items() if isinstance(number, int) and number >= 0}


def _count(usage: dict[str, int]) -> None:
    if usage:
        for direction, number in usage.items():
            metrics.llm_tokens.labels(direction=direction).inc(number)
        counted = {f"tokens_{direction}": number for direction, number in usage.items()}
        traces.annotate(**counted)
        event(logger, logging.INFO, "model_usage", model=settings.LLM_MODEL, **counted)


def _temperature() -> dict[str, float]:
    return {} if settings.LLM_TEMPERATURE == "" else {"temperature": settings.LLM_TEMPERATURE}


class OpenAIAnswerer(_ModelAnswerer):
    """Any endpoint with OpenAI's chat completions API."""

    usage_follows = True

    @cached_property
    def _client(self) -> Any:
        import openai

        seconds = settings.LLM_TIMEOUT_MS / 1000
        timeout = openai.Timeout(seconds, connect=min(seconds, _CONNECT_SECONDS))
        return openai.OpenAI(timeout=timeout, **self._options())

    def _ask(self, client: Any, messages: list[dict[str, str]]) -> Any:
        system = [{"role": "system", "content": settings.SYSTEM_PROMPT}] if settings.SYSTEM_PROMPT else []
        return client.chat.completions.with_streaming_response.create(
            model=settings.LLM_MODEL,
            messages=[*system, *messages],
            stream=True,
            stream_options={"include_usage": True},
            **_temperature(),
            **self._max_tokens(),
        )

    def _max_tokens(self) -> dict[str, int]:
        if not settings.LLM_MAX_TOKENS:
            return {}
        # OpenAI's newer models refuse the old name, which is the only one that every other endpoint knows.
        return {"max_tokens" if settings.LLM_BASE_URL else "max_completion_tokens": settings.LLM_MAX_TOKENS}

    def _read(self, data: dict[str, Any]) -> tuple[str | None, bool]:
        if not data.get("choices"):
            return None, False
        choice = data["choices"][0]
        return (choice.get("delta") or {}).get("content"), bool(choice.get("finish_reason"))

    def _usage(self, data: dict[str, Any]) -> dict[str, int]:
        return _tokens(data.get("usage"), **{"in": "prompt_tokens", "out": "completion_tokens"})


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
            model=settings.LLM_MODEL,
            messages=messages,
            max_tokens=settings.LLM_MAX_TOKENS or _MAX_TOKENS,
            stream=True,
            **({"system": settings.SYSTEM_PROMPT} if settings.SYSTEM_PROMPT else {}),
            extra_body=_temperature(),  # the SDK has no parameter for it any more; models still take it
        )

    def _read(self, data: dict[str, Any]) -> tuple[str | None, bool]:
        return (data.get("delta") or {}).get("text"), data.get("type") == "message_stop"

    def _usage(self, data: dict[str, Any]) -> dict[str, int]:
        """Return them of the first event, which counts the request, and of the last but one."""
        usage = data.get("usage") or (data.get("message") or {}).get("usage")
        return _tokens(usage, **{"in": "input_tokens", "out": "output_tokens"})
