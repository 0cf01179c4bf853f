"""Calls of both stores at the same time: they take as long as the slower one, not as long as both."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from functools import partial
from threading import Event
from typing import TypeVar

from django.conf import settings

from conversations.slots import slots

T = TypeVar("T")

# A thread for each request that waits for a store: with fewer, a slow store would keep turns from the other one.
_executor = ThreadPoolExecutor(max_workers=settings.WEB_THREADS, thread_name_prefix="store")


def at_once(calls: Sequence[Callable[[], T]]) -> list[T]:
    """Return what each call returns, when all have ended; raise what the first of them raised. The first is made in
    this thread; the others count against the same deadline, and need a slot where this thread has one."""
    if len(calls) == 1:
        return [calls[0]()]
    first, *others = calls
    futures = [_begun(partial(_with_slot, call) if slots.held else call) for call in others]
    try:
        found = first()
    finally:
        with slots.lent():
            wait(futures)
    return [found, *(future.result() for future in futures)]


def _with_slot(call: Callable[[], T]) -> T:
    with slots.taken(first=True):
        return call()


def _begun(call: Callable[[], T]) -> "Future[T]":
    """Begin the call in another thread, or make it in this one where none can be started."""
    withdrawn = Event()
    try:
        return _executor.submit(copy_context().run, lambda: None if withdrawn.is_set() else call())  # type: ignore[arg-type]
    except RuntimeError:  # the executor keeps what it could not start a thread for
        withdrawn.set()
        made: Future[T] = Future()
        try:
            made.set_result(call())
        except Exception as error:
            made.set_exception(error)
        return made
