"""Who asks: a signed token in `Authorization: Bearer`, checked without any database."""

from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.core import signing
from django.core.cache.backends.locmem import LocMemCache
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.throttling import SimpleRateThrottle

from conversations.turns import SESSION_ID, now

_SALT = "onesource.chat"


@dataclass(frozen=True, slots=True)
class Client:
    """The holder of a token; its tenant's conversations are its own."""

    name: str
    tenant: str = ""
    is_authenticated: bool = True


def make_token(name: str, tenant: str = "", days: int = 365) -> str:
    """Return a token; it is good until it expires or SECRET_KEY changes. Raise ValueError on a bad name."""
    for what, value in (("name", name), ("tenant", tenant or name)):
        if not SESSION_ID.fullmatch(value):
            raise ValueError(f"{what} must be 1 to 128 of the characters A-Z a-z 0-9 . _ -")
    until = int(now().timestamp()) + days * 86_400
    return signing.dumps({"name": name, "tenant": tenant, "until": until}, salt=_SALT)


class TokenAuthentication(BaseAuthentication):
    """Reads the token where CHAT_AUTH asks for one."""

    def authenticate(self, request: Request) -> tuple[Client, None] | None:
        if settings.CHAT_AUTH == "open":
            return None
        words = get_authorization_header(request).split()
        if not words or words[0].lower() != b"bearer":
            return None
        try:
            claims = signing.loads(words[1].decode(), salt=_SALT)
        except (signing.BadSignature, IndexError, UnicodeDecodeError):
            raise AuthenticationFailed("The token is not one of ours.") from None
        if claims["until"] < now().timestamp():
            raise AuthenticationFailed("The token has expired.")
        return Client(claims["name"], claims["tenant"]), None

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


class TokenScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """How the documentation describes it."""

    target_class = TokenAuthentication
    name = "token"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer", "description": "From `manage.py token NAME`."}


class MayChat(BasePermission):
    """Anybody where CHAT_AUTH is open, else the holders of a token."""

    def has_permission(self, request: Request, view: Any) -> bool:
        return settings.CHAT_AUTH == "open" or request.user is not None


def client_of(request: Request) -> Client | None:
    """Return who asks, None where nobody need say."""
    return request.user if isinstance(request.user, Client) else None


class ChatRateThrottle(SimpleRateThrottle):
    """Limits questions by token, or by address where there are none, in this process' own memory:
    a limit that needed a store would be one more thing to go down with it."""

    scope = "ask"
    # Of its own: the default cache keeps 300 entries, and so would limit nobody once there are more clients.
    cache = LocMemCache("ask", {"OPTIONS": {"MAX_ENTRIES": 100_000}})

    def get_rate(self) -> str | None:
        return settings.CHAT_RATE or None

    def get_cache_key(self, request: Request, view: Any) -> str:
        client = client_of(request)
        return ":".join([self.scope, client.tenant, client.name] if client else [self.scope, self.get_ident(request)])


class ReadRateThrottle(ChatRateThrottle):
    """Limits all that is not a question as often, counted apart: a client that reads can still ask."""

    scope = "read"
