"""`smoke`: the runbook's end-to-end test against a service that answers, forgets, refuses, or is unavailable."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from pytest_django import Settings

from conversations.answerers.recall import RecallAnswerer
from conversations.stores import ALIASES, store
from ops.errors import NoServer
from ops.service import Service
from tests.builders import make_token
from tests.commands.working import run, run_json

pytestmark = pytest.mark.usefixtures("both_empty")


def left() -> int:
    """Return how many conversations the stores hold."""
    return sum(len(store(alias).scan().sessions) for alias in ALIASES)


def test_a_service_that_remembers_is_fine_and_keeps_no_conversation(server: str) -> None:
    code, output = run("smoke", "--url", server)
    assert code == 0
    assert output.splitlines() == [
        "ok      healthz           200 ok",
        "ok      ask               200, context full, stored in redis",
        "ok      follow-up         200, context full, stored in redis",
        "ok      context           the answer names the first question",
        "ok      msg_count_before  2, and should be 2",
        "ok      read              200, 4 messages of 4",
        "ok      delete            204",
        "ok      deleted           404 not_found",
    ]
    assert left() == 0


def test_without_url_it_asks_the_server_of_this_machine(server: str) -> None:
    code, report = run_json("smoke")
    assert (code, report["ok"]) == (0, True)
    assert report["url"].startswith("http://localhost:")


def test_an_answer_that_has_forgotten_is_trouble(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RecallAnswerer, "answer", lambda *_, **__: iter(["Nothing."]))
    code, output = run("smoke", "--url", server)
    assert code == 1
    assert "FAILED  context           the answer does not name the first question\n" in output
    assert output.endswith("failed at: context\n")
    assert left() == 0


def test_a_service_that_refuses_is_trouble_and_a_token_helps(server: str, settings: Settings, tmp_path: Path) -> None:
    settings.CHAT_AUTH = "token"
    code, output = run("smoke", "--url", server)
    assert code == 1
    assert "FAILED  ask               401 not_authenticated\n" in output
    token = tmp_path / "token"
    token.write_text(make_token("smoke") + "\n")
    code, output = run("smoke", "--url", server, "--token-file", str(token))
    assert code == 0, output
    assert token.read_text().strip() not in output


def test_no_server_is_reported() -> None:
    code, output = run("smoke", "--url", "http://127.0.0.1:9/")
    assert (code, output) == (2, "no server answers on http://127.0.0.1:9/: Connection refused\n")


def test_a_password_in_the_address_is_refused_and_not_repeated() -> None:
    code, output = run("smoke", "--url", "http://me:secret@127.0.0.1:9/")
    assert code == 2
    assert "the address must hold no password" in output
    assert "secret" not in output


def test_an_address_that_cannot_be_read_is_reported() -> None:
    assert run("smoke", "--url", "http://[::1") == (2, "no server answers on that address: this is no address\n")


def test_a_missing_token_file_is_reported(server: str, tmp_path: Path) -> None:
    assert run("smoke", "--url", server, "--token-file", str(tmp_path / "none"))[0] == 2


class _Redirecting(BaseHTTPRequestHandler):
    """Redirects every request, and records its headers."""

    seen: ClassVar[list[tuple[str, str | None]]] = []

    def do_GET(self) -> None:
        self.seen.append((self.path, self.headers["Authorization"]))
        self.send_response(302)
        self.send_header("Location", "/elsewhere")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def redirecting() -> Iterator[str]:
    _Redirecting.seen.clear()
    with HTTPServer(("127.0.0.1", 0), _Redirecting) as serving:
        thread = threading.Thread(target=serving.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()
        thread.join()


def test_no_redirect_is_followed_since_the_token_would_go_along(redirecting: str) -> None:
    assert Service(redirecting, "a-token").call("GET", "/healthz") == (302, b"")
    assert _Redirecting.seen == [("/healthz", "Bearer a-token")]


def test_no_proxy_of_the_environment_is_used(redirecting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert Service(redirecting).call("GET", "/")[0] == 302


@pytest.mark.parametrize("url", ["http://127.0.0.1:port", "http://[::1", "ftp://127.0.0.1", "http://127.0.0.1:9\n"])
def test_an_invalid_address_is_reported(url: str) -> None:
    with pytest.raises(NoServer):
        Service(url).call("GET", "/")


def test_a_token_that_no_header_can_hold_is_reported_and_not_repeated(redirecting: str) -> None:
    with pytest.raises(NoServer) as raised:
        Service(redirecting, "gehe\N{LATIN SMALL LETTER I WITH DIAERESIS}m\n").call("GET", "/")
    assert "gehe" not in str(raised.value)
