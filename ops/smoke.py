"""The runbook's end-to-end test against a running service, with a conversation of its own, which it deletes again."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import orjson

from ops.errors import NoServer
from ops.service import Service

FOLLOW_UP = "What did I just ask about?"


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was tried, and its outcome, which the JSON has as `said`."""

    name: str
    ok: bool
    said: str


def check(url: str, token: str = "") -> list[Step]:
    """Return every step; raise NoServer, and nothing was tried, when no server answers there."""
    talk = _Talk(url.rstrip("/"), token)
    status, health = talk.call("GET", "/healthz")
    steps = [Step("healthz", status == 200, f"{status} {health.get('status', 'is not ours')}")]
    try:
        steps += talk.steps()
    except NoServer as error:
        steps.append(Step("connection", False, error.reason))
    finally:
        talk.clean_up()
    return steps


class _Talk:
    """One conversation with the service, about a word that occurs in no other."""

    def __init__(self, url: str, token: str) -> None:
        self.service = Service(url, token)
        self.session = f"smoke-{uuid4().hex}"
        self.word = f"memory-{uuid4().hex[:8]}"
        self.gone = True

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, dict[str, Any]]:
        status, content = self.service.call(method, path, body)
        try:
            answer = orjson.loads(content) if content else {}
        except ValueError:
            answer = {}
        return status, answer if isinstance(answer, dict) else {}

    def steps(self) -> Iterator[Step]:
        where = f"/api/chat/conversations/{self.session}/"
        self.gone = False
        status, first = self._ask(f"Test conversation {self.word}")
        yield Step("ask", status == 200 and first.get("msg_count_before") == 0, _ask_in_words(status, first))
        status, second = self._ask(FOLLOW_UP, first.get("message_id"))
        yield Step("follow-up", status == 200, _ask_in_words(status, second))
        names_it = self.word in str(second.get("answer", ""))
        yield Step("context", names_it, f"the answer {'names' if names_it else 'does not name'} the first question")
        before = second.get("msg_count_before")
        yield Step("msg_count_before", before == 2, f"{before}, and should be 2")
        status, answer = self.call("GET", where)
        number = len(answer.get("messages", []))
        yield Step("read", status == 200 and number == 4, f"{status}, {number} messages of 4")
        status, answer = self.call("DELETE", where)
        self.gone = status == 204
        yield Step("delete", status == 204, _status_in_words(status, answer))
        status, answer = self.call("GET", where)
        yield Step("deleted", status == 404, _status_in_words(status, answer))

    def clean_up(self) -> None:
        """Delete the conversation, if it may still be there."""
        try:
            if not self.gone:
                self.call("DELETE", f"/api/chat/conversations/{self.session}/")
        except NoServer:
            return

    def _ask(self, question: str, last: Any = None) -> tuple[int, dict[str, Any]]:
        body = {"question": question, "session_id": self.session} | ({"last_message_id": last} if last else {})
        return self.call("POST", "/api/chat/ask", body)


def _ask_in_words(status: int, answer: dict[str, Any]) -> str:
    if status != 200:
        return _status_in_words(status, answer)
    return f"{status}, context {answer.get('context')}, stored in {' and '.join(answer.get('stored_in', []))}"


def _status_in_words(status: int, answer: dict[str, Any]) -> str:
    return f"{status} {answer['code']}" if "code" in answer else str(status)
