"""djongo's schema editor, with collections as the default engine makes them."""

from typing import Any

from djongo import schema


class SchemaEditor(schema.DatabaseSchemaEditor):
    """Makes the collection of django_migrations alone: no other table is made here.

    djongo would number its documents, with a unique index on the number. The default engine, which gives none, could
    not record two migrations there.
    """

    def create_model(self, model: Any) -> None:
        self.connection.database.create_collection(model._meta.db_table)
