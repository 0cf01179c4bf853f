"""What MongoDB reports about itself, by hello, serverStatus and replSetGetStatus."""

from typing import Any

from django.db import connections
from pymongo.errors import OperationFailure

from conversations.models import ALIAS
from conversations.stores.info import StoreInfo
from conversations.stores.mongo.faults import as_unavailable


def read(alias: str) -> StoreInfo:
    """Return what the server reports; what the user has no right to read is left out. Raise StoreUnavailable."""
    hello, status, members = _answers(alias)
    resident = status.get("mem", {}).get("resident")
    engine = status.get("storageEngine", {})
    return StoreInfo(
        version=status.get("version"),
        memory_bytes=resident * 1_048_576 if resident else None,
        clients=status.get("connections", {}).get("current"),
        role=_role(hello),
        replicas=max(len(members) - 1, 0) if members else None,
        lag=_lag(members),
        persistence=f"{engine['name']}, journaled majority writes" if engine.get("persistent") else None,
    )


def _answers(alias: str) -> tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]:
    status: dict[str, Any] = {}
    members: list[dict[str, Any]] = []
    with as_unavailable(alias):
        connections[ALIAS].ensure_connection()
        admin = connections[ALIAS].connection.admin
        hello = admin.command("hello")
        try:
            status = admin.command("serverStatus")
            members = admin.command("replSetGetStatus").get("members", [])
        except OperationFailure:  # each needs a right of its own, the second a replica set too
            pass
    return hello, status, members


def _role(hello: dict[str, Any]) -> str:
    role = "primary" if hello.get("isWritablePrimary") else "secondary" if hello.get("secondary") else "other"
    return f"{role} of {hello['setName']}" if hello.get("setName") else role


def _lag(members: list[dict[str, Any]]) -> str | None:
    dates = [member["optimeDate"] for member in members if "optimeDate" in member]
    return f"{(max(dates) - min(dates)).total_seconds():.0f} s" if len(dates) > 1 else None
