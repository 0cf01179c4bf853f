"""Authentication: a signed token in `Authorization: Bearer`, checked without any database."""

from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.core import signing
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from conversations.clock import now
from conversations.turns import SESSION_ID

_SALT = "onesource.chat"


@dataclass(frozen=True, slots=True)
class Client:
    """The holder of a token; it sees the conversations of its tenant only."""

    name: str
    tenant: str = ""
    is_authenticated: bool = True


def make_token(name: str, tenant: str = "", days: int = 365) -> str:
    """Return a token, valid until it expires or SECRET_KEY changes. Raise ValueError on a bad name."""
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


class MayChat(BasePermission):
    """Everyone where CHAT_AUTH is open, else the holders of a token."""

    def has_permission(self, request: Request, view: Any) -> bool:
        return settings.CHAT_AUTH == "open" or request.user is not None


def client_of(request: Request) -> Client | None:
    """Return the client, None where CHAT_AUTH is open."""
    return request.user if isinstance(request.user, Client) else None
