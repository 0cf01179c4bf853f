"""Tokens as operators have them: issued and listed on `default`, and revoked where every process looks."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import DatabaseError

from conversations import tokens
from conversations.clock import now
from conversations.runtime import revoked
from conversations.stores import ALIASES
from conversations.tokens import Claims
from ops import audit
from ops.errors import NoTokenList, NotRevoked, TooManyRevoked
from ops.models import IssuedToken

VALID, EXPIRED, REVOKED, KEYLESS = "valid", "expired", "revoked", "no key"
DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Listed:
    """An issued token, and whether it is good: one whose key is gone is not."""

    token: IssuedToken
    state: str

    def as_dict(self) -> dict[str, Any]:
        one = self.token
        return {
            "id": one.id, "name": one.name, "tenant": one.tenant, "scopes": one.scopes, "key": one.key,
            "created": one.created_at, "until": one.until, "state": self.state, "revoked_at": one.revoked_at,
            "revoked_by": one.revoked_by,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Key:
    """A key, and its tokens that are good."""

    id: str
    there: bool
    """Whether CHAT_KEYS has it."""
    signs: bool
    tokens: int
    last_until: datetime | None
    """When the last of them expires."""


@dataclass(frozen=True, slots=True)
class Revocation:
    """What became of a revocation: it is noted in some places, and not in others."""

    token: IssuedToken | None
    """None where `default` cannot be reached, or does not have it."""
    noted: tuple[str, ...]
    missed: tuple[str, ...]

    @property
    def in_a_store(self) -> bool:
        """Return whether every machine learns of it."""
        return any(alias in self.noted for alias in ALIASES)


def create(name: str, tenant: str | None, scopes: tuple[str, ...], days: int) -> tuple[Claims, str]:
    """Record a new token and return it; raise NoTokenList, and there is none, where `default` cannot record it: what is
    not listed cannot be found to be revoked. Raise ValueError on what no token can say."""
    claims, token = tokens.issue(name, tenant, scopes, days)
    try:
        IssuedToken.objects.create(
            id=claims.id,
            name=claims.name,
            tenant=claims.tenant,
            scopes=tokens.ordered(claims.scopes),
            key=claims.key,
            until=datetime.fromtimestamp(claims.until, UTC),
        )
    except DatabaseError as error:
        raise NoTokenList(type(error).__name__) from error
    return claims, token


def listed() -> list[Listed]:
    """Return every token that was issued, newest first; raise NoTokenList."""
    revoked.look()
    ids, keys, at = revoked.known(), tokens.keys(), now()
    return [Listed(one, _state(one, ids, keys, at)) for one in _issued()]


def keys(listed: Iterable[Listed]) -> list[Key]:
    """Return the keys that there are, and those of tokens that are listed."""
    there = list(tokens.keys())
    good: dict[str, list[datetime]] = {key: [] for key in there}
    for each in listed:
        ends = good.setdefault(each.token.key, [])
        if each.state in (VALID, KEYLESS):
            ends.append(each.token.until)
    return [Key(key, key in there, key == there[0], len(ends), max(ends, default=None)) for key, ends in good.items()]


def revoke(identity: str, by: str = "") -> Revocation:
    """Revoke the token, with all that `default` has as revoked; return where that is noted. Every process that reaches
    one of the stores follows within two seconds. Raise NotRevoked where no place took it, and TooManyRevoked."""
    token, before, reached = _found(identity)
    until = token.until if token else now() + timedelta(days=tokens.MOST_DAYS)
    ids = {identity: int(until.timestamp())} if until > now() else {}  # one that has expired is refused anyway
    revoked.look()
    if revoked.is_full(ids):
        raise TooManyRevoked
    done = revoked.revoke(before | ids)
    done[DEFAULT] = reached and _record(token, by or audit.operator())
    noted = tuple(place for place, took in done.items() if took)
    if not set(noted) - {DEFAULT}:
        raise NotRevoked
    return Revocation(token, noted, tuple(place for place, took in done.items() if not took))


def _state(one: IssuedToken, ids: revoked.Ids, keys: dict[str, str], at: datetime) -> str:
    if one.revoked_at or one.id in ids:
        return REVOKED
    if one.until < at:
        return EXPIRED
    return VALID if one.key in keys else KEYLESS


def _issued() -> list[IssuedToken]:
    try:
        return list(IssuedToken.objects.all())
    except DatabaseError as error:
        raise NoTokenList(type(error).__name__) from error


def _found(identity: str) -> tuple[IssuedToken | None, revoked.Ids, bool]:
    """Return the token, those that are revoked and not expired, and whether `default` could be asked."""
    try:
        token = IssuedToken.objects.filter(pk=identity).first()
        before = IssuedToken.objects.filter(revoked_at__isnull=False, until__gt=now())
        return token, {one.id: int(one.until.timestamp()) for one in before}, True
    except DatabaseError:
        return None, {}, False


def _record(token: IssuedToken | None, by: str) -> bool:
    """Record on `default` that it is revoked; return whether that is so, or there is nothing to record."""
    if token is None or token.revoked_at:
        return True
    token.revoked_at, token.revoked_by = now(), by
    try:
        token.save(update_fields=["revoked_at", "revoked_by"])
    except DatabaseError:
        return False
    return True
