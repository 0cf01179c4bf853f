"""Plain functions that say to the API what a client says."""

from typing import Any

from django.test import Client

ASK = "/api/chat/ask"


def post(body: Any, path: str = ASK, **headers: str) -> Any:
    """Post to the API; the headers' names have underscores for hyphens."""
    return Client().post(path, body, content_type="application/json", headers=_named(headers))


def ask(question: str, session: str | None = None, *, headers: dict[str, str] | None = None, **fields: Any) -> Any:
    """Ask a question that is answered; return the answer."""
    body = {"question": question, **fields} | ({"session_id": session} if session else {})
    response = post(body, **(headers or {}))
    assert response.status_code == 200, response.content
    return response.json()


def get(path: str, **headers: str) -> Any:
    return Client().get(f"/api/chat/{path}", headers=_named(headers))


def delete(path: str, **headers: str) -> Any:
    return Client().delete(f"/api/chat/{path}", headers=_named(headers))


def said(session: str) -> list[str]:
    """Return the contents of the conversation's messages, as the API tells them."""
    response = get(f"conversations/{session}/")
    return [message["content"] for message in response.json()["messages"]] if response.status_code == 200 else []


def _named(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}
