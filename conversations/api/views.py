"""HTTP in, HTTP out: validate, call, serialise."""

from typing import Any, ClassVar

import orjson
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from rest_framework.exceptions import ValidationError
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from conversations import chat, deadline, history, tokens
from conversations.api import schema
from conversations.api.authentication import client_of
from conversations.api.events import event_stream
from conversations.api.input_serializers import (
    IDEMPOTENCY_KEY,
    SESSION_RULE,
    ExportQuerySerializer,
    ListQuerySerializer,
    make_question,
    make_turn_question,
    question_fields,
)
from conversations.api.output_serializers import ConversationSerializer, PageSerializer, answer_fields
from conversations.api.throttling import ChatRateThrottle, ReadRateThrottle, asker
from conversations.errors import InvalidCursor, NoStore, Unknown
from conversations.history import listing
from conversations.policy import FULL
from conversations.runtime import tenants
from conversations.stores.base import NO_TIME
from conversations.stores.sessions import session_named
from conversations.transcript import markdown


class _Negotiation(DefaultContentNegotiation):
    """Ignores Accept: the address and the question decide what is sent, to a browser or an event source too."""

    def select_renderer(self, request: Request, renderers: Any, format_suffix: str | None = None) -> Any:
        return renderers[0], renderers[0].media_type

    def select_parser(self, request: Request, parsers: Any) -> Any:
        """Return the parser; the usual Content-Type is compared without being parsed."""
        plain = request.content_type == parsers[0].media_type
        return parsers[0] if plain else super().select_parser(request, parsers)


class _ChatViewSet(ViewSet):
    """What every address under /api/chat/ has in common."""

    content_negotiation_class = _Negotiation
    scopes: ClassVar[dict[str, str]]
    """The scope that a token needs for each action."""

    def dispatch(self, request: HttpRequest, *arguments: Any, **options: Any) -> HttpResponseBase:
        """Handle a request within its deadline."""
        with deadline.begun():
            return super().dispatch(request, *arguments, **options)

    def finalize_response(self, request: Request, response: Response, *arguments: Any, **options: Any) -> Response:
        """Return the response, an error too, with a header that forbids to cache it: it may contain messages."""
        response = super().finalize_response(request, response, *arguments, **options)
        response["Cache-Control"] = "no-store"
        return response

    @property
    def tenant(self) -> str:
        client = client_of(self.request)
        return client.tenant if client else ""


def _checked(session_id: str) -> str:
    """Return the session_id of an address; raise ValidationError where it is none."""
    if not session_id:
        raise ValidationError({"session_id": [SESSION_RULE]})
    return session_id


class ChatView(_ChatViewSet):
    """Asking, and storing what was answered elsewhere."""

    throttle_classes = (ChatRateThrottle,)
    scopes: ClassVar = {"ask": tokens.ASK, "add_turn": tokens.ASK}

    @schema.ask
    def ask(self, request: Request) -> HttpResponseBase:
        """Answer in the light of the conversation so far. A 200 means that the turn is stored."""
        tenants.check(self.tenant)
        fields = question_fields(request.data)
        client = client_of(request)
        who = asker(request) if settings.CHAT_CONCURRENT else ""
        question = make_question(fields, self.tenant, client.name if client else "", _idempotency_key(request), who)
        if fields["stream"]:
            return event_stream(chat.stream(question), question.session_id)
        return _answered(question)

    @schema.add_turn
    def add_turn(self, request: Request, session_id: str) -> HttpResponseBase:
        """Store a turn that was answered elsewhere. A 200 means that it is stored."""
        tenants.check(self.tenant)
        key = _idempotency_key(request)
        return _answered(make_turn_question(request.data, _checked(session_id), self.tenant, key))


class ConversationView(_ChatViewSet):
    """The conversations that there are."""

    throttle_classes = (ReadRateThrottle,)
    scopes: ClassVar = {
        "list": tokens.READ,
        "retrieve": tokens.READ,
        "destroy": tokens.DELETE,
        "export": tokens.EXPORT,
    }

    @schema.list_conversations
    def list(self, request: Request) -> Response:
        """List conversations, a page at a time, the one with the newest message first."""
        query = ListQuerySerializer.validated(request.query_params)
        wanted = listing.Wanted(
            self.tenant, query.get("since", NO_TIME), query.get("until", ""), user=query.get("user", "")
        )
        try:
            page = listing.page(wanted, query["cursor"], query["limit"])
        except InvalidCursor:
            raise ValidationError({"cursor": ["Must be `next` of the page before."]}) from None
        return Response(PageSerializer(page).data)

    @schema.read_conversation
    def retrieve(self, request: Request, session_id: str) -> Response:
        """Return every message that is kept, oldest first."""
        return Response(self._conversation(session_id))

    @schema.delete_conversation
    def destroy(self, request: Request, session_id: str) -> Response:
        """Delete it; 204 means that it is gone, also from a store that is out now and has it still."""
        if not history.delete(self._session(session_id)):
            raise Unknown
        return Response(status=204)

    @schema.export_conversation
    def export(self, request: Request, session_id: str) -> HttpResponse:
        """Return the conversation as a file, as JSON or as Markdown."""
        wanted = ExportQuerySerializer.validated(request.query_params)["as"]
        conversation = self._conversation(session_id)
        if wanted == "json":
            content, kind, ending = orjson.dumps(conversation), "application/json", "json"
        else:
            content, kind, ending = markdown(conversation).encode(), "text/markdown; charset=utf-8", "md"
        headers = {"Content-Disposition": f'attachment; filename="{session_id}.{ending}"'}
        return HttpResponse(content, content_type=kind, headers=headers)

    def _session(self, session_id: str) -> str:
        """Return the name of the session in the stores."""
        return session_named(_checked(session_id), self.tenant)

    def _conversation(self, session_id: str) -> dict[str, Any]:
        """Return the conversation; raise Unknown, or NoStore where a store that could not be asked may have it."""
        reading = history.read(self._session(session_id))
        if not reading.found:
            raise Unknown if reading.context == FULL else NoStore
        messages = [message.as_dict() for message in reading.history]
        known = {"store": reading.store, "context": reading.context, "user": reading.history.user}
        return ConversationSerializer({"session_id": session_id, **known, "messages": messages}).data


def _answered(question: chat.Question) -> HttpResponse:
    return HttpResponse(_as_json(answer_fields(chat.ask(question))), content_type="application/json")


def _as_json(data: dict[str, Any]) -> bytes:
    """Return the data as DRF's renderer writes them, which takes ten times as long."""
    # Both characters end a line in old JavaScript.
    return orjson.dumps(data).replace(b"\xe2\x80\xa8", rb"\u2028").replace(b"\xe2\x80\xa9", rb"\u2029")


def _idempotency_key(request: Request) -> str | None:
    key = request.META.get("HTTP_IDEMPOTENCY_KEY")  # Django would make an object of all headers first
    if key is not None and not IDEMPOTENCY_KEY.fullmatch(key):
        rule = "Must be 1 to 128 of the characters A-Z a-z 0-9 . _ : ~ + / = -"
        raise ValidationError({"Idempotency-Key": [rule]})
    return key
