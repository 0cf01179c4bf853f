"""What one conversation knows and asks, as steps: the same for both clients."""

import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from onesource_client.errors import NotFound, NotStored, OnesourceError, Unreachable, error_of_event
from onesource_client.events import Events, Pieces
from onesource_client.results import Answer, History
from onesource_client.retries import Attempts
from onesource_client.steps import Lost, Piece, Read, Reply, Send, Steps, again, failure, sent

SESSION_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
USER = re.compile(r"[A-Za-z0-9@._+:-]{1,128}")
IDEMPOTENCY_KEY = re.compile(r"[A-Za-z0-9._:~+/=-]{1,128}")
Format = Literal["json", "markdown"]


class ConversationSteps:
    """A conversation: its session_id, None until the service names it, and the last message that this client was given.

    It is for one user of it at a time: an answer is asked for with what the one before gave."""

    def __init__(self, session_id: str | None, last_message_id: str | None, user: str | None) -> None:
        if user is not None and not USER.fullmatch(user):
            raise ValueError("a user has 1 to 128 of the characters A-Z a-z 0-9 @ . _ + : -")
        if session_id is not None and (not SESSION_ID.fullmatch(session_id) or session_id in (".", "..")):
            raise ValueError("a session_id has 1 to 128 of the characters A-Z a-z 0-9 . _ -")
        self.session_id = session_id
        self.last_message_id = last_message_id
        self.user = user

    def _asking(self, question: str, require_context: bool, key: str | None, attempts: Attempts) -> Steps[Answer]:
        with self._named_by_error():
            answer = yield from sent(self._question(question, require_context, key, streams=False), attempts, _answer)
        return self._keep(answer)

    def _streaming(
        self, question: str, require_context: bool, key: str | None, attempts: Attempts, pieces: Pieces
    ) -> Steps[Answer]:
        """Yield the answer's pieces. Where the connection is lost in the middle, the question is sent again."""
        call = self._question(question, require_context, key, streams=True)
        while True:
            pieces.begin()
            found = yield from self._streamed(call, pieces)
            if isinstance(found, Answer):
                if rest := pieces.end(found.answer):
                    yield Piece(rest)
                return self._keep(found)
            with self._named_by_error():
                call = yield from again(call, found, attempts)

    def _streamed(self, call: Send, pieces: Pieces) -> Steps[Answer | OnesourceError]:
        """Send the question once and yield what is new of its answer; return the answer, or the error that came."""
        reply = yield call
        if error := failure(reply):
            return error
        self._named(reply.session_id)
        events = Events()
        while True:
            chunk: bytes | Lost = yield Read()
            if isinstance(chunk, Lost) or not chunk:
                return Unreachable(chunk.reason if isinstance(chunk, Lost) else "the answer ended early")
            for name, data in events.feed(chunk):
                if name == "delta" and (new := pieces.feed(data["text"])):
                    yield Piece(new)
                elif name == "answer":
                    return Answer.of(data)
                elif name == "error":
                    return error_of_event(data)

    def _adding(self, question: str, answer: str, key: str | None, attempts: Attempts) -> Steps[Answer]:
        if self.session_id is None:
            self.session_id = uuid.uuid4().hex  # before it is sent: another try is for the same conversation
        body = {"question": question, "answer": answer, "last_message_id": self.last_message_id, **self._of_user}
        call = Send("POST", f"{self._path}turns", body, checked_key(key))
        return self._keep((yield from sent(call, attempts, _answer)))

    def _reading(self, attempts: Attempts) -> Steps[History]:
        if self.session_id is None:
            return History()
        history = yield from sent(Send("GET", self._path), attempts, lambda reply: History.of(reply.json()))
        if history:
            self._was_given(history[-1].id)
        return history

    def _deleting(self, attempts: Attempts) -> Steps[None]:
        if self.session_id is None:
            return
        try:
            yield from sent(Send("DELETE", self._path), attempts, lambda reply: None)
        except NotFound:
            if not attempts.repeated:
                raise
            # An earlier try has deleted it, and its reply was lost.
        self.last_message_id = None

    def _exporting(self, form: Format, attempts: Attempts) -> Steps[str]:
        if self.session_id is None:
            raise NotFound("No such conversation: it has no session_id yet.", code="not_found")
        call = Send("GET", f"{self._path}export", query={"as": form})
        return (yield from sent(call, attempts, lambda reply: reply.content.decode()))

    @property
    def _path(self) -> str:
        return f"/api/chat/conversations/{self.session_id}/"

    @property
    def _of_user(self) -> dict[str, str]:
        return {} if self.user is None else {"user": self.user}

    def _question(self, question: str, require_context: bool, key: str | None, *, streams: bool) -> Send:
        body: dict[str, Any] = {"question": question, "last_message_id": self.last_message_id, **self._of_user}
        if self.session_id is not None:
            body["session_id"] = self.session_id
        if require_context:
            body["require_context"] = True
        if streams:
            body["stream"] = True
        return Send("POST", "/api/chat/ask", body, checked_key(key), streams=streams)

    def _named(self, session_id: str) -> None:
        """Keep the name of a new conversation as soon as it is known: its next question belongs to it."""
        self.session_id = self.session_id or session_id or None

    @contextmanager
    def _named_by_error(self) -> Iterator[None]:
        try:
            yield
        except NotStored as error:
            self._named(error.session_id)
            raise

    def _keep(self, answer: Answer) -> Answer:
        self.session_id = answer.session_id
        self._was_given(answer.message_id)
        return answer

    def _was_given(self, message_id: str) -> None:
        """Ids sort by time; of a stored answer that is given again a later one may be known."""
        self.last_message_id = max(message_id, self.last_message_id or "")


class StreamSteps:
    """An answer that comes piece by piece: its steps, and what is known of it."""

    def __init__(self, steps: Steps[Answer], pieces: Pieces) -> None:
        self._steps = steps
        self._pieces = pieces
        self.answer: Answer | None = None
        """The stored turn, once all pieces were given."""

    @property
    def replaced(self) -> bool:
        """Whether the pieces are not those of the stored answer: the connection was lost in the middle, nothing had
        been stored, and the question was answered anew. `answer` has the answer that counts."""
        return self._pieces.replaced


def checked_key(key: str | None) -> str:
    """Return the Idempotency-Key, a new one for None."""
    if key is not None and not IDEMPOTENCY_KEY.fullmatch(key):
        raise ValueError("an Idempotency-Key has 1 to 128 of the characters A-Z a-z 0-9 . _ : ~ + / = -")
    return key or str(uuid.uuid4())


def _answer(reply: Reply) -> Answer:
    return Answer.of(reply.json())
