"""How often a client may ask: CHAT_RATE, counted in this process' own memory.

A limit kept in a store would fail together with the store.
"""

from typing import Any

from django.conf import settings
from django.core.cache.backends.locmem import LocMemCache
from rest_framework.request import Request
from rest_framework.throttling import SimpleRateThrottle

from conversations.api.authentication import client_of


class ChatRateThrottle(SimpleRateThrottle):
    """Limits questions by token, or by address where CHAT_AUTH is open."""

    scope = "ask"
    # A cache of its own: the default one keeps 300 entries, and would limit no client once there are more.
    cache = LocMemCache("ask", {"OPTIONS": {"MAX_ENTRIES": 100_000}})

    def get_rate(self) -> str | None:
        return settings.CHAT_RATE or None

    def get_cache_key(self, request: Request, view: Any) -> str:
        client = client_of(request)
        return ":".join([self.scope, client.tenant, client.name] if client else [self.scope, self.get_ident(request)])


class ReadRateThrottle(ChatRateThrottle):
    """Limits everything else at the same rate but counted apart: a client that reads can still ask."""

    scope = "read"
