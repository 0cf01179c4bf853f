"""Every way in which Redis' drivers report a fault, as StoreUnavailable."""

from collections.abc import Iterator
from contextlib import contextmanager

from django_redis.exceptions import ConnectionInterrupted
from redis.exceptions import RedisClusterException, RedisError

from conversations.errors import StoreUnavailable


@contextmanager
def as_unavailable(alias: str) -> Iterator[None]:
    """Raise StoreUnavailable for a driver's error."""
    try:
        yield
    except (ConnectionInterrupted, RedisError, RedisClusterException) as error:
        cause = (isinstance(error, ConnectionInterrupted) and error.__cause__) or error
        raise StoreUnavailable(alias, type(cause).__name__) from error
