"""The operators' lease: one change at a time, since two at once would undo each other's checks."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from conversations.errors import StoreUnavailable
from conversations.stores import ALIASES, store
from conversations.stores.control import OPERATORS
from ops.errors import Busy

SECONDS = 10.0


@contextmanager
def held(by: str) -> Iterator[None]:
    """Hold the lease, in every store that can be reached, and renew it meanwhile; raise Busy when another has it, with
    nothing taken. `by` says who it is, and is what others are told."""
    where: list[str] = []
    stop = threading.Event()

    def renew() -> None:
        while not stop.wait(SECONDS / 3):
            for alias in where:
                _lease(alias, by, SECONDS)

    renewing = threading.Thread(target=renew, name="lease", daemon=True)
    try:
        for alias in ALIASES:
            if _take(alias, by):
                where.append(alias)
        renewing.start()
        yield
    finally:
        stop.set()
        if renewing.ident:
            renewing.join()
        for alias in where:
            with suppress(StoreUnavailable):
                store(alias).release(OPERATORS, by)


def holder() -> str | None:
    """Return who holds it, None where nobody does, or no store can be asked."""
    for alias in ALIASES:
        with suppress(StoreUnavailable):
            if found := store(alias).holder(OPERATORS):
                return found
    return None


def _take(alias: str, by: str) -> bool:
    """Return whether the store grants the lease; raise Busy when another holder has it."""
    taken = _lease(alias, by, SECONDS)
    if taken is False:
        raise Busy(holder())
    return bool(taken)


def _lease(alias: str, by: str, seconds: float) -> bool | None:
    """Return whether the store gives the lease, None when it is out."""
    try:
        return store(alias).lease(OPERATORS, by, seconds)
    except StoreUnavailable:
        return None
