"""What processes agree on through MongoDB: flags in the conversations' documents, and a collection of notes."""

from datetime import timedelta
from typing import Any

from django.db import connections
from pymongo.errors import DuplicateKeyError

from conversations.ids import now
from conversations.models import ALIAS
from conversations.stores.control import ControlStore, Flags
from conversations.stores.mongo.faults import failing_fast
from conversations.stores.mongo.patient import documents
from conversations.stores.sessions import make_key, session_of

_NOTES = "onesource_notes"


class DocumentControl(ControlStore):
    """An unsynced flag is a field of its conversation, a note or a lease a document of its own."""

    def flags(self, limit: int) -> Flags:
        with failing_fast():
            found = documents().find({"mark": {"$gt": ""}}, {"_id": 1}).limit(limit + 1)
            sessions = [session_of(document["_id"]) for document in found]
        return Flags(frozenset(sessions[:limit]), len(sessions) <= limit)

    def clear_flag(self, session: str, flag: str) -> None:
        with failing_fast():
            documents().update_one({"_id": make_key(session), "mark": flag}, {"$unset": {"mark": ""}})

    def note(self, name: str) -> str | None:
        with failing_fast():
            found = documents(_NOTES).find_one({"_id": name})
        return None if found is None else str(found["text"])

    def write_note(self, name: str, text: str) -> None:
        with failing_fast():
            documents(_NOTES).update_one({"_id": name}, {"$set": {"text": text}}, upsert=True)

    def lease(self, name: str, holder: str, seconds: float) -> bool:
        free = {"_id": f"lease:{name}", "$or": [{"holder": holder}, {"until": {"$lte": now()}}]}
        update = {"$set": {"holder": holder, "until": now() + timedelta(seconds=seconds)}}
        with failing_fast():
            try:
                documents(_NOTES).update_one(free, update, upsert=True)
            except DuplicateKeyError:
                return False
        return True

    def identity(self) -> str:
        connection: Any = connections[ALIAS]
        with failing_fast():
            return str(connection.database.command("hello").get("setVersion", ""))
