"""Invalid requests: the right 4xx with `{"code", "detail"}`, never a 500, and an unchanged conversation."""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from io import BytesIO
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.urls import path
from pytest_django import Settings

from conversations.clock import now
from onesource import urls
from tests.api.talking import ASK, ask, contents, get, named, post
from tests.builders import a_session, a_turn


def fails(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("the words of a conversation")


class WithAFault:
    """The service's addresses, and one that fails."""

    urlpatterns = [*urls.urlpatterns, path("fails", fails)]
    handler400, handler403 = urls.handler400, urls.handler403
    handler404, handler500 = urls.handler404, urls.handler500


def refused(response: Any, status: int, code: str) -> str:
    """Check that the response is an error as promised; return its detail."""
    assert response.status_code == status, response.content
    assert response["Content-Type"] == "application/json"
    error = response.json()
    assert error["code"] == code
    assert isinstance(error["detail"], str)
    assert error["detail"]
    assert error["request_id"] == response["X-Request-ID"]
    return str(error["detail"])


def body(session: str, **fields: Any) -> bytes:
    return json.dumps({"question": "And?", "session_id": session} | fields).encode()


NESTED = 100_000
BODIES: dict[str, Callable[[str], bytes]] = {
    "no body": lambda session: b"",
    "no JSON": lambda session: b"question=And?",
    "half of it": lambda session: body(session)[:-1],
    "two of them": lambda session: body(session) * 2,
    "not UTF-8": lambda session: b'{"question": "\xff", "session_id": "%s"}' % session.encode(),
    "UTF-16": lambda session: body(session).decode().encode("utf-16"),
    "NaN": lambda session: body(session, question=float("nan")),
    "half a character": lambda session: b'{"question": "\\ud83d", "session_id": "%s"}' % session.encode(),
    "half a character, raw": lambda session: b'{"question": "\xed\xa0\xbd", "session_id": "%s"}' % session.encode(),
    "nested deeply": lambda session: b'{"question": %s%s}' % (b"[" * NESTED, b"]" * NESTED),
    "nested in a field": lambda session: (
        b'{"question": "And?", "session_id": "%s", "x": %s%s}' % (session.encode(), b'{"a":' * 1000, b"1" + b"}" * 1000)
    ),
}


@pytest.mark.parametrize("kind", BODIES)
def test_an_invalid_json_body_is_400(kind: str) -> None:
    session = a_session()
    ask("What is Redis?", session)
    response = Client().generic("POST", ASK, BODIES[kind](session), content_type="application/json")
    refused(response, 400, "invalid" if kind in ("no body", "nested in a field") else "parse_error")
    assert len(contents(session)) == 2


def test_an_incomplete_body_is_400() -> None:
    """The client has disconnected; this is no error of the server."""

    class Gone(BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise ConnectionResetError

    response = Client().generic("POST", ASK, b"{}", content_type="application/json", **{"wsgi.input": Gone()})
    refused(response, 400, "parse_error")


@pytest.mark.parametrize("value", [b"null", b"[]", b'"And?"', b"5", b"1e400", b"true"], ids=bytes.decode)
def test_a_body_that_is_not_an_object_is_400(value: bytes) -> None:
    response = Client().generic("POST", ASK, value, content_type="application/json")
    refused(response, 400, "parse_error" if value == b"1e400" else "invalid")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("question", None),
        ("question", ""),
        ("question", " \t\n"),
        ("question", 5),
        ("question", True),
        ("question", ["And?"]),
        ("question", {"a": "b"}),
        ("question", "And\x00?"),
        ("question", "a" * 65_537),
        ("session_id", ""),
        ("session_id", None),
        ("session_id", 5),
        ("session_id", "a" * 129),
        ("session_id", "a b"),
        ("session_id", "a\n"),
        ("session_id", "a\x00"),
        ("session_id", "tenant:a"),
        ("session_id", "a/b"),
        ("session_id", "*"),
        ("session_id", "é"),
        ("session_id", "٣"),
        ("last_message_id", ""),
        ("last_message_id", 5),
        ("last_message_id", "yesterday"),
        ("last_message_id", "019CB1A0-0000-7000-8000-000000000001"),
        ("last_message_id", "019cb1a0-0000-7000-8000-000000000001\n"),
        ("last_message_id", "e677d21f-dbff-7000-8000-000000000001"),  # the last millisecond that a datetime has
        ("last_message_id", "f081732f-ae21-70fc-a5c0-67e25d570970"),
        ("require_context", "true"),
        ("require_context", 1),
        ("require_context", None),
        ("stream", "no"),
        ("stream", 0),
        ("stream", []),
        ("qestion", "And?"),
        ("key", "k"),
        ("__proto__", {}),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_an_invalid_field_is_named_in_the_400(field: str, value: Any) -> None:
    session = a_session()
    ask("What is Redis?", session)
    response = post({"question": "And?", "session_id": session} | {field: value})
    assert refused(response, 400, "invalid").startswith(f"{field}: ")
    assert list(response.json()["errors"]) == [field]
    assert len(contents(session)) == 2


def test_a_last_message_id_of_the_future_is_400_and_changes_nothing() -> None:
    """The next turn would get a time that no id can have, and the conversation would be unreadable."""
    session = a_session()
    ask("What is Redis?", session)
    for seen in ("7fffffff-ffff-7000-8000-000000000001", id_of(now() + timedelta(minutes=6))):
        response = post({"question": "And?", "session_id": session, "last_message_id": seen})
        detail = refused(response, 400, "invalid")
        assert detail == "last_message_id: Must be a message_id as it was given; this one is of the future."
    assert ask("And?", session)["msg_count_before"] == 2


def test_a_last_message_id_may_be_four_minutes_ahead() -> None:
    """Another machine of the service may have made the id."""
    seen = id_of(now() + timedelta(minutes=4))
    assert ask("And?", a_session(), last_message_id=seen)["message_id"] > seen


def id_of(time: datetime) -> str:
    return a_turn(at=time).answer.id


def test_all_invalid_fields_are_reported_together() -> None:
    response = post({"session_id": "a b", "stream": 5, "qestion": "And?"})
    refused(response, 400, "invalid")
    assert set(response.json()["errors"]) == {"question", "session_id", "stream", "qestion"}


@pytest.mark.parametrize("size", [524_288, 11_000_000])
def test_a_long_body_is_413(size: int) -> None:
    session = a_session()
    ask("What is Redis?", session)
    refused(post(body(session, question="a" * size)), 413, "too_large")
    assert len(contents(session)) == 2


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", "x"]
)
def test_another_content_type_is_415(kind: str) -> None:
    session = a_session()
    refused(Client().generic("POST", ASK, body(session), content_type=kind), 415, "unsupported_media_type")
    assert contents(session) == []


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8", "APPLICATION/JSON"])
def test_json_content_type_is_accepted_in_every_spelling(kind: str) -> None:
    response = Client().generic("POST", ASK, body(a_session(), question="żółć"), content_type=kind)
    assert response.status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "ask"),
        ("PUT", "ask"),
        ("DELETE", "ask/"),
        ("POST", "conversations/"),
        ("DELETE", "conversations"),
        ("PUT", "conversations/a"),
        ("POST", "conversations/a/"),
        ("PATCH", "conversations/a/"),
        ("DELETE", "conversations/a/export"),
        ("GET", "conversations/a/turns"),
        ("TRACE", "ask"),
        ("NONSENSE", "ask"),
    ],
)
def test_another_method_is_405(method: str, path: str) -> None:
    response = Client().generic(method, f"/api/chat/{path}", b"{}", content_type="application/json")
    refused(response, 405, "method_not_allowed")
    assert method not in response["Allow"]


@pytest.mark.parametrize(
    "path", ["", "asks", "ask//", "conversations//", "conversations/a/b", "conversations/a/export/b"]
)
def test_another_address_is_404(path: str) -> None:
    refused(get(path), 404, "not_found")


@pytest.mark.parametrize(
    "session", ["a%0A", "a%00", "tenant:a", "tenant%3Aa", "a b", "a" * 129, "%C3%A9", "%FF", "*", "%2e%2e%5c"]
)
def test_an_invalid_session_id_in_an_address_is_400(session: str) -> None:
    for address in (f"conversations/{session}/", f"conversations/{session}/export"):
        assert refused(get(address), 400, "invalid").startswith("session_id: ")


def test_another_host_is_400() -> None:
    refused(Client(headers={"Host": "elsewhere.example"}).get("/api/chat/conversations/"), 400, "bad_request")


def test_an_unexpected_error_is_500_without_details(settings: Settings) -> None:
    settings.ROOT_URLCONF = WithAFault
    response = Client(raise_request_exception=False).get("/fails")
    assert "words" not in refused(response, 500, "error")


class TestLengthOfErrors:
    """An error names what the client sent but does not repeat it whole: it could be many times as long."""

    MOST = 8192

    def test_ten_unknown_fields_are_named_and_the_others_counted(self) -> None:
        session = a_session()
        response = post({"question": "And?", "session_id": session} | {f"field-{n:05}": 1 for n in range(25_000)})
        detail = refused(response, 400, "invalid")
        errors = response.json()["errors"]
        assert len(response.content) < self.MOST
        assert [name for name in errors if name.startswith("field-")] == [f"field-{n:05}" for n in range(10)]
        assert "There are 24990 other unknown fields." in detail
        assert contents(session) == []

    def test_an_invalid_field_is_named_beside_many_unknown_ones(self) -> None:
        response = post({"question": 5} | {f"a{n}": 1 for n in range(1000)})
        assert response.json()["errors"]["question"] == ["Must be a string."]

    @pytest.mark.parametrize("letter", ["x", "é", "\x01", '"', "\U0001f600"])
    def test_a_long_field_name_is_cut(self, letter: str) -> None:
        response = post({"question": "And?"} | {str(n) + letter * 3_000: 1 for n in range(10)})
        refused(response, 400, "invalid")
        assert len(response.content) < self.MOST

    @pytest.mark.parametrize(
        "path",
        [
            "conversations/?cursor=" + "x" * 50_000,
            "conversations/?limit=" + "9" * 50_000,
            "conversations/" + "x" * 50_000,
            "conversations/a/export?as=" + "x" * 50_000,
            "nothing/" + "x" * 50_000,
        ],
        ids=lambda path: path[:24],
    )
    def test_a_long_address_is_not_repeated(self, path: str) -> None:
        response = get(path)
        assert 400 <= response.status_code < 500
        assert len(response.content) < self.MOST

    @pytest.mark.parametrize(
        "headers",
        [
            {"Idempotency_Key": "!" * 50_000},
            {"Authorization": "Bearer " + "x" * 50_000},
            {"Content-Type": "text/" + "x" * 50_000},
            {"Content-Type": "application/json; charset=" + "x" * 50_000},
            {"Accept": "text/" + "x" * 50_000},
            {"X-HTTP-Method-Override": "x" * 50_000},
        ],
        ids=lambda headers: next(iter(headers)),
    )
    def test_a_long_header_is_not_repeated(self, settings: Settings, headers: dict[str, str]) -> None:
        if "Authorization" in headers:
            settings.CHAT_AUTH = "token"
        kind = headers.pop("Content-Type", "application/json")
        response = Client().generic("POST", ASK, b"{}", content_type=kind, headers=named(headers))
        assert 400 <= response.status_code < 500
        assert len(response.content) < self.MOST

    def test_a_long_method_is_not_repeated(self) -> None:
        response = Client().generic("X" * 50_000, ASK, b"{}", content_type="application/json")
        refused(response, 405, "method_not_allowed")
        assert len(response.content) < self.MOST
