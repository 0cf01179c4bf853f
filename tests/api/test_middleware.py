"""The API's short way to its views changes no answer and no header."""

import json
from typing import Any

import pytest
from django.test import Client
from pytest_django import Settings

SHORT = "onesource.middleware.PagesOnly"
NOT_COMPARED = {"Date", "Expires", "Last-Modified", "Content-Security-Policy"}  # of pages: the time, and their policy
COOKIES = {"csrftoken": "a" * 32, "sessionid": "b" * 32}
REQUESTS: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", "/api/chat/ask", {"data": {"question": "Is it?", "session_id": "test-of-headers"}}),
    ("POST", "/api/chat/ask/", {"data": {"question": ""}}),
    ("POST", "/api/chat/ask", {"data": {"question": "Is it?", "stream": True, "session_id": "test-of-headers"}}),
    ("POST", "/api/chat/ask", {"data": "no", "content_type": "text/plain"}),
    ("GET", "/api/chat/ask", {}),
    ("OPTIONS", "/api/chat/ask", {}),
    ("GET", "/api/chat/conversations/", {}),
    ("HEAD", "/api/chat/conversations/", {}),
    ("GET", "/api/chat/conversations/nothing-has-this/", {}),
    ("DELETE", "/api/chat/conversations/nothing-has-this/", {}),
    ("GET", "/api/chat/conversations/%0A/", {}),
    ("GET", "/api/chat/nothing", {}),
    ("GET", "/api/chat/", {}),
    ("GET", "/api/chat", {}),
    *(("GET", path, {}) for path in ("/livez", "/healthz/", "/readyz", "/version", "/metrics", "/metrics/")),
    ("HEAD", "/livez", {}),
    ("POST", "/healthz", {}),
    ("GET", "//livez", {}),
    *(("GET", path, {}) for path in ("/", "/nothing", "/api/docs/", "/api/schema/", "/admin/", "/admin/login/")),
    ("POST", "/admin/login/", {}),
    ("GET", "/static/ops/status.css", {}),
]


def answer(method: str, path: str, options: dict[str, Any], **client: Any) -> tuple[int, dict[str, str], list[str]]:
    """Return the status, the headers and the names of the cookies; that of an error too, as a server sends it."""
    asked = Client(raise_request_exception=False, headers={"X-Request-ID": "of-each"}, **client)
    asked.cookies.load(COOKIES)
    data = json.dumps(options["data"]) if "data" in options else ""
    response = asked.generic(method, path, **{"content_type": "application/json", **options, "data": data})
    content = b"".join(response.streaming_content) if response.streaming else response.content
    headers = {name: value for name, value in response.headers.items() if name not in NOT_COMPARED}
    if headers.pop("Content-Length", None) not in (None, str(len(content))):
        assert method == "HEAD", "the Content-Length is wrong"
    return (
        response.status_code,
        headers | {"Content-Length": str(response.has_header("Content-Length"))},
        sorted(response.cookies),
    )


class TestHeaders:
    @pytest.mark.parametrize(("method", "path", "options"), REQUESTS)
    @pytest.mark.parametrize("case", ["http", "https", "redirected", "another host"])
    def test_all_are_as_with_every_middleware(
        self, method: str, path: str, options: dict[str, Any], case: str, settings: Settings, db: None
    ) -> None:
        settings.SECURE_SSL_REDIRECT = case in ("https", "redirected")
        settings.SECURE_HSTS_SECONDS = 1000 * settings.SECURE_SSL_REDIRECT
        extra = {"secure": True} if case == "https" else {}
        client = {"SERVER_NAME": "elsewhere.example"} if case == "another host" else {}
        short = answer(method, path, options | extra, **client)
        settings.MIDDLEWARE = [each for each in settings.MIDDLEWARE if each != SHORT]
        assert short == answer(method, path, options | extra, **client)
