"""How errors are told over HTTP: `{"code", "detail", ...}` always, and never long.

What a client sent is named in them, but only its beginning: else a request would bring back many times its length.
"""

from typing import Any

import orjson
from django.http import HttpRequest, JsonResponse
from rest_framework.exceptions import APIException, ValidationError
from rest_framework.response import Response
from rest_framework.views import exception_handler

from conversations.errors import ConversationError, NoLaterTurn, NotPersisted

_MOST = 8192  # bytes of an error; an answer that was paid for is beside them
_DETAIL = 2500  # of its detail: a JSON renderer may write twice as many
_NAME = 100  # of the name of a field


def body(error: ConversationError) -> dict[str, Any]:
    """Return what a client is told; an error after the model was asked carries the answer that was paid for."""
    told: dict[str, Any] = {"code": error.code, "detail": error.detail}
    if isinstance(error, (NotPersisted, NoLaterTurn)) and error.args:
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
        response.data = _invalid(error.detail if isinstance(error.detail, dict) else {"request": error.detail})
    elif isinstance(error, APIException):
        response.data = {"code": error.get_codes(), "detail": error.detail}
    else:  # Http404 and PermissionDenied, which Django raises itself
        response.data = {"code": "not_found" if response.status_code == 404 else "forbidden", **response.data}
    response.data = _bounded(response.data)
    return response


def _invalid(reasons: dict[str, Any]) -> dict[str, Any]:
    errors = {_cut(name, _NAME): reason for name, reason in reasons.items()}
    detail = "; ".join(f"{name}: {_first(reason)}" for name, reason in errors.items())
    return {"code": "invalid", "detail": detail, "errors": errors}


def _bounded(told: dict[str, Any]) -> dict[str, Any]:
    """Return the error with a detail that is not too long, and without `errors` where these are."""
    told |= {"detail": _cut(str(told["detail"]), _DETAIL)}
    if len(orjson.dumps(told)) > _MOST - _DETAIL:
        told.pop("errors", None)
    return told


def _cut(text: str, most: int) -> str:
    """Return the text if it is no longer than so many bytes as JSON, else its beginning."""
    beginning = text[:most]
    while len(orjson.dumps(beginning)) > most:
        beginning = beginning[: len(beginning) * 3 // 4]
    return text if beginning == text else f"{beginning}…"


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
    return JsonResponse({"code": code, "detail": detail}, status=status, headers={"Cache-Control": "no-store"})
