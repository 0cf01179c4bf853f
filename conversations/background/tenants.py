"""Counts what each tenant has stored, where TENANT_MAX_BYTES is set: a slow walk over all conversations of one store.

One process at a time does it, one that answers no chat: the lease is in the store that is walked over, which is the one
that answers first, or the other while that is out.
"""

import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from django.conf import settings

from conversations import clock
from conversations.runtime import tenants
from conversations.runtime.datasets import PROCESS
from conversations.runtime.pings import health
from conversations.runtime.state import state
from conversations.stores import bulk, control
from conversations.stores.sessions import tenant_of
from conversations.turns import SESSION

EVERY = 300.0  # seconds from the end of one walk to the beginning of the next
STEP_SECONDS = 0.2
_PAGE = 200
_LEASE_SECONDS = 10.0


@dataclass
class _Walk:
    alias: str
    pages: Iterator[dict[str, int]]
    sizes: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))


_walk: _Walk | None = None


def step() -> bool:
    """Begin to count, or go on, for a part of a second; return whether there is more to do. Raise StoreUnavailable: the
    walk has then to begin anew."""
    global _walk
    if not settings.TENANT_MAX_BYTES:
        return False
    if _walk is None:
        if not _is_due():
            return False
        alias = next((alias for alias in state().routing.order if health(alias).up), None)
        if alias is None:
            return False
        _walk = _Walk(alias, bulk(alias).all_sizes(_PAGE))
    walk, _walk = _walk, None  # begun anew where anything fails
    if not control(walk.alias).lease(tenants.NOTE, PROCESS, _LEASE_SECONDS):
        return False
    until = time.monotonic() + STEP_SECONDS
    for page in walk.pages:
        for session, size in page.items():
            if SESSION.fullmatch(session):
                walk.sizes[tenant_of(session)] += size
        if time.monotonic() > until:
            _walk = walk
            return True
    tenants.know(tenants.note(walk.sizes))
    return False


def _is_due() -> bool:
    newest = tenants.newest()
    # A time that is yet to come was noted with a clock that was wrong.
    return newest is not None and not 0 <= clock.timestamp() - newest.at < EVERY
