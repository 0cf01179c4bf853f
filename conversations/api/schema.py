"""The OpenAPI document: what drf-spectacular cannot read from the views and serializers themselves."""

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension, OpenApiSerializerExtension
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, extend_schema

from conversations.api.events import SESSION_HEADER
from conversations.api.input_serializers import (
    IDEMPOTENCY_KEY,
    BodySerializer,
    ExportQuerySerializer,
    ListQuerySerializer,
    QuestionSerializer,
    TurnSerializer,
    anchored,
)
from conversations.api.output_serializers import (
    AnswerSerializer,
    ConversationSerializer,
    ErrorSerializer,
    EventSerializer,
    InvalidSerializer,
    NotPersistedSerializer,
    PageSerializer,
)
from conversations.ids import MESSAGE_ID
from conversations.turns import SESSION_ID

_ERRORS = {
    400: OpenApiResponse(InvalidSerializer, "The request is not valid; `detail` names what is wrong."),
    401: OpenApiResponse(
        ErrorSerializer,
        "CHAT_AUTH is `token`; there is none, or one that is invalid, expired, revoked or of an unknown key.",
    ),
    403: OpenApiResponse(ErrorSerializer, "The token lacks the scope of this operation (`scope_missing`)."),
    429: OpenApiResponse(ErrorSerializer, "Over CHAT_RATE; `Retry-After` says how many seconds to wait."),
    503: OpenApiResponse(
        ErrorSerializer,
        "A store that is needed cannot be reached, or the keys that the token is checked with are not known "
        "(`issuer_unavailable`).",
    ),
}
_TURN_ERRORS: dict[Any, Any] = {
    **_ERRORS,
    409: OpenApiResponse(
        NotPersistedSerializer,
        "The conversation belongs to another `user` (`other_user`); another request with this Idempotency-Key is being "
        "answered; its turn was trimmed or deleted "
        "(`key_expired`); or no turn can follow: the conversation holds the last time there is.",
    ),
    413: OpenApiResponse(
        ErrorSerializer,
        "The body is too long (`too_large`), or the conversations of the token's tenant take all the room that it may "
        "have (`tenant_full`); reading and deleting go on.",
    ),
    415: OpenApiResponse(ErrorSerializer, "The body is not application/json."),
    422: OpenApiResponse(ErrorSerializer, "The Idempotency-Key was used with another question or answer."),
    429: OpenApiResponse(
        ErrorSerializer,
        "Over CHAT_RATE (`throttled`), or as many questions of the client are being answered as CHAT_CONCURRENT allows "
        "(`too_many_asks`); `Retry-After` says how many seconds to wait.",
    ),
    503: OpenApiResponse(
        NotPersistedSerializer,
        "No store can be reached, none took the turn (`not_persisted`), or none has confirmed it and one may have it "
        "(`outcome_unknown`); or the keys that the token is checked with are not known (`issuer_unavailable`).",
    ),
}
_ASK_RESPONSES: dict[Any, Any] = {
    (200, "application/json"): OpenApiResponse(
        AnswerSerializer, "The answer; with `stream` as events, of which the last is an `answer` or an `error`."
    ),
    (200, "text/event-stream"): EventSerializer,
    **_TURN_ERRORS,
    502: OpenApiResponse(
        ErrorSerializer,
        "Nothing was stored: the model gave no answer (`answerer_failed`), or its service refused this server, which "
        "asking again does not change (`model_refused`).",
    ),
}
_EXPORT_RESPONSES: dict[Any, Any] = {
    (200, "application/json"): ConversationSerializer,
    (200, "text/markdown"): str,
    **_ERRORS,
    404: ErrorSerializer,
}
_SESSION = OpenApiParameter(
    "session_id", str, OpenApiParameter.PATH, description="The conversation.", pattern=anchored(SESSION_ID)
)
_KEY = OpenApiParameter(
    "Idempotency-Key",
    str,
    OpenApiParameter.HEADER,
    pattern=anchored(IDEMPOTENCY_KEY),
    description="Asked again with the same key within 24 hours, the stored answer comes back, also without a "
    "`session_id`. `turn:` and the id of a question is the key of one that was asked without.",
)
_SESSION_HEADER = OpenApiParameter(
    SESSION_HEADER,
    str,
    OpenApiParameter.HEADER,
    response=[200],
    description="With `stream`: the `session_id`, before the first piece.",
)
_EXAMPLES = [
    OpenApiExample(
        "A question", {"question": "What did I just ask about?", "session_id": "redis_test_123"}, request_only=True
    ),
    OpenApiExample(
        "An answer",
        {
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
        },
        response_only=True,
        status_codes=["200"],
    ),
]

ask = extend_schema(
    operation_id="ask",
    summary="Ask a question in a conversation",
    request=QuestionSerializer,
    parameters=[_KEY, _SESSION_HEADER],
    responses=_ASK_RESPONSES,
    examples=_EXAMPLES,
)
add_turn = extend_schema(
    operation_id="add_turn",
    summary="Store a turn that was answered elsewhere",
    request=TurnSerializer,
    parameters=[_SESSION, _KEY],
    responses={200: AnswerSerializer, **_TURN_ERRORS},
)
list_conversations = extend_schema(
    operation_id="list_conversations",
    summary="List conversations",
    parameters=[ListQuerySerializer],
    responses={200: PageSerializer, **_ERRORS},
)
read_conversation = extend_schema(
    operation_id="read_conversation",
    summary="Read a conversation",
    parameters=[_SESSION],
    responses={200: ConversationSerializer, **_ERRORS, 404: ErrorSerializer},
)
delete_conversation = extend_schema(
    operation_id="delete_conversation",
    summary="Delete a conversation from every store",
    parameters=[_SESSION],
    responses={204: None, **_ERRORS, 404: ErrorSerializer},
)
export_conversation = extend_schema(
    operation_id="export_conversation",
    summary="Download a conversation",
    parameters=[_SESSION, ExportQuerySerializer],
    responses=_EXPORT_RESPONSES,
)


_TEXT = {"minLength": 1, "pattern": r"^[^\x00]*[^\s\x00][^\x00]*$"}
_RULES: dict[str, dict[str, Any]] = {
    "question": _TEXT,
    "answer": _TEXT,
    "session_id": {"pattern": anchored(SESSION_ID)},
    "last_message_id": {"pattern": anchored(MESSAGE_ID), "format": "message-id"},
}


class BodySchema(OpenApiSerializerExtension):  # type: ignore[no-untyped-call]
    """The rules that the fields of a body check in code."""

    target_class = BodySerializer
    match_subclasses = True

    def map_serializer(self, auto_schema: Any, direction: str) -> dict[str, Any]:
        schema: dict[str, Any] = auto_schema._map_serializer(self.target, direction, bypass_extensions=True)
        for name, field in schema["properties"].items():
            field |= _RULES.get(name, {})
        return schema | {"additionalProperties": False}


class TokenSchema(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """The token in the Authorization header."""

    target_class = "conversations.api.authentication.TokenAuthentication"
    name = "token"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {
            "type": "http",
            "scheme": "bearer",
            "description": "From `manage.py token create NAME`, or a JWT of OIDC_ISSUER.",
        }
