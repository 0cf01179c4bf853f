"""Authentication: a token in `Authorization: Bearer`, of ours or of the issuer, checked without any store, database or
issuer being asked."""

from dataclasses import dataclass
from typing import Any

from django.conf import settings
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed, PermissionDenied
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from conversations import tokens
from conversations.runtime import issuer, revoked
from telemetry import metrics


@dataclass(frozen=True, slots=True)
class Client:
    """The holder of a token; it sees the conversations of its tenant only."""

    name: str
    tenant: str = ""
    scopes: frozenset[str] = frozenset()
    is_authenticated: bool = True


class TokenAuthentication(BaseAuthentication):
    """Reads the token where CHAT_AUTH asks for one."""

    def authenticate(self, request: Request) -> tuple[Client, None] | None:
        if settings.CHAT_AUTH == "open":
            return None
        words = get_authorization_header(request).split()
        if not words or words[0].lower() != b"bearer":
            return None
        token = b" ".join(words[1:]).decode(errors="replace")
        try:
            claims = tokens.read(token) if ":" in token else issuer.read(token)  # a JWT has no colon, and ours have two
        except tokens.BadToken as error:
            raise _refused(error.reason, str(error.__doc__)) from None
        if claims.expired:
            raise _refused("expired", str(tokens.ExpiredToken.__doc__))
        if revoked.is_revoked(claims.id):
            raise _refused("revoked", "The token has been revoked.")
        return Client(claims.name, claims.tenant, claims.scopes), None

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


def _refused(reason: str, text: str) -> AuthenticationFailed:
    metrics.tokens_refused.labels(reason=reason).inc()
    return AuthenticationFailed(text)


class MayChat(BasePermission):
    """Everyone where CHAT_AUTH is open, else the holders of a token with the scope of what they ask for."""

    def has_permission(self, request: Request, view: Any) -> bool:
        client = client_of(request)
        if client is None:
            return bool(settings.CHAT_AUTH == "open")
        scope = view.scopes.get(view.action)
        if scope and scope not in client.scopes:
            metrics.tokens_refused.labels(reason="scope").inc()
            raise PermissionDenied(f"The token lacks the scope `{scope}`, which this needs.", code="scope_missing")
        return True


def client_of(request: Request) -> Client | None:
    """Return the client, None where CHAT_AUTH is open."""
    return request.user if isinstance(request.user, Client) else None
