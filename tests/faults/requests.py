"""A request of each kind, made at one moment of a fault, and how long each took."""

import http.client
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from tests.faults.proxy import Mode
from tests.faults.stack import Stack

ROUND_TRIP_MS = 500
_CHAT = "/api/chat"
_CONVERSATION = f"{_CHAT}/conversations/%s/"
KINDS = {
    "ask": ("POST", f"{_CHAT}/ask"),
    "stream": ("POST", f"{_CHAT}/ask"),
    "list": ("GET", f"{_CHAT}/conversations/"),
    "read": ("GET", _CONVERSATION),
    "export": ("GET", f"{_CONVERSATION}export"),
    "delete": ("DELETE", _CONVERSATION),
}
FAULTS: dict[str, tuple[Callable[[Stack, str], None], Callable[[Stack, str], None]]] = {
    "slow": (
        lambda stack, alias: stack.wire(alias, Mode.SLOW, ROUND_TRIP_MS // 2),
        lambda stack, alias: stack.wire(alias, Mode.PASS),
    ),
    "frozen": (
        lambda stack, alias: stack.freeze(alias),
        lambda stack, alias: stack.thaw(alias),
    ),
    "refusing": (
        lambda stack, alias: stack.wire(alias, Mode.REFUSE),
        lambda stack, alias: stack.wire(alias, Mode.PASS),
    ),
}
"""How a store fails, and how that ends."""


@dataclass(frozen=True, slots=True)
class Answered:
    """What became of a request."""

    status: int
    seconds: float
    body: bytes


def ask(port: int, session: str, kind: str = "ask") -> Answered:
    """Make a request of this kind for the conversation, on a connection of its own."""
    method, path = KINDS[kind]
    body = {"question": "What?", "session_id": session, "stream": kind == "stream"} if method == "POST" else None
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.connect()
        begin = time.monotonic()
        headers: dict[str, Any] = {"Content-Type": "application/json"} if body else {}
        connection.request(method, path.replace("%s", session), json.dumps(body) if body else None, headers)
        response = connection.getresponse()
        content = response.read()
        return Answered(response.status, time.monotonic() - begin, content)
    finally:
        connection.close()


def during(stack: Stack, alias: str, fault: str) -> dict[str, Answered]:
    """Return what becomes of one request of each kind, all made as the fault has begun, before a breaker has opened."""
    sessions = {kind: f"slow-{uuid4().hex}" for kind in KINDS}
    for session in sessions.values():
        assert ask(stack.service.port, session).status == 200
    begin, end = FAULTS[fault]
    begin(stack, alias)
    try:
        with ThreadPoolExecutor(len(KINDS)) as executor:
            made = {kind: executor.submit(ask, stack.service.port, sessions[kind], kind) for kind in KINDS}
            return {kind: each.result() for kind, each in made.items()}
    finally:
        end(stack, alias)
