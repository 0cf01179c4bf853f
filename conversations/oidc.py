"""Tokens of an OpenID Connect issuer: what one says, checked with one of the issuer's keys. Nobody is asked anything.

Such a token is a JWT, signed with a private key that only the issuer has. Which algorithms may verify it depends on the
issuer's key alone: what a token says of itself can neither choose another kind, nor none.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from django.conf import settings

from conversations.tokens import SCOPES, BadToken, Claims, ExpiredToken
from conversations.turns import SESSION_ID

LEEWAY = 30  # seconds by which the issuer's clock may differ
OWN_TENANT = "oidc-"
"""How the tenant begins that a subject has for itself. No claim can name such a one."""
_MOST_CHARACTERS = 8192  # of a token
_MOST_KEYS = 100
_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_RSA_BITS = range(2048, 8193)
_ALGORITHMS = {
    ("RSA", None): _RSA,
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("OKP", "Ed25519"): ("EdDSA",),
}
"""Which algorithms a key of a type and curve can verify: none with a secret that both sides know."""
_REQUIRED = ["iss", "aud", "exp", "iat", "sub"]


@dataclass(frozen=True, slots=True)
class Key:
    """A public key of the issuer."""

    public: Any
    algorithms: tuple[str, ...]


Keys = dict[str, Key]
"""The issuer's keys by their ids."""


def keys_in(document: Any) -> Keys:
    """Return the usable keys of a JWKS. Those without an id, of other kinds, too weak, or not for signing are left out;
    so are those that share an id: which of them is meant could only be tried."""
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        return {}
    entries = [each for each in entries[:_MOST_KEYS] if isinstance(each, dict) and isinstance(each.get("kid"), str)]
    ids = [each["kid"] for each in entries]
    found = {each["kid"]: _key(each) for each in entries if ids.count(each["kid"]) == 1}
    return {kid: key for kid, key in found.items() if key}


def _key(entry: dict[str, Any]) -> Key | None:
    kind, curve = entry.get("kty"), entry.get("crv")
    if not isinstance(kind, str) or not isinstance(curve, str | None) or entry.get("use", "sig") != "sig":
        return None
    algorithms = _ALGORITHMS.get((kind, curve), ())
    if "alg" in entry:
        algorithms = tuple(each for each in algorithms if each == entry["alg"])
    if not algorithms or "d" in entry:  # "d" makes it a private key, which everybody can read there
        return None
    try:
        public = jwt.PyJWK(entry, algorithms[0]).key
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    if isinstance(public, RSAPublicKey) and public.key_size not in _RSA_BITS:
        return None
    return Key(public, algorithms)


def key_id(token: str) -> str:
    """Return the id of the key that the token says it is signed with; raise BadToken on what is no JWT with one."""
    if len(token) > _MOST_CHARACTERS:
        raise BadToken
    try:
        found = jwt.get_unverified_header(token).get("kid")
    except jwt.PyJWTError:
        raise BadToken from None
    if not isinstance(found, str):
        raise BadToken
    return found


def read(token: str, key: Key) -> Claims:
    """Return what the token says, checked with the key that it names; raise BadToken."""
    try:
        said = jwt.decode(
            token,
            key.public,
            algorithms=list(key.algorithms),
            audience=settings.OIDC_AUDIENCE,
            issuer=settings.OIDC_ISSUER,
            leeway=LEEWAY,
            options={"require": _REQUIRED},
        )
    except jwt.ExpiredSignatureError:
        raise ExpiredToken from None
    except jwt.PyJWTError:
        raise BadToken from None
    subject = _named_for(said["iss"], said["sub"])
    tenant = _tenant(said[settings.OIDC_TENANT_CLAIM]) if settings.OIDC_TENANT_CLAIM in said else subject
    identity = said.get("jti", "")
    return Claims(
        id=identity if SESSION_ID.fullmatch(identity) else "",
        name=subject,
        tenant=tenant,
        scopes=_scopes(said.get(settings.OIDC_SCOPES_CLAIM, "")),
        until=int(said["exp"]) + LEEWAY,
        key="",
    )


def _named_for(issuer: str, subject: str) -> str:
    """Return a name that no other subject has. It tells nobody who the subject is, whom logs and keys may show."""
    return OWN_TENANT + hashlib.sha256(json.dumps([issuer, subject]).encode()).hexdigest()[:40]


def _tenant(value: Any) -> str:
    if isinstance(value, str) and SESSION_ID.fullmatch(value) and not value.startswith(OWN_TENANT):
        return value
    raise BadToken


def _scopes(value: Any) -> frozenset[str]:
    """Return those of ours: an issuer has scopes for others too."""
    words = value.split() if isinstance(value, str) else value
    if not isinstance(words, list):
        raise BadToken
    return frozenset(scope for scope in SCOPES if scope in words)
