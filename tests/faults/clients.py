"""Clients that each own a conversation, ask question after question, and know what they were acknowledged.

Every second client sends back the `message_id` it was last given, every second pair of them an
Idempotency-Key, with which it asks again after an error or a lost connection until it is answered. The others go on to
their next question: what became of the last one they do not know.
"""

import http.client
import json
import threading
import time
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

RETRY_SECONDS = 0.2  # after an error
TIMEOUT_SECONDS = 10.0
FRESH_EVERY = 3  # a new connection every so many requests: it may reach another worker


@dataclass
class Ask:
    """One request and what came of it; times are on the monotonic clock."""

    client: int
    session: str
    question: str
    key: str | None
    carried: str | None
    """The `last_message_id` that was sent."""
    started: float
    ended: float = 0.0
    status: int | None = None
    error: str = ""
    """What kind of error it was, "" for none: status and code, or what the connection died of."""
    body: dict[str, Any] = field(default_factory=dict)
    machine: int = 0
    """Which server was asked."""

    @property
    def acknowledged(self) -> bool:
        return self.status == 200

    @property
    def milliseconds(self) -> float:
        return (self.ended - self.started) * 1000


@dataclass
class Deletion:
    """A DELETE and what came of it."""

    session: str
    started: float
    ended: float
    error: str = ""
    machine: int = 0


@dataclass
class Talk:
    """One client's part in one conversation, in the order in which it happened."""

    client: int
    session: str
    carries: bool
    keyed: bool
    asks: list[Ask] = field(default_factory=list)
    deletions: list[Deletion] = field(default_factory=list)
    last_id: str | None = None


class Client(threading.Thread):
    """One client; its conversations are asked in turn, the servers too."""

    def __init__(
        self,
        number: int,
        ports: list[int],
        sessions: list[str],
        stopping: threading.Event,
        pause: float,
        hosts: list[str] | None = None,
    ) -> None:
        super().__init__(name=f"client {number}", daemon=True)
        self.number = number
        self.talks = [Talk(number, session, number % 2 == 0, number // 2 % 2 == 0) for session in sessions]
        self.delete_next = threading.Event()
        """Set when the client is to delete its first conversation, in which it then goes on."""
        self.rests = threading.Event()
        """Set when the client is to ask no more: its conversations are repaired with nobody asking, or never."""
        self._ports = ports
        self._hosts = hosts or ["127.0.0.1"] * len(ports)
        self._over = stopping
        self._pause = pause
        self._connections: dict[int, http.client.HTTPConnection] = {}
        self._requests = 0

    def run(self) -> None:
        number = 0
        while not (self._over.is_set() or self.rests.is_set()):
            talk = self.talks[number % len(self.talks)]
            if self.delete_next.is_set() and talk is self.talks[0]:
                self._delete_talk(talk)
                self.delete_next.clear()
            number += 1
            self._ask_until_answered(talk, f"c{self.number} q{number}")
            self._over.wait(self._pause)
        self._hang_up()

    def ask_once_more(self, talk: Talk) -> Ask:
        """Ask a last question, when all is over; called after the thread has ended."""
        ask = self._ask(talk, f"c{self.number} last", str(uuid4()) if talk.keyed else None)
        self._hang_up()
        return ask

    def _ask_until_answered(self, talk: Talk, question: str) -> None:
        key = str(uuid4()) if talk.keyed else None
        while not self._ask(talk, question, key).acknowledged:
            self._over.wait(RETRY_SECONDS)
            if not key or self._over.is_set():
                return

    def _ask(self, talk: Talk, question: str, key: str | None) -> Ask:
        ask = Ask(self.number, talk.session, question, key, talk.last_id if talk.carries else None, 0.0)
        talk.asks.append(ask)
        body: dict[str, Any] = {"question": question, "session_id": talk.session}
        if ask.carried:
            body["last_message_id"] = ask.carried
        headers = {"Content-Type": "application/json"} | ({"Idempotency-Key": key} if key else {})
        ask.machine = self._requests % len(self._ports)
        ask.started = time.monotonic()
        ask.status, ask.error, ask.body = self._send(ask.machine, "POST", "/api/chat/ask", json.dumps(body), headers)
        ask.ended = time.monotonic()
        if ask.acknowledged:
            talk.last_id = ask.body["message_id"]
        return ask

    def _delete_talk(self, talk: Talk) -> None:
        last = len(self._ports) - 1  # where clocks differ, the one that is ahead
        while not self._over.is_set():
            started = time.monotonic()
            status, error, _ = self._send(last, "DELETE", f"/api/chat/conversations/{talk.session}/", None, {})
            again = bool(talk.deletions and talk.deletions[-1].error)  # that one may have done it
            done = status == 204 or (status == 404 and again)
            talk.deletions.append(Deletion(talk.session, started, time.monotonic(), "" if done else error, last))
            if done:
                talk.last_id = None
                return
            self._over.wait(RETRY_SECONDS)

    def _send(
        self, machine: int, method: str, path: str, body: str | None, headers: dict[str, str]
    ) -> tuple[int | None, str, dict[str, Any]]:
        """Return the status, the kind of error if it is one, and the body."""
        self._requests += 1
        port = self._ports[machine]
        if self._requests % FRESH_EVERY == 0:
            self._hang_up()
        connection = self._connections.get(port)
        if connection is None:
            connection = http.client.HTTPConnection(self._hosts[machine], port, timeout=TIMEOUT_SECONDS)
            self._connections[port] = connection
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            self._hang_up()
            return None, f"connection {type(error).__name__}", {}
        try:
            answer: dict[str, Any] = json.loads(content) if content else {}
        except ValueError:
            answer = {"code": "no JSON"}
        failed = response.status >= 400
        return response.status, f"{response.status} {answer.get('code', '')}" if failed else "", answer

    def _hang_up(self) -> None:
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()


class Load:
    """All the clients of a row."""

    def __init__(
        self,
        name: str,
        ports: list[int],
        clients: int,
        *,
        sessions_each: int,
        sharing: int,
        pause: float,
        hosts: list[str] | None = None,
    ) -> None:
        """`sharing` clients have one conversation together; `pause` seconds are between an answer and the next
        question, so that the load is not itself the fault."""
        self.name = name
        self._over = threading.Event()
        run = uuid4().hex[:6]
        self.clients = [
            Client(
                number,
                ports,
                [f"{name}-{run}-{number // sharing}-{each}" for each in range(sessions_each)],
                self._over,
                pause,
                hosts,
            )
            for number in range(clients)
        ]

    @property
    def talks(self) -> list[Talk]:
        return [talk for client in self.clients for talk in client.talks]

    @property
    def sessions(self) -> list[str]:
        return list(dict.fromkeys(talk.session for talk in self.talks))

    @property
    def acknowledged(self) -> int:
        """How many questions have been answered so far."""
        return sum(ask.acknowledged for talk in self.talks for ask in talk.asks)

    def start(self) -> "Load":
        for client in self.clients:
            client.start()
        return self

    def stop(self) -> None:
        """Return when every client has had its last answer."""
        self._over.set()
        for client in self.clients:
            client.join()

    def ask_once_more(self) -> list[Ask]:
        """Have every client ask once more in each of its conversations."""
        return [client.ask_once_more(talk) for client in self.clients for talk in client.talks]
