"""Log lines as JSON with an `event`: no words of a conversation, no password, sessions only as a keyed hash."""

import logging
import traceback
from typing import Any

from django.conf import settings
from django.utils.crypto import salted_hmac
from pythonjsonlogger.orjson import OrjsonFormatter

from telemetry.escaping import visible


class JsonFormatter(OrjsonFormatter):
    """One line of JSON for each record: time, level, logger, event, and the fields of the event."""

    def __init__(self) -> None:
        super().__init__(
            "{levelname}{name}{message}",
            style="{",
            rename_fields={"levelname": "level", "name": "logger", "message": "event"},
            timestamp="at",
        )

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, in which no quoted character can control a terminal."""
        return visible(super().format(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802  (logging's name)
        """Return the place and the class of the exception without its message, which may quote a conversation."""
        kind, _, where = ei
        frames = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(where)]
        return "\n".join([*frames, kind.__name__ if kind else ""])


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


def event(logger: logging.Logger, level: int, name: str, **fields: Any) -> None:
    """Log an event with its fields."""
    logger.log(level, name, extra=fields)


def hashed(session: str) -> str:
    """Return the pseudonym of a session in the log: always the same, and not reversible."""
    return salted_hmac("onesource.logs", session, algorithm="sha256").hexdigest()[:16] if settings.SECRET_KEY else ""
