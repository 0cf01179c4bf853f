"""Errors as HTTP responses: always `{"code", "detail", "request_id", ...}`, and never long.

They name what the client sent, but only its beginning: else a response could be many times as long as its request.
"""

from typing import Any

import orjson
from django.http import JsonResponse
from rest_framework.exceptions import APIException, ValidationError
from rest_framework.response import Response
from rest_framework.views import exception_handler

from conversations.api.output_serializers import NotPersistedSerializer
from conversations.errors import ConversationError
from telemetry import request_id

_MAX_BYTES = 8192  # of an error without the answer that it may carry
_MAX_DETAIL = 2500  # bytes of `detail`: a JSON renderer may write twice as many
_MAX_NAME = 100  # bytes of a field's name


def body(error: ConversationError) -> dict[str, Any]:
    """Return the body of the error, as the OpenAPI document has it."""
    return dict(NotPersistedSerializer(error).data)


def handle(error: Exception, context: dict[str, Any]) -> Response | None:
    """Return the response to an error raised in a view, None for one that is not ours or DRF's."""
    if isinstance(error, ConversationError):
        headers = {"Retry-After": "1"} if error.status in (429, 503) else None
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
    errors = {_cut(name, _MAX_NAME): reason for name, reason in reasons.items()}
    detail = "; ".join(f"{name}: {_first(reason)}" for name, reason in errors.items())
    return {"code": "invalid", "detail": detail, "errors": errors}


def _bounded(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the body with a shortened detail and the request's id, and without `errors` where these are too long."""
    fields |= {"detail": _cut(str(fields["detail"]), _MAX_DETAIL), "request_id": request_id.current()}
    if len(orjson.dumps(fields)) > _MAX_BYTES - _MAX_DETAIL:
        fields.pop("errors", None)
    return fields


def _cut(text: str, limit: int) -> str:
    """Return the text if it has at most so many bytes as JSON, else its beginning."""
    beginning = text[:limit]
    while len(orjson.dumps(beginning)) > limit:
        beginning = beginning[: len(beginning) * 3 // 4]
    return text if beginning == text else f"{beginning}…"


def _first(reasons: Any) -> str:
    return str(reasons[0] if isinstance(reasons, list) else reasons)


def error(status: int, code: str, detail: str) -> JsonResponse:
    """Return an error that no view has raised."""
    fields = {"code": code, "detail": detail, "request_id": request_id.current()}
    return JsonResponse(fields, status=status, headers={"Cache-Control": "no-store"})
