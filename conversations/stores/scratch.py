"""Scratch: room in a server of our own, in which something can be tried out."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from conversations.errors import StoreUnavailable
from conversations.stores.base import HistoryStore
from conversations.stores.bulk import BulkStore
from conversations.turns import Limits

UNLIMITED = Limits(ttl=2**31, max_turns=2**31, max_bytes=2**40)


@dataclass(frozen=True, slots=True)
class Scratch:
    """Room in which conversations can be put and read in bulk."""

    bulk: BulkStore
    clear: Callable[[], None]
    """Removes all that is in it; raises StoreUnavailable."""


class Unused(HistoryStore):
    """The store beneath that bulk store. It is without limits, and refuses every call: none may reach the store of the
    service, and one is made only where something is in the way of what is put."""

    def __init__(self, alias: str) -> None:
        super().__init__(alias, UNLIMITED)

    def _refuse(self, *arguments: Any, **options: Any) -> Any:
        raise StoreUnavailable(self.alias, "not empty")

    load = inspect = _append = keep_keys = delete = ttl = _scan = _newest = count = summaries = _refuse
    quarantine = ping = _refuse
