"""The short way through the API's serializers gives what they give."""

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rest_framework.exceptions import ValidationError
from rest_framework.renderers import JSONRenderer

from conversations.api import input_serializers
from conversations.api.input_serializers import MAX_CHARACTERS, QuestionSerializer, question_fields
from conversations.api.output_serializers import AnswerSerializer, answer_fields
from conversations.api.views import _as_json
from conversations.chat import Answer
from conversations.ids import new_ids
from conversations.stores import ALIASES

NOW = datetime.now(UTC)
texts = st.text(st.characters(exclude_categories=["Cs"]))
odd_texts = st.sampled_from(["", " ", "\n", "\x1c", "\u2028", "\x00", "a\x00b", "x" * MAX_CHARACTERS,
    "x" * (MAX_CHARACTERS + 1)])  # fmt: skip
sessions = st.from_regex(r"[A-Za-z0-9._-]{1,5}", fullmatch=True) | st.sampled_from(
    ["", "a b", "a\n", "é", "a" * 128, "a" * 129, "a:b"]
)
ids = st.builds(lambda minutes: new_ids(NOW + timedelta(minutes=minutes))[0], st.integers(-9, 9)) | st.sampled_from(
    ["f" * 36, "00000000-0000-7000-8000-000000000000", "7fffffff-ffff-7fff-bfff-ffffffffffff"]
)
scalars = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
anything = st.recursive(scalars | texts, lambda of: st.lists(of, max_size=2) | st.dictionaries(texts, of, max_size=2))
fields = {
    "session_id": sessions | anything,
    "last_message_id": ids | anything,
    "require_context": st.booleans() | anything,
    "stream": st.booleans() | anything,
}
questions = st.fixed_dictionaries({"question": texts | odd_texts | anything}, optional=fields)
valid_questions = st.fixed_dictionaries(
    {"question": texts.filter(str.strip)},
    optional={"session_id": st.just("a.session"), "last_message_id": ids | st.none(), "stream": st.booleans()},
)
bodies = (
    questions
    | valid_questions
    | st.builds(lambda fields, others: others | fields, questions, st.dictionaries(texts, scalars))
)


def outcome(validate: Any, data: Any) -> Any:
    """Return the validated fields with their types, or the errors with their texts and codes."""
    try:
        found = validate(data)
    except ValidationError as error:
        return error.get_full_details()
    return {name: (type(value), value) for name, value in found.items()}


def by_the_serializer(data: Any) -> Any:
    form = QuestionSerializer(data=data)
    form.is_valid(raise_exception=True)
    return form.validated_data


class TestQuestions:
    @settings(deadline=None)
    @given(bodies | anything)
    @example({"question": "Is it?"})
    @example({"question": "Is it?", "session_id": "a", "last_message_id": None, "stream": True})
    def test_the_values_and_errors_are_the_serializers(self, body: Any) -> None:
        """A body is what the parser makes of JSON."""
        body = orjson.loads(orjson.dumps(body))
        assert outcome(question_fields, body) == outcome(by_the_serializer, body)

    def test_a_plain_question_does_not_need_the_serializer(self, monkeypatch: Any) -> None:
        monkeypatch.setattr(input_serializers, "QuestionSerializer", None)
        body = {"question": "Is it?", "session_id": "a.session", "last_message_id": new_ids(NOW)[0], "stream": False}
        assert question_fields(body) == body | {"require_context": False}


answers = st.builds(
    Answer,
    session_id=sessions,
    answer=texts,
    message_id=ids,
    msg_count_before=st.integers(0, 10_000),
    new_thread=st.booleans(),
    store=st.sampled_from(ALIASES),
    stored_in=st.lists(st.sampled_from(ALIASES), min_size=1, unique=True).map(tuple),
    context=st.sampled_from(["full", "behind"]),
    replayed=st.booleans(),
)


class TestAnswers:
    @settings(deadline=None)
    @given(answers)
    @example(
        Answer("a", "\u2028 \u2029 \x7f \x00 \t é 😀", new_ids(NOW)[0], 0, True, "redis", ("redis",), "full", False)
    )
    def test_the_json_is_the_serializers(self, answer: Answer) -> None:
        assert _as_json(answer_fields(answer)) == JSONRenderer().render(AnswerSerializer(answer).data)
