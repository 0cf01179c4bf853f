"""What work on many conversations at once needs of this process."""

import gc
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

Advance = Callable[[int, int], None]
"""Called with how much is done, and of how much."""


def collect_seldom() -> None:
    """Have this process look for garbage in cycles seldom: work on many conversations makes millions of objects and
    hardly a cycle, and looking among them took an eighth of its time."""
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)


def prefetched(items: Iterator[T]) -> Generator[T]:
    """Yield the items, each fetched while the one before it is used; raise what fetching raises."""
    with ThreadPoolExecutor(1) as worker:
        coming = worker.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = worker.submit(next, items, None)
            yield item
