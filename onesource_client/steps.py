"""Requests as steps, without I/O: what is sent, read and waited for, in one place for both clients.

A generator yields a step and is sent its result. `client.py` carries the steps out with httpx' sync client, `aio.py`
with its async one.
"""

import json
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from onesource_client.errors import OnesourceError, Unreachable, error_of
from onesource_client.retries import Attempts

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Send:
    """Send a request; the result is its Reply, or Lost."""

    method: str
    path: str
    body: dict[str, Any] | None = None
    key: str | None = None
    query: dict[str, str] = field(default_factory=dict)
    streams: bool = False
    """Whether the content of a 200 is read with `Read`."""

    @property
    def headers(self) -> dict[str, str]:
        return {"Idempotency-Key": self.key} if self.key else {}


@dataclass(frozen=True, slots=True)
class Read:
    """Read more of the reply; the result is some bytes, b"" at its end, or Lost."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait; the result is None."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Piece:
    """Give this to the caller; the result is None."""

    text: str


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply, without its content where that is read later."""

    status: int
    content: bytes = b""
    retry_after: str = ""
    session_id: str = ""
    """Of a stream: known before its answer."""

    def json(self) -> Any:
        """Return the content; None where it is no JSON."""
        try:
            return json.loads(self.content)
        except ValueError:
            return None


@dataclass(frozen=True, slots=True)
class Lost:
    """No reply came, or not all of it."""

    reason: str


Step = Send | Read | Pause | Piece
Steps = Generator[Step, Any, T]


def sent(call: Send, attempts: Attempts, read: Callable[[Reply], T]) -> Steps[T]:
    """Send a request until it succeeds; return what is read in its reply. Raise the error that no further try can
    mend. A reply in which that cannot be read is none of the service's, as a proxy's page is."""
    while True:
        reply = yield call
        error = failure(reply)
        if error is None:
            try:
                return read(reply)
            except (KeyError, TypeError, ValueError):
                error = Unreachable("the reply is none of this service's", status=reply.status)
        call = yield from again(call, error, attempts)


def again(call: Send, error: OnesourceError, attempts: Attempts) -> Steps[Send]:
    """Wait, and return the request to send next; raise the error where there is none."""
    error.idempotency_key = error.idempotency_key or call.key
    yield Pause(attempts.pause(error))
    return replace(call, key=error.idempotency_key)


def failure(reply: Reply | Lost) -> OnesourceError | None:
    """Return the error that came instead of what was asked for, None where it came."""
    if isinstance(reply, Lost):
        return Unreachable(reply.reason)
    return None if reply.status < 300 else error_of(reply.status, reply.json(), reply.retry_after)
