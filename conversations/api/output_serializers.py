"""Serializers of responses. Docstrings and help texts of fields are part of the OpenAPI document."""

from operator import attrgetter
from typing import Any

from drf_spectacular.utils import extend_schema_serializer
from rest_framework import serializers

from conversations.chat import Answer
from conversations.policy import BEHIND, FULL
from conversations.stores import ALIASES
from conversations.turns import ANSWER, QUESTION
from telemetry import request_id

STORES = [(alias, alias) for alias in ALIASES]


class AnswerSerializer(serializers.Serializer[Any]):
    """A stored turn."""

    session_id = serializers.CharField()
    answer = serializers.CharField()
    message_id = serializers.UUIDField(help_text="Send it back as `last_message_id`.")
    msg_count_before = serializers.IntegerField(help_text="Messages in context before this turn.")
    new_thread = serializers.BooleanField(help_text="Whether nothing was there before this turn.")
    store = serializers.ChoiceField(choices=STORES, help_text="The store that was read.")
    stored_in = serializers.ListField(
        child=serializers.ChoiceField(choices=STORES),
        help_text="Every store that acknowledged the turn.",
    )
    persisted = serializers.BooleanField()
    context = serializers.ChoiceField(  # type: ignore[assignment]  # the API's word; nothing uses DRF's own
        choices=[FULL, BEHIND], help_text="`behind`: turns you were given are missing from the context."
    )
    replayed = serializers.BooleanField(help_text="Whether this answer was stored before, by the same Idempotency-Key.")


_ANSWER = tuple(AnswerSerializer._declared_fields)
_values = attrgetter(*_ANSWER)


def answer_fields(answer: Answer) -> dict[str, Any]:
    """Return the fields that AnswerSerializer writes. It would copy them all for each answer first, which takes
    as long as a turn takes a store; and each value is written as it is."""
    return dict(zip(_ANSWER, _values(answer), strict=True))


class EventSerializer(serializers.Serializer[Any]):
    """One server-sent event of a streamed answer."""

    event = serializers.ChoiceField(choices=["delta", "answer", "error"])
    data = serializers.CharField(  # type: ignore[assignment]
        help_text="JSON: of a `delta` its `text`; of the last event the answer, or the error, that would have "
        "been the body without streaming."
    )


class MessageSerializer(serializers.Serializer[Any]):
    """One message of a conversation."""

    role = serializers.ChoiceField(choices=[QUESTION, ANSWER])
    content = serializers.CharField()
    key = serializers.CharField(required=False, help_text="The Idempotency-Key it was asked with.")
    user = serializers.CharField(required=False, help_text="Whose conversation it was then, where that was said.")
    id = serializers.UUIDField()
    at = serializers.DateTimeField()


class ConversationSerializer(serializers.Serializer[Any]):
    """A conversation as it is kept."""

    session_id = serializers.CharField()
    store = serializers.ChoiceField(choices=STORES)
    context = serializers.ChoiceField(  # type: ignore[assignment]
        choices=[FULL, BEHIND], help_text="`behind`: a store that is out now may have more."
    )
    user = serializers.CharField(allow_null=True, help_text="Whose conversation it is; null where nobody said.")
    messages = MessageSerializer(many=True)


class ListedSerializer(serializers.Serializer[Any]):
    """A conversation in a list."""

    session_id = serializers.CharField()
    messages = serializers.IntegerField(allow_null=True, help_text="How many; null where the value is corrupt.")
    updated_at = serializers.DateTimeField(allow_null=True)
    user = serializers.CharField(allow_null=True, help_text="Whose it is; null where nobody said.")
    stores = serializers.ListField(child=serializers.ChoiceField(choices=STORES))
    bytes = serializers.IntegerField(allow_null=True, help_text="About how many its messages take; null as above.")


@extend_schema_serializer(many=False)  # a page is one, though it is what `list` answers
class PageSerializer(serializers.Serializer[Any]):
    """A page of conversations."""

    results = ListedSerializer(many=True)
    next = serializers.CharField(allow_null=True, help_text="The `cursor` of the next page; null on the last.")
    complete = serializers.BooleanField(
        help_text="Whether every store could be listed; when not, conversations may be missing."
    )


class ErrorSerializer(serializers.Serializer[Any]):
    """What went wrong."""

    code = serializers.CharField()
    detail = serializers.CharField()
    request_id = serializers.SerializerMethodField(help_text="As in the header X-Request-ID and in the server's log.")

    def get_request_id(self, error: Any) -> str:
        return request_id.current()


class InvalidSerializer(ErrorSerializer):
    """What is wrong with the request, field by field."""

    errors = serializers.DictField(  # type: ignore[assignment]
        child=serializers.ListField(child=serializers.CharField()), required=False
    )


class NotPersistedSerializer(ErrorSerializer):
    """The turn is not stored, or it is unknown whether it is; where an answer had been made, it is not thrown away."""

    answer = serializers.CharField(required=False)
    session_id = serializers.CharField(required=False)
    persisted = serializers.BooleanField(required=False)
    idempotency_key = serializers.CharField(
        required=False, help_text="Of `outcome_unknown`: ask again with it as the Idempotency-Key."
    )
    asked_at = serializers.DateTimeField(
        required=False, help_text="Of `key_expired`: when the question was first asked."
    )
