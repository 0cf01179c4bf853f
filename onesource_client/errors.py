"""Every error of the client: one class for each kind of failure, so that a caller catches what it can do about it."""

from collections.abc import Mapping
from typing import Any


class OnesourceError(Exception):
    """The service refused a request, or could not be reached."""

    retry_after: float = 0.0
    """Seconds to wait before the next try, 0 where the reply names none."""

    def __init__(self, detail: str, *, code: str = "", status: int = 0, body: Mapping[str, Any] | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        """What the service wrote."""
        self.code = code
        """The service's word for it, "" where the reply was none of the service's."""
        self.status = status
        """The HTTP status, 0 without a reply."""
        self.body: Mapping[str, Any] = body or {}
        self.idempotency_key: str | None = self.body.get("idempotency_key")
        """With it the question can be asked again later: it is stored once."""


class Unreachable(OnesourceError):
    """No reply came: the connection could not be made, or was lost; or what replied was not the service. Whether a
    question was stored is not known. Send it again with its `idempotency_key`."""


class InvalidRequest(OnesourceError):
    """The request is not valid (400, 405, 413, 415)."""


class NotAuthorized(OnesourceError):
    """The token is missing, invalid, expired or revoked (401), or lacks the scope of what was asked for (403)."""


class NotFound(OnesourceError):
    """There is no such conversation (404)."""


class KeyReused(OnesourceError):
    """The Idempotency-Key was used with another question or answer (422)."""


class OtherUser(OnesourceError):
    """The conversation belongs to another user (409)."""


class KeyExpired(OnesourceError):
    """The turn of the Idempotency-Key was trimmed or deleted (409); ask with a new key."""

    @property
    def asked_at(self) -> str:
        """When the question was first asked."""
        return str(self.body.get("asked_at", ""))


class KeyInUse(OnesourceError):
    """The question is still being answered for another request with its Idempotency-Key (409)."""


class RateLimited(OnesourceError):
    """Too many requests (429); `retry_after` says when the next one is taken."""


class TenantFull(OnesourceError):
    """The conversations of the token's tenant take all the room that it may have (413): delete some."""


class NotBegun(OnesourceError):
    """The service did not begin with the request: too many others wait (503), the keys of the token's issuer are not
    known to it (503), or the body came too slowly (408)."""


class AnswererFailed(OnesourceError):
    """The model gave no answer; nothing was stored (502)."""


class ModelRefused(AnswererFailed):
    """The model's service refused the server; nothing was stored (502). An operator has to look into it."""


class ServerError(OnesourceError):
    """The service failed in a way that it does not document (5xx)."""


class StoreUnavailable(OnesourceError):
    """A store that is needed cannot be reached; nothing was changed (503)."""


class ContextBehind(OnesourceError):
    """`require_context` was set, and turns that this client was given cannot be read now; nothing was stored (503)."""


class NotStored(OnesourceError):
    """A turn is not known to be stored (503, 409). Its answer is kept here: it was paid for."""

    @property
    def answer(self) -> str:
        """The answer, "" where none had been made."""
        return str(self.body.get("answer", ""))

    @property
    def session_id(self) -> str:
        return str(self.body.get("session_id", ""))


class NotPersisted(NotStored):
    """No store took the turn."""


class OutcomeUnknown(NotStored):
    """No store has confirmed the turn, and one may have it. Asked again with `idempotency_key` it is stored once."""


class NoLaterTurn(NotStored):
    """The conversation takes no further turn (409); use another session_id."""


class TurnsAreWhole(OnesourceError):
    """The service keeps whole turns: a message of a stored turn cannot be taken back alone. Raised by the adapters."""


_BY_CODE: dict[str, tuple[int, type[OnesourceError]]] = {
    "invalid": (400, InvalidRequest),
    "not_found": (404, NotFound),
    "timeout": (408, NotBegun),
    "idempotency_key_in_use": (409, KeyInUse),
    "key_expired": (409, KeyExpired),
    "no_later_turn": (409, NoLaterTurn),
    "other_user": (409, OtherUser),
    "too_large": (413, InvalidRequest),
    "tenant_full": (413, TenantFull),
    "idempotency_key_reused": (422, KeyReused),
    "throttled": (429, RateLimited),
    "too_many_asks": (429, RateLimited),
    "answerer_failed": (502, AnswererFailed),
    "model_refused": (502, ModelRefused),
    "busy": (503, NotBegun),
    "issuer_unavailable": (503, NotBegun),
    "context_behind": (503, ContextBehind),
    "not_persisted": (503, NotPersisted),
    "outcome_unknown": (503, OutcomeUnknown),
    "store_unavailable": (503, StoreUnavailable),
}
"""The status and the class of each `code`: the error at the end of a stream has its code alone."""
_FAULT = (500, ServerError)
_BY_STATUS: dict[int, type[OnesourceError]] = {
    401: NotAuthorized,
    403: NotAuthorized,
    404: NotFound,
    408: NotBegun,
    429: RateLimited,
}


def error_of(status: int, body: Any, retry_after: str = "") -> OnesourceError:
    """Return the error of a reply. One without a `code` is not the service's: a proxy's, as while the service starts
    again; it shows nothing of what became of the request."""
    fields: Mapping[str, Any] = body if isinstance(body, dict) else {}
    code, detail = str(fields.get("code", "")), str(fields.get("detail", "")) or f"HTTP status {status}"
    _, kind = _BY_CODE.get(code) or (0, _BY_STATUS.get(status) or (ServerError if status >= 500 else InvalidRequest))
    if status >= 500 and not code:
        kind = Unreachable
    error = kind(detail, code=code, status=status, body=fields)
    error.retry_after = float(retry_after) if retry_after.isdecimal() else 0.0  # it may be a date
    return error


def error_of_event(body: Mapping[str, Any]) -> OnesourceError:
    """Return the error that a stream ends with: the same as that of the reply without streaming."""
    status, _ = _BY_CODE.get(str(body.get("code", "")), _FAULT)
    return error_of(status, body)
