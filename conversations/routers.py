"""The database router: conversations are in MongoDB, Django's own tables on `default`."""

from typing import Any

from conversations.models import ALIAS


class ConversationRouter:
    """Routes this app, and no other, to MongoDB."""

    def db_for_read(self, model: Any, **hints: Any) -> str | None:
        return ALIAS if model._meta.app_label == "conversations" else None

    db_for_write = db_for_read

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool:
        return (db == ALIAS) == (app_label == "conversations")
