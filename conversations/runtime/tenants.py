"""Tenants that have reached TENANT_MAX_BYTES, or are near it: every process knows them, in its memory.

A walk over the conversations counts them (background/tenants.py) and notes the result in both stores. So what is known
is a few minutes old, and no request asks a store for it.
"""

import logging
from contextlib import suppress
from dataclasses import dataclass, field

import orjson
from django.conf import settings

from conversations import clock
from conversations.errors import StoreUnavailable, TenantFull
from conversations.stores import ALIASES, control, write_note
from conversations.turns import SESSION_ID
from telemetry import metrics
from telemetry.logs import event

logger = logging.getLogger(__name__)

NOTE = "tenants"
"""The name of the note, in each store, with the result of the newest walk."""
EVERY = 5.0  # seconds between two looks at it
NEAR = 0.8  # of the limit
MOST = 1000  # tenants that are noted: the largest ones
_COUNTS = 3600.0  # seconds after which a result counts no more: what was deleted since is in none


@dataclass(frozen=True, slots=True)
class Use:
    """How much the tenants had that were near the limit, when a walk ended."""

    at: float = 0.0
    """Unix time; 0.0 for never."""
    bytes: dict[str, int] = field(default_factory=dict)
    """Of each tenant; the largest first. "" are the conversations of none."""

    @property
    def full(self) -> frozenset[str]:
        limit = settings.TENANT_MAX_BYTES
        return frozenset(tenant for tenant, size in self.bytes.items() if limit and size >= limit)


_full: frozenset[str] = frozenset()


def check(tenant: str) -> None:
    """Raise TenantFull where the tenant is known to have reached the limit."""
    if tenant in _full:
        metrics.requests_limited.labels(limit="tenant").inc()
        raise TenantFull


def follow() -> None:
    """Know what is noted from now on."""
    if settings.TENANT_MAX_BYTES:
        know(newest())


def know(use: Use | None) -> None:
    """Refuse these tenants from now on; none where the result is old. None is that of two stores that are out: what is
    known stays."""
    global _full
    if use is None:
        return
    counts = clock.timestamp() - use.at < _COUNTS
    _full = use.full if counts else frozenset()
    metrics.tenants_full.set(len(_full))
    metrics.tenants_near.set(len(use.bytes) if counts else 0)


def newest() -> Use | None:
    """Return the newest result that is noted in a store, None where neither can be asked."""
    found = []
    for alias in ALIASES:
        with suppress(StoreUnavailable):
            found.append(_parsed(control(alias).note(NOTE)))
    return max(found, key=lambda use: use.at, default=None)


def note(sizes: dict[str, int]) -> Use:
    """Note those of the tenants that are near the limit, for every process; return them."""
    near = sorted((-size, tenant) for tenant, size in sizes.items() if size >= NEAR * settings.TENANT_MAX_BYTES)
    use = Use(clock.timestamp(), {tenant: -size for size, tenant in near[:MOST]})
    write_note(NOTE, orjson.dumps({"at": use.at, "bytes": use.bytes}).decode())
    event(logger, logging.INFO, "tenants_counted", tenants=len(sizes), near=len(near), full=len(use.full))
    return use


def _parsed(text: str | None) -> Use:
    """Return what is noted; nothing where another program wrote it."""
    try:
        found = orjson.loads(text or "{}")
        sizes = {name: int(size) for name, size in found["bytes"].items() if not name or SESSION_ID.fullmatch(name)}
        return Use(float(found["at"]), sizes)
    except (ValueError, TypeError, KeyError, AttributeError):
        return Use()
