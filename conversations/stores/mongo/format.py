"""What is in a document: its messages as a list, and a tombstone."""

from typing import Any

from conversations.errors import CorruptHistory
from conversations.ids import MESSAGE_ID
from conversations.models import ALIAS
from conversations.turns import History

TOMBSTONE = rf"^{MESSAGE_ID.pattern}$(?!\n)"  # one that another program wrote and that is no id covers nothing

_END = {"input": {"$slice": ["$messages", -1]}, "as": "one", "in": {"id": "$$one.id", "at": "$$one.at"}}
LAST = {"$cond": [{"$isArray": "$messages"}, {"$map": _END}, []]}
"""The last message, in a list."""


def question_field(characters: int) -> dict[str, Any]:
    """Return the expression of so many characters of the newest question; "" where there is none."""
    question = {"input": {"$slice": ["$messages", -2]}, "as": "one", "in": "$$one.content"}
    content = {"$arrayElemAt": [{"$cond": [{"$isArray": "$messages"}, {"$map": question}, []]}, 0]}
    is_text = {"$eq": [{"$type": content}, "string"]}
    return {"$cond": [is_text, {"$substrCP": [content, 0, characters]}, ""]}


def parse(records: Any) -> History | None:
    """Return the history of a document's messages, None where there are none; raise CorruptHistory."""
    if records == []:
        return None
    try:
        return History.parse(records)
    except (TypeError, ValueError) as error:
        raise CorruptHistory(ALIAS, error) from None


def last_fields(records: Any) -> dict[str, Any]:
    """Return the last message's fields, none where there is no message."""
    last = records[-1] if isinstance(records, list) and records else None
    return last if isinstance(last, dict) else {}
