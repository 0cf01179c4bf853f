"""A streamed answer as server-sent events."""

from collections.abc import Iterator
from typing import Any

import orjson
from django.http import StreamingHttpResponse

from conversations.api.errors import body
from conversations.api.output_serializers import answer_fields
from conversations.chat import Answer
from conversations.errors import ConversationError

SESSION_HEADER = "X-Session-ID"


def event_stream(pieces: Iterator[str | Answer], session_id: str) -> StreamingHttpResponse:
    """Return the response whose events are the pieces; a proxy in front must not buffer them. A client that leaves
    before the answer has ended knows the conversation by its header."""
    headers = {"X-Accel-Buffering": "no", SESSION_HEADER: session_id}
    return StreamingHttpResponse(_events(pieces), content_type="text/event-stream", headers=headers)


def _events(pieces: Iterator[str | Answer]) -> Iterator[bytes]:
    """Yield `delta` events, then one `answer` (stored, as a 200 would be) or one `error`."""
    try:
        for piece in pieces:
            if isinstance(piece, Answer):
                yield _event("answer", answer_fields(piece))
            else:
                yield _event("delta", {"text": piece})
    except ConversationError as error:
        yield _event("error", body(error))


def _event(name: str, data: dict[str, Any]) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), orjson.dumps(data))
