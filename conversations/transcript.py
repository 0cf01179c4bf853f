"""A conversation as a document for people."""

from typing import Any

from conversations.turns import QUESTION, History


def markdown(conversation: dict[str, Any]) -> str:
    """Return the conversation's messages as Markdown, under its session_id."""
    parts = [f"# {conversation['session_id']}\n"]
    for message in History.parse(conversation["messages"]):
        who = "Question" if message.role == QUESTION else "Answer"
        parts.append(f"## {who}\n\n*{message.at}*\n\n{message.content}\n")
    return "\n".join(parts)
