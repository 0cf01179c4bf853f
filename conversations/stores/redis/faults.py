"""Every way in which Redis' drivers report a fault, as StoreUnavailable."""

from collections.abc import Iterator
from contextlib import contextmanager

from django_redis.exceptions import ConnectionInterrupted
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    MaxConnectionsError,
    RedisClusterException,
    RedisError,
    ResponseError,
)
from redis.sentinel import MasterNotFoundError

from conversations.errors import CorruptHistory, StoreUnavailable

FAULTS = (ConnectionInterrupted, RedisError, RedisClusterException)
_NOT_DONE = (ResponseError, AuthenticationError, AuthorizationError, MaxConnectionsError, MasterNotFoundError)
_NOT_SENT = ("connecting to", "No connection available")  # no connection was made, or the pool had none left


@contextmanager
def as_unavailable(alias: str) -> Iterator[None]:
    """Raise StoreUnavailable for a driver's error."""
    try:
        yield
    except FAULTS as error:
        raise unavailable(alias, error) from error


class as_unavailable_or_corrupt:  # noqa: N801  (used as a function; a turn pays for a generator)
    """Raise StoreUnavailable for a driver's error, or CorruptHistory where something in the way of a command is none
    of ours."""

    __slots__ = ("_alias",)

    def __init__(self, alias: str) -> None:
        self._alias = alias

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, FAULTS):
            return
        cause = cause_of(error)
        # In a pipeline the driver puts the command before the server's words.
        if isinstance(cause, ResponseError) and any(word in str(cause) for word in ("CORRUPT", "WRONGTYPE")):
            raise CorruptHistory(self._alias, type(cause).__name__) from error
        raise unavailable(self._alias, error) from error


def unavailable(alias: str, error: Exception) -> StoreUnavailable:
    """Return a driver's error as one of ours."""
    cause = cause_of(error)
    return StoreUnavailable(alias, type(cause).__name__, unknown=not _is_certain(cause))


def cause_of(error: BaseException) -> BaseException:
    """Return Redis' own error where it is inside one of django-redis."""
    return (isinstance(error, ConnectionInterrupted) and error.__cause__) or error


def _is_certain(error: BaseException) -> bool:
    """Return whether the error shows that nothing was done: it is the server's answer, or nothing was sent."""
    answered = isinstance(error, _NOT_DONE) or getattr(error, "status_code", None) is not None
    return answered or any(words in str(error) for words in _NOT_SENT)
