"""Comparing everything that both stores hold, both ways, tombstones included; what differs is repaired."""

from collections.abc import Mapping

from conversations.history import repair, trimmed
from conversations.history.walk import Digests, Walk, differing
from conversations.stores import ALIASES


class Sweep:
    """One pass over all conversations, in steps."""

    def __init__(self) -> None:
        self.repaired = 0
        self._walk = Walk()

    @property
    def compared(self) -> int:
        return self._walk.seen

    def step(self) -> bool:
        """Compare one page, and repair what differs in it; return whether all has been compared. Raise
        StoreUnavailable: the pass is then to be begun again, since the page was left out."""
        page = self._walk.page()
        if page is None:
            return True
        found = differing(page)
        self.repaired += repair.now_or_later(found.keys() - _trimmed(found))
        return False


def _trimmed(found: Mapping[str, Digests]) -> set[str]:
    """Return those that were removed from one store alone: what was to make room is not copied back."""
    return set().union(
        *(
            trimmed.removed_from(alias, [session for session, digests in found.items() if digests[place] is None])
            for place, alias in enumerate(ALIASES)
        )
    )
