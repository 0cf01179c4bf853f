"""`smoke`: the runbook's end-to-end test against a service that answers, forgets, refuses, or is not there."""

from pathlib import Path

import pytest
from pytest_django import Settings

from conversations.answerers.recall import RecallAnswerer
from conversations.api.authentication import make_token
from conversations.stores import ALIASES, store
from tests.commands.working import run, run_json

pytestmark = pytest.mark.usefixtures("both_empty")


def left() -> int:
    """Return how many conversations the stores hold."""
    return sum(len(store(alias).scan().sessions) for alias in ALIASES)


def test_a_service_that_remembers_is_fine_and_keeps_nothing_of_it(server: str) -> None:
    code, said = run("smoke", "--url", server)
    assert code == 0
    assert said.splitlines() == [
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
    code, told = run_json("smoke")
    assert (code, told["ok"]) == (0, True)
    assert told["url"].startswith("http://localhost:")


def test_an_answer_that_has_forgotten_is_trouble(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RecallAnswerer, "answer", lambda *_: iter(["Nothing."]))
    code, said = run("smoke", "--url", server)
    assert code == 1
    assert "FAILED  context           the answer does not name the first question\n" in said
    assert said.endswith("failed at: context\n")
    assert left() == 0


def test_a_service_that_refuses_is_trouble_and_a_token_helps(server: str, settings: Settings, tmp_path: Path) -> None:
    settings.CHAT_AUTH = "token"
    code, said = run("smoke", "--url", server)
    assert code == 1
    assert "FAILED  ask               401 not_authenticated\n" in said
    token = tmp_path / "token"
    token.write_text(make_token("smoke") + "\n")
    code, said = run("smoke", "--url", server, "--token-file", str(token))
    assert code == 0, said
    assert token.read_text().strip() not in said


def test_no_server_is_said() -> None:
    code, said = run("smoke", "--url", "http://127.0.0.1:9/")
    assert (code, said) == (2, "no server answers on http://127.0.0.1:9/: Connection refused\n")


def test_a_password_in_the_address_is_refused_and_not_repeated() -> None:
    code, said = run("smoke", "--url", "http://me:secret@127.0.0.1:9/")
    assert code == 2
    assert "the address must hold no password" in said
    assert "secret" not in said


def test_a_token_file_that_is_not_there_is_said(server: str, tmp_path: Path) -> None:
    assert run("smoke", "--url", server, "--token-file", str(tmp_path / "none"))[0] == 2
