"""Answerers: classes that answer a question. ANSWERER names a built-in one or the dotted path of another."""

from functools import cache

from django.conf import settings
from django.utils.module_loading import import_string

from conversations.answerers.base import Answerer

BUILT_IN = {
    "recall": "conversations.answerers.recall.RecallAnswerer",
    "openai": "conversations.answerers.models.OpenAIAnswerer",
    "anthropic": "conversations.answerers.models.AnthropicAnswerer",
}


@cache
def answerer() -> Answerer:
    """Return the answerer that ANSWERER names."""
    built: Answerer = import_string(BUILT_IN.get(settings.ANSWERER, settings.ANSWERER))()
    return built
