"""One walk over everything that both stores hold, tombstones included, and the comparison of it by digest."""

import time
from collections.abc import Collection, Iterator
from itertools import chain

from conversations.stores import ALIASES, bulk
from conversations.stores.seen import Seen
from conversations.turns import SESSION

PAGE = 200
LOOK_SECONDS = 0.2
MOST_SEEN = 500_000  # conversations of which it is known that they were compared, in 50 MB; others are compared twice

Digests = tuple[bytes | None, ...]
"""Those of one conversation, by the order of ALIASES."""


class Walk:
    """Every conversation that was there throughout, by the page."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self.seen = 0
        """How many conversations the pages so far had."""
        self._known = Seen(MOST_SEEN)
        self._pages = chain.from_iterable(self._pages_of(alias) for alias in ALIASES)

    def page(self) -> list[str] | None:
        """Return sessions of which no page had any yet, None at the end; none where a part of a second did not find
        any. Raise StoreUnavailable: it has then begun anew, since a page was left out."""
        until = time.monotonic() + LOOK_SECONDS
        try:
            page = next(self._pages, None)
            while page == [] and time.monotonic() < until:
                page = next(self._pages, None)
        except BaseException:
            self._begin()
            raise
        self.seen += len(page or ())
        return page

    def _pages_of(self, alias: str) -> Iterator[list[str]]:
        one = bulk(alias)
        for names in chain(one.sessions(PAGE), one.tombstones(PAGE)):
            page = self._known.new(name.encode() for name in names if SESSION.fullmatch(name))
            yield [name.decode() for name in page]


def differing(sessions: Collection[str]) -> dict[str, Digests]:
    """Return the digests of those conversations that are not the same in both stores. Raise StoreUnavailable."""
    if not sessions:
        return {}
    found = [bulk(alias).digests(sessions) for alias in ALIASES]
    digests = {session: tuple(each.get(session) for each in found) for session in sessions}
    return {session: each for session, each in digests.items() if len(set(each)) > 1}
