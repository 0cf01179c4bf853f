"""The database wrapper that Django loads."""

from types import SimpleNamespace
from typing import Any, ClassVar

import pymongo
from djongo import base, database
from pymongo.errors import PyMongoError

from conversations.stores.mongo.djongo import sql
from conversations.stores.mongo.djongo.cursor import Cursor
from conversations.stores.mongo.djongo.operations import Operations
from conversations.stores.mongo.djongo.schema import SchemaEditor

Document = dict[str, Any]
Client = pymongo.MongoClient[Document]

sql.register(base.DatabaseWrapper.vendor)


class DatabaseWrapper(base.DatabaseWrapper):
    """djongo's, with one client for all threads, which no request closes. What the stores use of it is as in the
    default engine: `connection` is the client, and `database`, `get_collection` and `close_pool` are there."""

    # The driver's errors are translated to Django's too.
    Database = SimpleNamespace(
        **vars(database)
        | {
            "DatabaseError": (database.DatabaseError, PyMongoError),
            "Error": (database.Error, PyMongoError),
        }
    )
    SchemaEditorClass = SchemaEditor
    ops_class = Operations
    # `sql` writes the other lookups. A LIKE may not reach djongo.
    operators = {
        name: written
        for name, written in base.DatabaseWrapper.operators.items()
        if name in ("exact", "gt", "gte", "lt", "lte")
    }
    connection: Any
    _connection_pools: ClassVar[dict[str, Client]] = {}

    def get_connection_params(self) -> dict[str, Any]:
        return {"host": self.settings_dict["HOST"], **self.settings_dict["OPTIONS"]}

    def get_new_connection(self, params: dict[str, Any]) -> Client:
        if self.alias not in self._connection_pools:
            self._connection_pools.setdefault(self.alias, pymongo.MongoClient(**params))
        return self._connection_pools[self.alias]

    @property
    def database(self) -> pymongo.database.Database[Document]:
        self.ensure_connection()
        client: Client = self.connection
        return client[self.settings_dict["NAME"]]

    def get_collection(self, name: str) -> pymongo.collection.Collection[Document]:
        return self.database[name]

    def create_cursor(self, name: str | None = None) -> Cursor:
        return Cursor(self.connection, self.database, base.DjongoClient(self.database, enforce_schema=False))

    def close(self) -> None:
        """Do nothing: the client is every thread's."""

    def close_pool(self) -> None:
        """Close the client."""
        self.connection = None
        if client := self._connection_pools.pop(self.alias, None):
            client.close()

    def _rollback(self) -> None:
        """Do nothing, as _commit: there are no transactions."""
