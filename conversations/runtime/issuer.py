"""The keys of OIDC_ISSUER: every process fetches them beside its requests, and keeps them in its memory.

So a request waits for the issuer never, and whoever sends tokens of unknown keys makes it be asked once in a few
seconds at most. While the issuer is out the keys that are known go on being used, for a day. They are kept in VAR_DIR
too, for a process that starts meanwhile.
"""

import asyncio
import logging
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from django.conf import settings

from conversations import clock, oidc
from conversations.addresses import is_private
from conversations.errors import NoIssuerKeys
from conversations.tokens import BadToken, Claims, UnknownKey
from telemetry import metrics
from telemetry.logs import event

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
"""How often it is looked whether the keys are to be fetched."""
EVERY = 300.0  # seconds until they are fetched again: so long a key that the issuer took away is still accepted
AGAIN = 10.0  # seconds until that is tried again after a failure, or for a key that is not known
KEPT_SECONDS = 86_400.0  # for which they are used while they cannot be fetched
FETCH_SECONDS = 5.0
MOST_BYTES = 262_144
FILE = "issuer_keys"
_DISCOVERY = "/.well-known/openid-configuration"


class NotFetched(Exception):
    """The issuer's keys could not be fetched."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """Keys, and when they were fetched, in Unix time."""

    keys: oidc.Keys = field(default_factory=dict)
    at: float = 0.0

    @property
    def usable(self) -> bool:
        return clock.timestamp() - self.at < KEPT_SECONDS


_fetched = Fetched()
_tried_at: float | None = None
_failing = False
_missing = False
"""Whether a token came whose key is not known."""


def read(token: str) -> Claims:
    """Return what the issuer's token says, without asking anybody; raise BadToken, or NoIssuerKeys where that is not
    known without its keys."""
    global _missing
    if not settings.OIDC_ISSUER:
        raise BadToken
    kid, fetched = oidc.key_id(token), _fetched
    if not fetched.usable:
        raise NoIssuerKeys
    key = fetched.keys.get(kid)
    if key is None:
        _missing = True
        raise UnknownKey
    return oidc.read(token, key)


def follow() -> None:
    """Fetch the keys where they are due, or where one is missing."""
    global _fetched, _tried_at, _failing, _missing
    rest = AGAIN if _failing or _missing else EVERY
    if _tried_at is not None and time.monotonic() < _tried_at + rest:
        return
    _tried_at, _missing = time.monotonic(), False
    try:
        document = asyncio.run(_fetch())
        keys = oidc.keys_in(document)
        if not keys:
            raise NotFetched("there is no usable key in what came")
    except NotFetched as error:
        metrics.issuer_fetches.labels(outcome="failed").inc()
        if not _failing:
            event(logger, logging.ERROR, "issuer_keys_not_fetched", problem=str(error))
        _failing = True
        return
    if _failing or keys.keys() != _fetched.keys.keys():
        event(logger, logging.INFO, "issuer_keys_fetched", keys=len(keys))
    metrics.issuer_fetches.labels(outcome="fetched").inc()
    _fetched, _failing = Fetched(keys, clock.timestamp()), False
    _write(document)


def restore() -> None:
    """Know the keys that another process of this machine has fetched."""
    global _fetched
    try:
        kept = orjson.loads(_file().read_bytes())
        at = min(float(kept["at"]), clock.timestamp())  # a later one was written with a clock that was wrong
        if kept["source"] == _source():
            _fetched = Fetched(oidc.keys_in(kept["document"]), at)
    except FileNotFoundError:
        return
    except (OSError, ValueError, TypeError, KeyError) as error:
        event(logger, logging.ERROR, "issuer_keys_unreadable", error=type(error).__name__)


def forget() -> None:
    """Know nothing, as a process does that has just started."""
    global _fetched, _tried_at, _failing, _missing
    _fetched, _tried_at, _failing, _missing = Fetched(), None, False, False


async def _fetch() -> Any:
    """Return the issuer's JWKS; raise NotFetched. However slowly it comes, it ends in FETCH_SECONDS; where the machine
    takes longer to look up the host, the next fetch waits for that."""
    import httpx  # here: it takes a while, and most services have no issuer

    try:
        async with asyncio.timeout(FETCH_SECONDS), httpx.AsyncClient(timeout=FETCH_SECONDS) as client:
            return await _json(client, settings.OIDC_JWKS_URL or await _discovered(client))
    except (TimeoutError, httpx.TimeoutException):
        raise NotFetched(f"it took longer than {FETCH_SECONDS:.0f} seconds") from None
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise NotFetched(type(error).__name__) from error


async def _discovered(client: Any) -> str:
    """Return the address of the JWKS, from the issuer's own description."""
    found = await _json(client, settings.OIDC_ISSUER.rstrip("/") + _DISCOVERY)
    if not isinstance(found, dict) or found.get("issuer") != settings.OIDC_ISSUER:
        raise NotFetched("the description is of another issuer")
    url = found.get("jwks_uri")
    if not isinstance(url, str) or not is_private(url):
        raise NotFetched("jwks_uri is neither https nor on this machine")
    return url


async def _json(client: Any, url: str) -> Any:
    body = b""
    async with client.stream(
        "GET", url, headers={"Accept": "application/json", "Accept-Encoding": "identity"}
    ) as answer:
        if answer.status_code != 200:
            raise NotFetched(f"status {answer.status_code}")
        async for piece in answer.aiter_raw():
            body += piece
            if len(body) > MOST_BYTES:
                raise NotFetched(f"it has more than {MOST_BYTES} bytes")
    try:
        return orjson.loads(body)
    except ValueError:
        raise NotFetched("it is no JSON") from None


def _source() -> list[str]:
    return [settings.OIDC_ISSUER, settings.OIDC_JWKS_URL]


def _file() -> Path:
    return Path(settings.VAR_DIR) / "run" / FILE


def _write(document: Any) -> None:
    draft = _file().with_name(f"{FILE}.{os.getpid()}")
    try:
        _file().parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft.write_bytes(orjson.dumps({"source": _source(), "at": _fetched.at, "document": document}))
        draft.replace(_file())
    except OSError as error:  # a full disk must not stop what follows: the keys are known
        event(logger, logging.ERROR, "issuer_keys_not_kept", error=type(error).__name__)
