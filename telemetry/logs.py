"""Log lines as JSON with an `event`: no words of a conversation, no password, sessions only as a keyed hash."""

import hashlib
import logging
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import orjson
from django.conf import settings

from telemetry import request_id
from telemetry.escaping import visible

# No line has the names of the thread and the process, which are looked for with each record.
logging.logThreads = logging.logMultiprocessing = False
_OF_EVERY_RECORD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


class JsonFormatter(logging.Formatter):
    """One line of JSON for each record: time, level, logger, event, and the fields of the event."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, in which no quoted character can control a terminal."""
        line: dict[str, Any] = {"level": record.levelname, "logger": record.name, "event": record.getMessage()}
        if record.exc_info or record.exc_text:
            line["exc_info"] = self.formatException(record.exc_info) if record.exc_info else record.exc_text
        if record.stack_info:
            line["stack_info"] = self.formatStack(record.stack_info)
        for name, value in vars(record).items():
            if name not in _OF_EVERY_RECORD and not name.startswith("_"):
                line[name] = value
        line["at"] = datetime.fromtimestamp(record.created, UTC)
        return visible(orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS).decode())

    def formatException(self, ei: Any) -> str:  # noqa: N802  (logging's name)
        """Return the place and the class of the exception without its message, which may quote a conversation."""
        kind, _, where = ei
        frames = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(where)]
        return "\n".join([*frames, kind.__name__ if kind else ""])


class TextFormatter(JsonFormatter):
    """One line in words for each record: time, level, event, and the fields of the event."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, with the lines of an exception after it."""
        at = datetime.fromtimestamp(record.created).astimezone()
        words = [f"{at:%H:%M:%S}", record.levelname, record.getMessage()]
        words += [f"{name}={value}" for name, value in vars(record).items() if name not in _OF_EVERY_RECORD]
        exception = f"\n{self.formatException(record.exc_info)}" if record.exc_info else ""
        return visible(" ".join(words) + exception)


class NoPaths(logging.Filter):
    """Replaces the address of a failed request, which contains the session, by its route."""

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith(("django.request", "django.security")):
            return True
        request = record.__dict__.pop("request", None)
        match = getattr(request, "resolver_match", None)
        record.msg, record.args = "http_error", ()
        record.method = getattr(request, "method", None)
        record.route = match.route if match else None
        return True


class OfRequest(logging.Filter):
    """Gives each record that is written during a request the id of the request."""

    def filter(self, record: logging.LogRecord) -> bool:
        if found := request_id.current():
            record.request = found
        return True


def event(logger: logging.Logger, level: int, name: str, **fields: Any) -> None:
    """Log an event with its fields. The line of code is not looked for: no log line has it."""
    if logger.isEnabledFor(level):
        logger.handle(logger.makeRecord(logger.name, level, "", 0, name, (), None, extra=fields))


@contextmanager
def held_back() -> Iterator[None]:
    """Write the log lines of the block after it: somebody is asked something meanwhile."""
    kept: list[tuple[logging.Handler, logging.LogRecord]] = []

    def keeping(handler: logging.Handler) -> Callable[[logging.LogRecord], bool]:
        def keep(record: logging.LogRecord) -> bool:
            kept.append((handler, record))
            return False

        return keep

    filters = [(handler, keeping(handler)) for handler in logging.getLogger().handlers]
    for handler, each in filters:
        handler.addFilter(each)
    try:
        yield
    finally:
        for handler, each in filters:
            handler.removeFilter(each)
        for handler, record in kept:  # which passed the other filters
            with handler.lock or nullcontext():
                handler.emit(record)


def hashed(session: str) -> str:
    """Return the pseudonym of a session in the log: always the same, and not reversible."""
    if not settings.SECRET_KEY:
        return ""
    return hashlib.blake2b(session.encode(), digest_size=8, key=_key(settings.SECRET_KEY)).hexdigest()


@lru_cache(maxsize=1)
def _key(secret: str) -> bytes:
    return hashlib.sha256(f"onesource.logs{secret}".encode()).digest()
