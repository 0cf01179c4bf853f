"""Comparing everything that both stores hold, both ways, tombstones included; what differs is repaired."""

from conversations.history import repair
from conversations.history.walk import Walk, differing


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
        self.repaired += repair.now_or_later(differing(page))
        return False
