"""Every way in which MongoDB's drivers report a fault, as StoreUnavailable."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import DatabaseError
from pymongo.errors import PyMongoError

from conversations.errors import StoreUnavailable


@contextmanager
def as_unavailable(alias: str) -> Iterator[None]:
    """Raise StoreUnavailable for a driver's error."""
    try:
        yield
    except (DatabaseError, PyMongoError) as error:
        cause = (isinstance(error, DatabaseError) and error.__cause__) or error
        raise StoreUnavailable(alias, type(cause).__name__) from error
