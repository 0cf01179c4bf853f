"""Functions that send a client's requests to the API."""

import json
import logging
from typing import Any

import pytest
from django.test import Client
from prometheus_client.parser import text_string_to_metric_families

from conversations.answerers.base import Answerer
from conversations.stores import bulk, reachable
from telemetry.logs import JsonFormatter, NoPaths, OfRequest
from tests import environment
from tests.servers import eventually

ASK = "/api/chat/ask"


def post(body: Any, path: str = ASK, **headers: str) -> Any:
    """Post to the API; the headers' names have underscores for hyphens."""
    return Client().post(path, body, content_type="application/json", headers=named(headers))


def ask(question: str, session: str | None = None, *, headers: dict[str, str] | None = None, **fields: Any) -> Any:
    """Ask a question that is answered; return the answer."""
    body = {"question": question, **fields} | ({"session_id": session} if session else {})
    response = post(body, **(headers or {}))
    assert response.status_code == 200, response.content
    return response.json()


def get(path: str, **headers: str) -> Any:
    return Client().get(f"/api/chat/{path}", headers=named(headers))


def delete(path: str, **headers: str) -> Any:
    return Client().delete(f"/api/chat/{path}", headers=named(headers))


def contents(session: str) -> list[str]:
    """Return the contents of the conversation's messages, as the API returns them."""
    response = get(f"conversations/{session}/")
    return [message["content"] for message in response.json()["messages"]] if response.status_code == 200 else []


def named(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


def let(stand_in: type[Answerer]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("answered_by", [stand_in], indirect=True)


def sample(name: str, **labels: str) -> float:
    """Return the value of a series in /metrics now."""
    page = Client().get("/metrics").content.decode()
    found = [
        each.value
        for family in text_string_to_metric_families(page)
        for each in family.samples
        if (each.name, each.labels) == (name, labels)
    ]
    assert len(found) == 1, f"{name}{labels}: {found}"
    return float(found[0])


def stop_the_stores() -> None:
    """Kill both stores; return when the drivers have noticed, so that no connection is lost in the middle of a call."""
    environment.REDIS.kill()
    environment.MONGO.kill()
    eventually(lambda: not reachable(), "a store still answers")


def list_anew(alias: str) -> None:
    """Have the store's list made anew, as a watcher does once a day."""
    for _ in bulk(alias).list_all():
        pass


class Lines(logging.Handler):
    """Every record, as the log's handler would write it."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonFormatter())
        self.addFilter(NoPaths())
        self.addFilter(OfRequest())
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]
