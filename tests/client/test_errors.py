"""What both clients do with each error, asked with and without streaming: what docs/keys-and-ids.md says."""

import json
import re
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest

from conversations.errors import ConversationError
from onesource_client import OnesourceError, Retries
from onesource_client.errors import NotPersisted
from tests.client.conftest import KINDS, connected, serving, text_of
from tests.deploy.files import ROOT
from tests.unit.test_docs import rows

TABLE = list(rows((ROOT / "docs" / "keys-and-ids.md").read_text(), "## What to do with an error"))
NAMED = re.compile(r"`(\d{3}) ([a-z_]+)`")
ERRORS = [(int(status), code, row[2]) for row in TABLE for status, code in NAMED.findall(row[0])]
ANSWER = {"session_id": "s", "answer": "A.", "message_id": "m", "msg_count_before": 0, "new_thread": True,
          "store": "redis", "stored_in": ["redis"], "context": "full", "replayed": False}  # fmt: skip


class Scripted:
    """A server that gives the replies of a list, then answers; and the questions and keys that it was sent."""

    def __init__(self) -> None:
        self.replies: list[tuple[int, dict[str, Any]]] = []
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str] = []

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        asked = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
        self.asked.append(asked)
        self.keys.append(environ["HTTP_IDEMPOTENCY_KEY"])
        status, body = self.replies.pop(0) if self.replies else (200, ANSWER)
        content = json.dumps(body).encode()
        if status == 200 and asked.get("stream"):
            content = b"event: %s\ndata: %s\n\n" % (b"error" if "code" in body else b"answer", content)
        start_response(f"{status} Scripted", [("Content-Length", str(len(content)))])
        return [content]


@pytest.fixture
def scripted() -> Iterator[tuple[Scripted, str]]:
    """The server and its address."""
    application = Scripted()
    with serving(application) as url:
        yield application, url


def every(kind: type[ConversationError]) -> list[type[ConversationError]]:
    """Return the errors of the service."""
    return [error for each in kind.__subclasses__() for error in (each, *every(each))]


@pytest.mark.parametrize("error", every(ConversationError), ids=lambda error: error.__name__)
@pytest.mark.parametrize("kind", KINDS)
def test_the_error_of_a_stream_is_that_of_a_reply(
    scripted: tuple[Scripted, str], kind: str, error: type[ConversationError]
) -> None:
    server, url = scripted
    body = {"code": error.code, "detail": "why"}
    raised = []
    with connected(kind, url, Retries(tries=1)) as begin:
        for status, streams in ((error.status, False), (error.status, True), (200, True)):  # the last: as an event
            server.replies = [(status, body)]
            with pytest.raises(OnesourceError) as caught:
                text_of(begin(), "What?", streams)
            raised.append((type(caught.value), caught.value.status, caught.value.code, caught.value.detail))
    assert raised == [(raised[0][0], error.status, error.code, "why")] * 3


@pytest.mark.parametrize(
    ("kind", "streams", "event"), [*product(KINDS, (False,), (False,)), *product(KINDS, (True,), (False, True))]
)
def test_a_turn_that_was_not_stored_names_its_conversation(
    scripted: tuple[Scripted, str], kind: str, streams: bool, event: bool
) -> None:
    server, url = scripted
    server.replies = [
        (200 if event else 503, {"code": "not_persisted", "detail": "", "answer": "A.", "session_id": "s"})
    ]
    with connected(kind, url, Retries(tries=1)) as begin:
        conversation = begin()
        with pytest.raises(NotPersisted):
            text_of(conversation, "One?", streams)
        assert conversation.session_id == "s"
        text_of(conversation, "Two?", streams)
    assert [asked.get("session_id") for asked in server.asked] == [None, "s"]


class TestTable:
    @pytest.mark.parametrize(("status", "code", "again"), ERRORS, ids=[code for _, code, _ in ERRORS])
    @pytest.mark.parametrize(("kind", "streams"), list(product(KINDS, (False, True))))
    def test_the_client_sends_again_what_it_allows(
        self, scripted: tuple[Scripted, str], kind: str, streams: bool, status: int, code: str, again: str
    ) -> None:
        server, url = scripted
        server.replies = [(status, {"code": code, "detail": "why"})]
        with connected(kind, url) as begin:
            if again.startswith(("yes", "after")):
                assert text_of(begin(), "What?", streams) == "A."
            else:
                with pytest.raises(OnesourceError) as caught:
                    text_of(begin(), "What?", streams)
                assert (caught.value.status, caught.value.code) == (status, code)
        assert (len(server.keys), len(set(server.keys))) == (2 if again.startswith(("yes", "after")) else 1, 1)

    def test_it_has_every_error_of_a_turn(self) -> None:
        of_every_request = {"invalid", "too_large", "not_found", "error", "corrupt", "invalid_turn"}  # by status
        assert {kind.code for kind in every(ConversationError)} - of_every_request < {code for _, code, _ in ERRORS}

    def test_it_has_every_refusal_after_which_a_request_may_be_sent_again(self) -> None:
        gate = (ROOT / "ops" / "server" / "gate.py").read_text()
        refused = set(re.findall(r"RequestRefused\(\s*(408|503), \"(\w+)\"", gate))
        assert refused <= {(str(status), code) for status, code, _ in ERRORS}
