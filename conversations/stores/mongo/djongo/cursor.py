"""djongo's cursor, with the driver's errors."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from djongo import cursor
from pymongo.errors import PyMongoError


class Cursor(cursor.Cursor):
    """Raises the driver's error where that is why djongo fails: of djongo's own, none has a message."""

    def execute(self, sql: str, params: Any = None) -> None:
        with _driver_errors():
            super().execute(sql, params)

    def fetchone(self) -> Any:
        with _driver_errors():
            return super().fetchone()

    def fetchmany(self, size: int = 1) -> Any:
        with _driver_errors():
            return super().fetchmany(size)

    def fetchall(self) -> Any:
        with _driver_errors():
            return super().fetchall()


@contextmanager
def _driver_errors() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause and not isinstance(cause, PyMongoError):
            cause = cause.__cause__
        if cause is None:
            raise
        raise cause from cause.__cause__
