"""Comparing everything that both stores hold, both ways, tombstones included; what differs is repaired."""

from collections.abc import Iterator
from itertools import chain

from conversations.history import repair
from conversations.stores import ALIASES, bulk, store
from conversations.stores.bulk import batches
from conversations.turns import SESSION

PAGE = 200


class Sweep:
    """One pass over all conversations, in steps."""

    def __init__(self) -> None:
        self.compared = 0
        self.repaired = 0
        self._pages = _pages()

    def step(self) -> bool:
        """Compare one page, and repair what differs in it; return whether all has been compared. Raise
        StoreUnavailable: the pass is then to be begun again, since the page was left out."""
        page = next(self._pages, None)
        if page is None:
            return True
        ours, theirs = (bulk(alias).digests(page) for alias in ALIASES)
        differing = [session for session in page if ours.get(session) != theirs.get(session)]
        for batch in batches(differing, repair.BATCH):
            self.repaired += repair.several(batch)
        for session in filter(repair.waits, differing):
            _flag(session)
        self.compared += len(page)
        return False


def _flag(session: str) -> None:
    """Have a conversation that could not be repaired be repaired later."""
    for alias in ALIASES:
        store(alias).append(session, None, flag=True)


def _pages() -> Iterator[list[str]]:
    for alias in ALIASES:
        one = bulk(alias)
        for names in chain(one.sessions(PAGE), batches(_deleted(alias), PAGE)):
            yield [name for name in names if SESSION.fullmatch(name)]


def _deleted(alias: str) -> Iterator[str]:
    return (session for session, _ in bulk(alias).tombstones())
