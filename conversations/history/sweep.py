"""Comparing everything that both stores hold, both ways, tombstones included; what differs is repaired."""

from collections.abc import Iterator
from itertools import chain

from conversations.history import repair
from conversations.stores import ALIASES, bulk, store
from conversations.stores.bulk import batches
from conversations.stores.seen import Seen
from conversations.turns import SESSION

PAGE = 200
MOST_SEEN = 500_000  # conversations of which it is known that they were compared, in 50 MB; others are compared twice


class Sweep:
    """One pass over all conversations, in steps."""

    def __init__(self) -> None:
        self.compared = 0
        self.repaired = 0
        self._seen = Seen(MOST_SEEN)
        self._pages = chain.from_iterable(self._pages_of(alias) for alias in ALIASES)

    def step(self) -> bool:
        """Compare one page, and repair what differs in it; return whether all has been compared. Raise
        StoreUnavailable: the pass is then to be begun again, since the page was left out."""
        page = next(self._pages, None)
        if page is None:
            return True
        ours, theirs = (bulk(alias).digests(page) for alias in ALIASES)
        differing = [session for session in page if ours.get(session) != theirs.get(session)]
        due = (session for session in differing if not repair.waits(session))
        self.repaired += sum(map(repair.several, batches(due, repair.BATCH)))
        for session in filter(repair.waits, differing):
            _flag(session)
        self.compared += len(page)
        return False

    def _pages_of(self, alias: str) -> Iterator[list[str]]:
        """Yield the sessions of a store of which nothing has been compared yet."""
        one = bulk(alias)
        for names in chain(one.sessions(PAGE), batches(_deleted(alias), PAGE)):
            page = self._seen.new(name.encode() for name in names if SESSION.fullmatch(name))
            if page:
                yield [name.decode() for name in page]


def _flag(session: str) -> None:
    """Have a conversation that could not be repaired be repaired later."""
    for alias in ALIASES:
        store(alias).append(session, None, flag=True)


def _deleted(alias: str) -> Iterator[str]:
    return (session for session, _ in bulk(alias).tombstones())
