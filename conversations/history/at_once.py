"""Calls of both stores at the same time: they take as long as the slower one, not as long as both."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextvars import copy_context
from typing import TypeVar

from django.conf import settings

from conversations.slots import slots

T = TypeVar("T")

# A thread for each request that waits for a store: with fewer, a slow store would keep turns from the other one.
_executor = ThreadPoolExecutor(max_workers=settings.WEB_THREADS, thread_name_prefix="store")


def at_once(calls: Sequence[Callable[[], T]]) -> list[T]:
    """Return what each call returns, when all have ended; raise what the first of them raised. The first is made in
    this thread; the others count against the same deadline."""
    if len(calls) == 1:
        return [calls[0]()]
    first, *others = calls
    futures = [_executor.submit(copy_context().run, call) for call in others]
    try:
        found = first()
    finally:
        with slots.lent():
            wait(futures)
    return [found, *(future.result() for future in futures)]
