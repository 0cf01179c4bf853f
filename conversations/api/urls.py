"""The addresses under /api/chat/; the trailing slash is optional."""

from typing import Any

from django.urls import URLPattern, path, register_converter
from drf_spectacular.utils import extend_schema
from rest_framework.viewsets import ViewSet

from conversations.api.converters import SessionIDConverter
from conversations.api.views import ChatView, ConversationView

register_converter(SessionIDConverter, "session_id")


def _with_either_slash(route: str, view: type[ViewSet], methods: dict[str, Any], name: str) -> list[URLPattern]:
    """Return the documented route, and an undocumented one with or without the slash: a redirect would lose the
    body of a POST."""
    other = route.removesuffix("/") if route.endswith("/") else f"{route}/"
    hidden: type[ViewSet] = extend_schema(exclude=True)(type(view.__name__, (view,), {}))
    return [
        path(route, view.as_view(methods), name=name),
        path(other, hidden.as_view(methods)),
    ]


_CONVERSATION = "conversations/<session_id:session_id>/"
urlpatterns = [
    *_with_either_slash("ask", ChatView, {"post": "ask"}, "ask"),
    *_with_either_slash("conversations/", ConversationView, {"get": "list"}, "conversations"),
    *_with_either_slash(_CONVERSATION, ConversationView, {"get": "retrieve", "delete": "destroy"}, "conversation"),
    *_with_either_slash(f"{_CONVERSATION}turns", ChatView, {"post": "add_turn"}, "turns"),
    *_with_either_slash(f"{_CONVERSATION}export", ConversationView, {"get": "export"}, "export"),
]
