"""The id of the request that is handled: in its response's header, in each log line and in the body of an error.

It is kept in the context, of which each request in the server has its own. A thread that a request starts copies it.
"""

import re
import secrets
from collections.abc import Iterable
from contextvars import ContextVar

HEADER = "X-Request-ID"
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_current: ContextVar[str] = ContextVar("request_id", default="")

current = _current.get
"""Return the id of this request, "" where there is none."""


def sent(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return what a client sent as the id of its request; with two such headers that is no id."""
    return ",".join(value.decode("latin-1") for name, value in headers if name == b"x-request-id")


def chosen(given: str) -> str:
    """Return the id that the client sent, a new one where it sent none or something else."""
    return given if _ID.fullmatch(given) else secrets.token_hex(16)


def begin(given: str) -> str:
    """Return the id of the request that begins now, and keep it in the context."""
    found = chosen(given)
    _current.set(found)
    return found
