"""Serializers of requests. Docstrings and help texts of fields are part of the OpenAPI document."""

import re
from datetime import timedelta
from typing import Any, cast

from django.http import QueryDict
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from conversations.chat import Question, new_session_id
from conversations.clock import now
from conversations.ids import MESSAGE_ID, moment, time_of
from conversations.turns import SESSION_ID, USER

MAX_CHARACTERS = 65_536
MAX_PAGE = 100
MAX_AHEAD = timedelta(minutes=5)  # of an id's time: another machine's clock may be ahead of ours
_MAX_NAMED = 10  # unknown fields: a body may have 100,000, and an error for each would take a second
IDEMPOTENCY_KEY = re.compile(r"[A-Za-z0-9._:~+/=-]{1,128}")
_CANONICAL = re.compile(r"[1-9][0-9]{0,2}")
SESSION_RULE = "Must be 1 to 128 of the characters A-Z a-z 0-9 . _ -"
USER_RULE = "Must be 1 to 128 of the characters A-Z a-z 0-9 @ . _ + : -"


def anchored(pattern: re.Pattern[str]) -> str:
    """Return the pattern for OpenAPI, where one without anchors may match anywhere."""
    return f"^{pattern.pattern}$"


class Text(serializers.CharField):
    """A string, without conversion from other types, kept as it was sent."""

    default_error_messages = {"invalid": "Must be a string."}  # noqa: RUF012

    def __init__(self, **options: Any) -> None:
        super().__init__(trim_whitespace=False, **options)

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        if not self.allow_blank and not data.strip():
            self.fail("blank")
        return data


@extend_schema_field({"type": "string", "pattern": anchored(USER)})
class User(Text):
    """A user, by the name that the client has for them."""

    def to_internal_value(self, data: Any) -> str:
        if not _is_user(data):
            raise serializers.ValidationError(USER_RULE)
        return str(data)


class Flag(serializers.BooleanField):
    """true or false, without conversion from other types."""

    default_error_messages = {"invalid": "Must be true or false."}  # noqa: RUF012

    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            self.fail("invalid")
        return data


class BodySerializer(serializers.Serializer[Any]):
    """The body of a request about one turn; unknown fields are refused by name."""

    def validate_last_message_id(self, value: str | None) -> str | None:
        if value is not None and not MESSAGE_ID.fullmatch(value):
            raise serializers.ValidationError("Must be a message_id as it was given.")
        if value is not None and time_of(value) > now() + MAX_AHEAD:
            raise serializers.ValidationError("Must be a message_id as it was given; this one is of the future.")
        return value

    def to_internal_value(self, data: Any) -> Any:
        """Return the fields; report every error at once, since a misspelled name explains a missing one."""
        if not isinstance(data, dict):
            raise serializers.ValidationError({"request": ["Must be a JSON object."]})
        unknown = self._unknown(data)
        try:
            fields = super().to_internal_value(data)
        except serializers.ValidationError as error:
            raise serializers.ValidationError({**cast("dict[str, Any]", error.detail), **unknown}) from None
        if unknown:
            raise serializers.ValidationError(unknown)
        return fields

    def _unknown(self, data: dict[str, Any]) -> dict[str, list[str]]:
        """Return an error for each of the first unknown fields, and one that counts the others."""
        known = self.fields
        names = [name for name in data if name not in known]
        errors = {name: ["Unknown field."] for name in names[:_MAX_NAMED]}
        if len(names) > _MAX_NAMED:
            errors.setdefault("request", []).append(f"There are {len(names) - _MAX_NAMED} other unknown fields.")
        return errors


def _last_message_id() -> Text:
    """Return the field of both bodies."""
    return Text(
        required=False,
        allow_null=True,
        max_length=36,
        help_text="The `message_id` you were last given: the answer then says whether anything up to it is missing.",
    )


def _user() -> User:
    """Return the field of both bodies."""
    return User(
        required=False,
        help_text="Whose conversation it is: any name that the client has for them. It is kept with the conversation, "
        "of which the first one named is the only one; a turn without is the conversation's.",
    )


class QuestionSerializer(BodySerializer):
    """A question."""

    question = Text(max_length=MAX_CHARACTERS, help_text="What is asked.")
    session_id = Text(required=False, max_length=128, help_text="The conversation; left out, a new one is begun.")
    user = _user()
    last_message_id = _last_message_id()
    require_context = Flag(
        required=False, default=False, help_text="Answer 503 rather than without what you were last given."
    )
    stream = Flag(required=False, default=False, help_text="Send the answer piece by piece, as server-sent events.")

    def validate_session_id(self, value: str) -> str:
        if not SESSION_ID.fullmatch(value):
            raise serializers.ValidationError(SESSION_RULE)
        return value


class TurnSerializer(BodySerializer):
    """A turn that was answered elsewhere."""

    question = Text(max_length=MAX_CHARACTERS, help_text="What was asked.")
    answer = Text(max_length=MAX_CHARACTERS, help_text="What was answered.")
    user = _user()
    last_message_id = _last_message_id()


_NAMES = frozenset(QuestionSerializer._declared_fields)


def question_fields(data: Any) -> dict[str, Any]:
    """Return the validated fields of a question; raise ValidationError.

    What is valid at first sight is not given to the serializer: it copies all its fields for each request, which takes
    as long as a turn takes a store.
    """
    if _is_surely_valid(data):
        return {"require_context": False, "stream": False, **data}
    form = QuestionSerializer(data=data)
    form.is_valid(raise_exception=True)
    return dict(form.validated_data)


def _is_surely_valid(data: Any) -> bool:
    """Return whether the serializer would take the data as they are. The parser has refused lone surrogates."""
    if not isinstance(data, dict) or not data.keys() <= _NAMES:
        return False
    text, session, last = data.get("question"), data.get("session_id", "new"), data.get("last_message_id")
    return (
        isinstance(text, str)
        and len(text) <= MAX_CHARACTERS
        and not text.isspace()
        and text != ""
        and "\0" not in text
        and isinstance(session, str)
        and SESSION_ID.fullmatch(session) is not None
        and (last is None or (isinstance(last, str) and _was_given(last)))
        and ("user" not in data or _is_user(data["user"]))
        and isinstance(data.get("require_context", False), bool)
        and isinstance(data.get("stream", False), bool)
    )


def _is_user(value: object) -> bool:
    return isinstance(value, str) and USER.fullmatch(value) is not None


def _was_given(message_id: str) -> bool:
    return MESSAGE_ID.fullmatch(message_id) is not None and time_of(message_id) <= now() + MAX_AHEAD


def make_question(fields: dict[str, Any], tenant: str, name: str, key: str | None, asker: str) -> Question:
    """Return the question of validated fields. A session_id that is made for it belongs to the client of that name."""
    return Question(
        text=fields["question"],
        session_id=fields.get("session_id") or new_session_id(key, tenant, name),
        tenant=tenant,
        last_message_id=fields.get("last_message_id"),
        require_context=fields["require_context"],
        key=key,
        fresh="session_id" not in fields,
        asker=asker,
        user=fields.get("user"),
    )


def make_turn_question(data: Any, session_id: str, tenant: str, key: str | None) -> Question:
    """Return the question of a turn that was answered elsewhere; raise ValidationError."""
    form = TurnSerializer(data=data)
    form.is_valid(raise_exception=True)
    fields = form.validated_data
    return Question(
        text=fields["question"],
        session_id=session_id,
        tenant=tenant,
        last_message_id=fields.get("last_message_id"),
        key=key,
        answer=fields["answer"],
        user=fields.get("user"),
    )


class PageSize(serializers.IntegerField):
    """A whole number in canonical form only, so that what is checked is what is used."""

    default_error_messages = {"invalid": f"Must be a whole number from 1 to {MAX_PAGE}."}  # noqa: RUF012

    def __init__(self, **options: Any) -> None:
        super().__init__(min_value=1, max_value=MAX_PAGE, **options)

    def to_internal_value(self, data: Any) -> int:
        if not _CANONICAL.fullmatch(data) or int(data) > MAX_PAGE:
            self.fail("invalid")
        return int(data)


@extend_schema_field({"type": "string", "format": "cursor"})
class Cursor(serializers.Field[str, Any, Any, Any]):
    """Where a list continues: "" for its beginning. listing.page checks it."""

    def to_internal_value(self, data: Any) -> str:
        return str(data)


class _QuerySerializer(serializers.Serializer[Any]):
    """Query parameters."""

    @classmethod
    def validated(cls, parameters: QueryDict) -> dict[str, Any]:
        """Return the parameters, validated; of one that is repeated the last counts."""
        query = cls(data=parameters.dict())
        query.is_valid(raise_exception=True)
        return dict(query.validated_data)


@extend_schema_field({"type": "string", "format": "moment"})
class Moment(serializers.Field[str, Any, Any, Any]):
    """A date or a time in ISO 8601, as messages have their times: of a date its begin, or with `ends` its end."""

    default_error_messages = {  # noqa: RUF012
        "invalid": "Must be a date or a time in ISO 8601, such as 2026-11-28 or 2026-11-28T12:00:00Z."
    }

    def __init__(self, *, ends: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self._ends = ends

    def to_internal_value(self, data: Any) -> str:
        try:
            return moment(str(data), ends=self._ends)
        except ValueError:
            self.fail("invalid")


class ListQuerySerializer(_QuerySerializer):
    """Which conversations are listed."""

    limit = PageSize(default=50, help_text="So many, where there are as many; fewer where finding them takes too long.")
    cursor = Cursor(default="", help_text="`next` of the page before.")
    since = Moment(required=False, help_text="None whose newest message is older. A time without an offset is UTC.")
    until = Moment(required=False, ends=True, help_text="Only those whose newest message is older, or of that date.")
    user = User(required=False, help_text="Only this user's.")


class ExportQuerySerializer(_QuerySerializer):
    """As what a conversation is exported."""

    def get_fields(self) -> dict[str, Any]:
        """Return the one field, whose name is a word of Python."""
        wrong: dict[str, Any] = {"invalid_choice": "Must be json or markdown."}
        return {"as": serializers.ChoiceField(["json", "markdown"], default="json", error_messages=wrong)}
