"""HTTP in, HTTP out: validate, call, serialise."""

import re
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import orjson
from django.http import HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiParameter,
    OpenApiResponse,
    extend_schema,
    extend_schema_view,
)
from rest_framework.exceptions import ValidationError
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import Serializer
from rest_framework.viewsets import ViewSet

from conversations import chat, history
from conversations.api.authentication import ChatRateThrottle, ReadRateThrottle, client_of
from conversations.api.errors import body
from conversations.api.serializers import (
    SESSION_RULE,
    AnswerSerializer,
    ConversationSerializer,
    ErrorSerializer,
    EventSerializer,
    ExportQuerySerializer,
    InvalidSerializer,
    ListQuerySerializer,
    NotPersistedSerializer,
    PageSerializer,
    QuestionSerializer,
    whole,
)
from conversations.chat import Answer, Question
from conversations.errors import ConversationError, NoStore, Unknown
from conversations.history import listing
from conversations.turns import QUESTION, SESSION_ID, History

IDEMPOTENCY_KEY = re.compile(r"[A-Za-z0-9._:~+/=-]{1,128}")

_REFUSED = {
    400: OpenApiResponse(InvalidSerializer, "The request is not valid; `detail` names what is wrong."),
    401: OpenApiResponse(ErrorSerializer, "CHAT_AUTH is `token` and there is none, or not one of ours."),
    429: OpenApiResponse(ErrorSerializer, "Over CHAT_RATE; `Retry-After` says how many seconds to wait."),
    503: OpenApiResponse(ErrorSerializer, "No store can be reached."),
}
_SESSION = OpenApiParameter(
    "session_id", str, OpenApiParameter.PATH, description="The conversation.", pattern=whole(SESSION_ID)
)
_EXAMPLE = {
    "session_id": "redis_test_123",
    "answer": "You just asked: “Test conversation memory”",
    "message_id": "019ab0f4-6a3c-7d21-9b1e-3f5a7c9d1e21",
    "msg_count_before": 2,
    "new_thread": False,
    "store": "redis",
    "stored_in": ["redis"],
    "persisted": True,
    "context": "full",
    "replayed": False,
}


class _Addressed(DefaultContentNegotiation):
    """The address and the question say what is sent: a browser, or an event source, gets it all the same."""

    def select_renderer(self, request: Request, renderers: Any, format_suffix: str | None = None) -> Any:
        return renderers[0], renderers[0].media_type


class _ConversationViewSet(ViewSet):
    """What every address under /api/chat/ has in common."""

    content_negotiation_class = _Addressed

    def finalize_response(self, request: Request, response: Response, *arguments: Any, **options: Any) -> Response:
        """Return the response, an error too, as one that no cache may keep: it may hold what people said."""
        response = super().finalize_response(request, response, *arguments, **options)
        response["Cache-Control"] = "no-store"
        return response


class ChatView(_ConversationViewSet):
    """Asking."""

    throttle_classes = (ChatRateThrottle,)

    @extend_schema(
        operation_id="ask",
        summary="Ask a question in a conversation",
        request=QuestionSerializer,
        parameters=[
            OpenApiParameter(
                "Idempotency-Key",
                str,
                OpenApiParameter.HEADER,
                pattern=whole(IDEMPOTENCY_KEY),
                description="Asked again with the same key, the stored answer comes back.",
            )
        ],
        responses={
            (200, "application/json"): OpenApiResponse(
                AnswerSerializer,
                "The answer; with `stream` as events, of which the last is an `answer` or an `error`.",
            ),
            (200, "text/event-stream"): EventSerializer,
            **_REFUSED,
            409: OpenApiResponse(
                NotPersistedSerializer,
                "Another request with this Idempotency-Key is being answered, or no turn can follow: the conversation "
                "holds the last time there is.",
            ),
            413: OpenApiResponse(ErrorSerializer, "The body is too long."),
            415: OpenApiResponse(ErrorSerializer, "The body is not application/json."),
            422: OpenApiResponse(ErrorSerializer, "The Idempotency-Key was used with another question."),
            502: OpenApiResponse(ErrorSerializer, "The model gave no answer; nothing was stored."),
            503: OpenApiResponse(NotPersistedSerializer, "No store can be reached, or none took the turn."),
        },
        examples=[
            OpenApiExample(
                "A question",
                {"question": "What did I just ask about?", "session_id": "redis_test_123"},
                request_only=True,
            ),
            OpenApiExample("An answer", _EXAMPLE, response_only=True, status_codes=["200"]),
        ],
    )
    def ask(self, request: Request) -> HttpResponseBase:
        """Answer in the light of the conversation so far. A 200 means that the turn is stored."""
        form = QuestionSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        data = form.validated_data
        question = Question(
            text=data["question"],
            session_id=data.get("session_id") or chat.new_session_id(),
            tenant=_tenant(request),
            last_message_id=data.get("last_message_id"),
            require_context=data["require_context"],
            key=_idempotency_key(request),
            fresh="session_id" not in data,
        )
        if data["stream"]:
            return _event_stream(chat.stream(question))
        return Response(asdict(chat.ask(question)))


@extend_schema_view(
    list=extend_schema(
        operation_id="list_conversations",
        summary="List conversations",
        parameters=[ListQuerySerializer],
        responses={200: PageSerializer, **_REFUSED},
    ),
    retrieve=extend_schema(
        operation_id="read_conversation",
        summary="Read a conversation",
        parameters=[_SESSION],
        responses={200: ConversationSerializer, **_REFUSED, 404: ErrorSerializer},
    ),
    destroy=extend_schema(
        operation_id="delete_conversation",
        summary="Delete a conversation from every store",
        parameters=[_SESSION],
        responses={204: None, **_REFUSED, 404: ErrorSerializer},
    ),
)
class ConversationView(_ConversationViewSet):
    """The conversations that there are."""

    throttle_classes = (ReadRateThrottle,)

    def list(self, request: Request) -> Response:
        """List conversations, a page at a time, in no particular order."""
        query = _query(request, ListQuerySerializer)
        try:
            page = listing.page(_tenant(request), query["cursor"], query["limit"])
        except ValueError:
            raise ValidationError({"cursor": ["Must be `next` of the page before."]}) from None
        return Response(asdict(page))

    def retrieve(self, request: Request, session_id: str) -> Response:
        """Return every message that is kept, oldest first."""
        return Response(_conversation(request, session_id))

    def destroy(self, request: Request, session_id: str) -> Response:
        """Delete it; 204 means that it is gone, also from a store that is out now and has it still."""
        if not history.delete(_session(request, session_id)):
            raise Unknown
        return Response(status=204)

    @extend_schema(
        operation_id="export_conversation",
        summary="Download a conversation",
        parameters=[_SESSION, ExportQuerySerializer],
        responses={
            (200, "application/json"): ConversationSerializer,
            (200, "text/markdown"): str,
            **_REFUSED,
            404: ErrorSerializer,
        },
    )
    def export(self, request: Request, session_id: str) -> HttpResponse:
        """Return the conversation as a file, as JSON or as Markdown."""
        wanted = _query(request, ExportQuerySerializer)["as"]
        conversation = _conversation(request, session_id)
        if wanted == "json":
            content, kind, ending = orjson.dumps(conversation), "application/json", "json"
        else:
            content, kind, ending = _markdown(conversation).encode(), "text/markdown; charset=utf-8", "md"
        headers = {"Content-Disposition": f'attachment; filename="{session_id}.{ending}"'}
        return HttpResponse(content, content_type=kind, headers=headers)


def _tenant(request: Request) -> str:
    client = client_of(request)
    return client.tenant if client else ""


def _query(request: Request, form: type[Serializer[Any]]) -> dict[str, Any]:
    """Return the query parameters, validated."""
    query = form(data=request.query_params.dict())
    query.is_valid(raise_exception=True)
    return dict(query.validated_data)


def _session(request: Request, session_id: str) -> str:
    if not SESSION_ID.fullmatch(session_id):
        raise ValidationError({"session_id": [SESSION_RULE]})
    tenant = _tenant(request)
    return f"{tenant}:{session_id}" if tenant else session_id


def _idempotency_key(request: Request) -> str | None:
    key = request.headers.get("Idempotency-Key")
    if key is not None and not IDEMPOTENCY_KEY.fullmatch(key):
        rule = "Must be 1 to 128 of the characters A-Z a-z 0-9 . _ : ~ + / = -"
        raise ValidationError({"Idempotency-Key": [rule]})
    return key


def _conversation(request: Request, session_id: str) -> dict[str, Any]:
    reading = history.read(_session(request, session_id))
    if not reading.found:
        raise Unknown if history.routing().primary in reading.answered else NoStore
    return {
        "session_id": session_id,
        "store": reading.store,
        "context": reading.context,
        "messages": [message.as_dict() for message in reading.history],
    }


def _markdown(conversation: dict[str, Any]) -> str:
    parts = [f"# {conversation['session_id']}\n"]
    for message in History.parse(conversation["messages"]):
        who = "Question" if message.role == QUESTION else "Answer"
        parts.append(f"## {who}\n\n*{message.at}*\n\n{message.content}\n")
    return "\n".join(parts)


def _event_stream(pieces: Iterator[str | Answer]) -> StreamingHttpResponse:
    headers = {"X-Accel-Buffering": "no"}
    return StreamingHttpResponse(_events(pieces), content_type="text/event-stream", headers=headers)


def _events(pieces: Iterator[str | Answer]) -> Iterator[bytes]:
    """Yield `delta` events, then one `answer` (stored, as a 200 would be) or one `error`."""
    try:
        for piece in pieces:
            if isinstance(piece, Answer):
                yield _event("answer", asdict(piece))
            else:
                yield _event("delta", {"text": piece})
    except ConversationError as error:
        yield _event("error", body(error))


def _event(name: str, data: dict[str, Any]) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), orjson.dumps(data))
