"""The addresses under /api/chat/; the trailing slash is optional."""

from typing import Any

from django.urls import URLPattern, path
from drf_spectacular.utils import extend_schema
from rest_framework.viewsets import ViewSet

from conversations.api.views import ChatView, ConversationView


def _both(route: str, view: type[ViewSet], methods: dict[str, Any], name: str) -> list[URLPattern]:
    """Return the route as documented, and its twin with or without the slash, which is not."""
    twin = route.removesuffix("/") if route.endswith("/") else f"{route}/"
    hidden: type[ViewSet] = extend_schema(exclude=True)(type(view.__name__, (view,), {}))
    return [
        path(route, view.as_view(methods), name=name),
        path(twin, hidden.as_view(methods)),
    ]


urlpatterns = [
    *_both("ask", ChatView, {"post": "ask"}, "ask"),
    *_both("conversations/", ConversationView, {"get": "list"}, "conversations"),
    *_both(
        "conversations/<str:session_id>/",
        ConversationView,
        {"get": "retrieve", "delete": "destroy"},
        "conversation",
    ),
    *_both("conversations/<str:session_id>/export", ConversationView, {"get": "export"}, "export"),
]
