"""Changes that make an ask slower, for tests that the guard notices them."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest.mock import patch


@contextmanager
def validated() -> Iterator[None]:
    """Check every character of each history that is read."""
    from conversations.history.reading import Look

    load = Look._load

    def checked(self: Look, alias: str) -> Any:
        return load(self, alias).validated()

    with patch.object(Look, "_load", checked):
        yield


@contextmanager
def validated_in_one_call() -> Iterator[None]:
    """The same as a single call in C would do it."""
    import re

    from conversations.history.reading import Look

    load = Look._load
    match = re.compile(rb"(?:[^\n]*\n)*").fullmatch

    def checked(self: Look, alias: str) -> Any:
        contents = load(self, alias)
        assert contents.history and match(contents.history.lines())
        return contents

    with patch.object(Look, "_load", checked):
        yield


@contextmanager
def decoded_twice() -> Iterator[None]:
    """Decode the messages once more than needed."""
    from conversations import turns

    decode = turns._decode

    def twice(text: bytes) -> Any:
        decode(text)
        return decode(text)

    with patch.object(turns, "_decode", twice):
        yield


@contextmanager
def copied_serializer() -> Iterator[None]:
    """Give each request a serializer, which copies all its fields."""
    from conversations.api import input_serializers

    with patch.object(input_serializers, "_is_surely_valid", lambda data: False):
        yield


@contextmanager
def one_more_round_trip() -> Iterator[None]:
    """Ask the store for a conversation's time to live with each turn."""
    from conversations.history.reading import Look
    from conversations.stores import store

    load = Look._load

    def asked(self: Look, alias: str) -> Any:
        store(alias).ttl(self.session)
        return load(self, alias)

    with patch.object(Look, "_load", asked):
        yield


@contextmanager
def ten_more_metrics() -> Iterator[None]:
    """Count each turn ten times more."""
    from conversations.history.reading import Look
    from telemetry import metrics

    load = Look._load

    def counted(self: Look, alias: str) -> Any:
        for _ in range(10):
            metrics.reads.labels(store=alias, outcome="hit").inc()
        return load(self, alias)

    with patch.object(Look, "_load", counted):
        yield


CHANGES: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "every history validated": validated,
    "every history validated, in one call": validated_in_one_call,
    "messages decoded twice": decoded_twice,
    "a serializer copied for each request": copied_serializer,
    "one more round trip": one_more_round_trip,
    "ten more metrics": ten_more_metrics,
}
