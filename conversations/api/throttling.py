"""How often a client may ask: CHAT_RATE, counted for all processes together."""

from hashlib import blake2b
from typing import Any

from django.conf import settings
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from conversations.api.authentication import client_of
from conversations.runtime.rates import parsed, rates
from telemetry import metrics

_LONGEST_ADDRESS = 45  # characters; what a proxy's header has may be anything


class ChatRateThrottle(BaseThrottle):
    """Limits questions by token, or by address where CHAT_AUTH is open."""

    scope = "ask"

    def allow_request(self, request: Request, view: Any) -> bool:
        if not settings.CHAT_RATE:
            return True
        self._wait = rates.wait(f"{self.scope}:{asker(request)}", parsed(settings.CHAT_RATE))
        if self._wait:
            metrics.requests_limited.labels(limit="rate").inc()
        return not self._wait

    def wait(self) -> float:
        return self._wait


class ReadRateThrottle(ChatRateThrottle):
    """Limits everything else at the same rate but counted apart: a client that reads can still ask."""

    scope = "read"


def asker(request: Request) -> str:
    """Return who asks, by the name under which its requests are counted: no other token has it, but one of the same
    name and tenant."""
    client = client_of(request)
    if client:
        return f"{client.tenant}:{client.name}"
    address = str(_addresses.get_ident(request))
    if len(address) > _LONGEST_ADDRESS:
        address = blake2b(address.encode(errors="replace"), digest_size=16).hexdigest()
    return f"@{address}"  # which is in no name


_addresses = BaseThrottle()
