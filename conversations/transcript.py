"""A conversation as a document for people."""

from typing import Any

from conversations.turns import ANSWER, QUESTION, History

NAMES = {QUESTION: "Question", ANSWER: "Answer"}
"""What a message of each role is to people."""


def markdown(conversation: dict[str, Any]) -> str:
    """Return the conversation's messages as Markdown, under its session_id."""
    parts = [f"# {conversation['session_id']}\n"]
    for message in History.parse(conversation["messages"]):
        parts.append(f"## {NAMES[message.role]}\n\n*{message.at}*\n\n{message.content}\n")
    return "\n".join(parts)
