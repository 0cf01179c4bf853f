"""Tokens: what one says, its signature, and the keys; nothing is asked of any store or database.

A token is `KEY.SIGNED`: the id of its key, and the claims as `django.core.signing` signs them. One that was made before
keys had ids is `SIGNED` alone, with SECRET_KEY; it has no id, and every scope.
"""

import secrets
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.core import signing

from conversations.clock import now
from conversations.turns import SESSION_ID

ASK, READ, DELETE, EXPORT = "ask", "read", "delete", "export"
SCOPES = (ASK, READ, DELETE, EXPORT)
MAIN = "main"
"""The id of the key that is made of SECRET_KEY. It verifies always, and signs where CHAT_KEYS names no other."""
DAYS = 90
MOST_DAYS = 3650
_SALT = "onesource.chat"
_MOST_CHARACTERS = 4096  # of a token; the longest that is made has a tenth of it
_DAY = 86_400


class BadToken(Exception):
    """The token is not one of ours."""

    reason = "invalid"
    """The label that it is counted by."""


class ExpiredToken(BadToken):
    """The token has expired."""

    reason = "expired"


class UnknownKey(BadToken):
    """The token is of a key that is not known, or not yet: a new one is, soon."""

    reason = "unknown_key"


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token says."""

    id: str
    """"" in a token of before there were ids."""
    name: str
    tenant: str
    """"" for the conversations of no tenant."""
    scopes: frozenset[str]
    until: int
    """Unix time, in seconds."""
    key: str

    @property
    def expired(self) -> bool:
        return self.until < now().timestamp()


def issue(
    name: str, tenant: str | None = None, scopes: tuple[str, ...] = SCOPES, days: int = DAYS
) -> tuple[Claims, str]:
    """Return a new token's claims, and the token. Without a tenant it gets one of its own, named as its id: no other
    token has it unless it is asked for. Raise ValueError on what no token can say."""
    identity = secrets.token_hex(8)
    tenant = identity if tenant is None else tenant
    for what, value in (("name", name), ("tenant", tenant or "none")):
        if not SESSION_ID.fullmatch(value):
            raise ValueError(f"{what} must be 1 to 128 of the characters A-Z a-z 0-9 . _ -")
    unknown = set(scopes) - set(SCOPES)
    if unknown or not scopes:
        raise ValueError(f"scopes are some of {', '.join(SCOPES)}")
    key, secret = _signing_key()
    claims = Claims(identity, name, tenant, frozenset(scopes), int(now().timestamp()) + days * _DAY, key)
    said = {"id": identity, "name": name, "tenant": tenant, "scopes": ordered(claims.scopes), "until": claims.until}
    return claims, f"{key}.{signing.dumps(said, key=secret, salt=_salt(key))}"


def read(token: str) -> Claims:
    """Return what the token says, expired or not; raise BadToken."""
    if len(token) > _MOST_CHARACTERS:
        raise BadToken
    key, dot, signed = token.partition(".")
    if not dot:
        return _claims(_loads(token, settings.SECRET_KEY, _SALT), MAIN)
    secret = keys().get(key)
    if secret is None:
        raise BadToken
    return _claims(_loads(signed, secret, _salt(key)), key)


def keys() -> dict[str, str]:
    """Return the secret of each key by its id; the first one signs."""
    return {**settings.CHAT_KEYS, MAIN: settings.SECRET_KEY}


def ordered(scopes: frozenset[str]) -> list[str]:
    return [scope for scope in SCOPES if scope in scopes]


def _signing_key() -> tuple[str, str]:
    return next(iter(keys().items()))


def _salt(key: str) -> str:
    return f"{_SALT}.{key}"


def _loads(signed: str, secret: str, salt: str) -> Any:
    try:
        return signing.loads(signed, key=secret, salt=salt, fallback_keys=[])
    except (signing.BadSignature, ValueError):
        raise BadToken from None


def _claims(said: Any, key: str) -> Claims:
    """Return the claims, each of its type; one that another program has signed with our key may be anything."""
    if not isinstance(said, dict):
        raise BadToken
    identity, name, tenant = said.get("id", ""), said.get("name"), said.get("tenant")
    scopes, until = said.get("scopes", SCOPES), said.get("until")
    if type(until) is not int or not isinstance(scopes, list | tuple):  # a bool is an int too
        raise BadToken
    allowed = frozenset(scope for scope in SCOPES if scope in scopes)
    return Claims(_name(identity, True), _name(name), _name(tenant, True), allowed, until, key)


def _name(value: Any, optional: bool = False) -> str:
    if isinstance(value, str) and (SESSION_ID.fullmatch(value) or (optional and not value)):
        return value
    raise BadToken
