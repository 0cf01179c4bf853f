"""Every error of this app on one screen, and how each is told over HTTP: its docstring, status and code."""

import logging
from typing import Any

from django.http import HttpRequest, JsonResponse
from rest_framework.exceptions import APIException, ValidationError
from rest_framework.response import Response
from rest_framework.views import exception_handler

logger = logging.getLogger(__name__)


class ConversationError(Exception):
    """Something about a conversation could not be done."""

    code = "error"
    status = 500

    def __str__(self) -> str:
        return ": ".join([" ".join((self.__doc__ or "").split()), *map(str, self.args)])


class InvalidSession(ConversationError, ValueError):
    """A session_id must be 1 to 128 of the characters A-Z a-z 0-9 . _ -"""

    code = "invalid"
    status = 400


class CorruptHistory(ConversationError):
    """What is stored for this conversation is not a history"""

    code = "corrupt"


class StoreUnavailable(ConversationError):
    """A store could not be used"""

    code = "store_unavailable"
    status = 503

    def __init__(self, store: str, reason: str) -> None:
        super().__init__(store, reason)
        self.store = store
        self.reason = reason


class NoStore(ConversationError):
    """No store can be reached now; nothing was read or changed. Try again."""

    code = "store_unavailable"
    status = 503


class NotPersisted(ConversationError):
    """No store took this turn: it will not be remembered. The answer is in `answer`; ask again."""

    code = "not_persisted"
    status = 503


class AnswererFailed(ConversationError):
    """The model gave no answer; nothing was stored. Try again."""

    code = "answerer_failed"
    status = 502


class KeyReused(ConversationError):
    """This Idempotency-Key was used in this session with another question; use a new one."""

    code = "idempotency_key_reused"
    status = 422


class KeyInUse(ConversationError):
    """Another request with this Idempotency-Key is still being answered. Try again."""

    code = "idempotency_key_in_use"
    status = 409


class Unknown(ConversationError):
    """No such conversation."""

    code = "not_found"
    status = 404


def body(error: ConversationError) -> dict[str, Any]:
    """Return what a client is told; NotPersisted carries the answer that was paid for."""
    told: dict[str, Any] = {"code": error.code, "detail": " ".join((error.__doc__ or "").split())}
    if isinstance(error, NotPersisted) and error.args:
        told |= {"answer": error.args[0].answer, "session_id": error.args[0].session_id, "persisted": False}
    return told


def handle(error: Exception, context: dict[str, Any]) -> Response | None:
    """Return the response to an error raised in a view: `{"code", "detail", ...}` always."""
    if isinstance(error, ConversationError):
        headers = {"Retry-After": "1"} if error.status == 503 else None
        return Response(body(error), status=error.status, headers=headers)
    response = exception_handler(error, context)
    if response is None:
        return None
    if isinstance(error, ValidationError):
        errors = error.detail if isinstance(error.detail, dict) else {"request": error.detail}
        told = "; ".join(f"{name}: {_first(reasons)}" for name, reasons in errors.items())
        response.data = {"code": "invalid", "detail": told, "errors": errors}
    elif isinstance(error, APIException):
        response.data = {"code": error.get_codes(), "detail": error.detail}
    else:  # Http404 and PermissionDenied, which Django raises itself
        response.data = {"code": "not_found" if response.status_code == 404 else "forbidden", **response.data}
    return response


def _first(reasons: Any) -> str:
    return str(reasons[0] if isinstance(reasons, list) else reasons)


def bad_request(request: HttpRequest, exception: Exception) -> JsonResponse:
    return _page(400, "bad_request", "The request is malformed, or its Host is not one of ALLOWED_HOSTS.")


def forbidden(request: HttpRequest, exception: Exception) -> JsonResponse:
    return _page(403, "forbidden", "You may not do this.")


def no_such_page(request: HttpRequest, exception: Exception) -> JsonResponse:
    return _page(404, "not_found", "There is nothing at this address; /api/docs/ lists what there is.")


def server_error(request: HttpRequest) -> JsonResponse:
    return _page(500, "error", "This is our fault; it has been logged.")


def _page(status: int, code: str, detail: str) -> JsonResponse:
    return JsonResponse({"code": code, "detail": detail}, status=status)
