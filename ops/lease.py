"""The operators' lease: one change at a time, since two at once would undo each other's checks."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from conversations.errors import StoreUnavailable
from conversations.stores import ALIASES, store
from conversations.stores.control import OPERATORS
from ops.errors import Busy

SECONDS = 10.0


@contextmanager
def held(holder: str) -> Iterator[None]:
    """Hold the lease, in every store that can be reached, and renew it meanwhile; raise Busy when another has it."""
    where: list[str] = []
    stop = threading.Event()

    def renew() -> None:
        while not stop.wait(SECONDS / 3):
            for alias in where:
                _lease(alias, holder, SECONDS)

    renewing = threading.Thread(target=renew, name="lease", daemon=True)
    try:
        for alias in ALIASES:
            if _take(alias, holder):
                where.append(alias)
        renewing.start()
        yield
    finally:
        stop.set()
        if renewing.ident:
            renewing.join()
        for alias in where:
            _lease(alias, holder, 0.001)


def _take(alias: str, holder: str) -> bool:
    """Return whether the store grants the lease; raise Busy when another holder has it."""
    taken = _lease(alias, holder, SECONDS)
    if taken is False:
        raise Busy
    return bool(taken)


def _lease(alias: str, holder: str, seconds: float) -> bool | None:
    """Return whether the store gives the lease, None when it is out."""
    try:
        return store(alias).lease(OPERATORS, holder, seconds)
    except StoreUnavailable:
        return None
