"""What processes agree on through MongoDB: flags in the conversations' documents, and a collection of notes."""

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from math import inf
from typing import Any

from django.db import connections
from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from conversations.clock import now
from conversations.datasets import SILENT, Dataset
from conversations.models import ALIAS
from conversations.stores.control import ControlStore, Flags, Report
from conversations.stores.mongo import connection, flags, indexes
from conversations.stores.mongo.faults import failing_fast
from conversations.stores.mongo.patient import NOTES, counting, documents, patient
from conversations.stores.sessions import make_key

_INDEXING = 120.0  # seconds: many documents may be there already
_DATASET, _HEARTBEAT, _PAST = "dataset", "heartbeat:", "heartbeat;"


class DocumentControl(ControlStore):
    """An unsynced flag is a field of its conversation, a note or a lease a document of its own."""

    _flagged: float = inf
    """How many flags there were when they were last counted; unknown where that failed."""

    def flags(self, limit: int) -> Flags:
        expected, self._flagged = self._flagged, inf
        with failing_fast(counting()):
            sessions, number = flags.counted(documents(), expected)
        self._flagged = number
        return Flags(frozenset(sessions[:limit]), len(sessions[:limit]) == number, number)

    def clear_flag(self, session: str, flag: str) -> None:
        with failing_fast():
            documents().update_one({"_id": make_key(session), "mark": flag}, {"$unset": {"mark": ""}})

    def note(self, name: str) -> str | None:
        with failing_fast():
            found = documents(NOTES).find_one({"_id": name})
        return None if found is None else str(found["text"])

    def write_note(self, name: str, text: str) -> None:
        with failing_fast():
            documents(NOTES).update_one({"_id": name}, {"$set": {"text": text}}, upsert=True)

    def lease(self, name: str, holder: str, seconds: float) -> bool:
        free = {"_id": f"lease:{name}", "$or": [{"holder": holder}, {"until": {"$lte": now()}}]}
        update = {"$set": {"holder": holder, "until": now() + timedelta(seconds=seconds)}}
        with failing_fast():
            try:
                documents(NOTES).update_one(free, update, upsert=True)
            except DuplicateKeyError:
                return False
        return True

    def release(self, name: str, holder: str) -> None:
        with failing_fast():
            documents(NOTES).delete_one({"_id": f"lease:{name}", "holder": holder})

    def holder(self, name: str) -> str | None:
        with failing_fast():
            found = documents(NOTES).find_one({"_id": f"lease:{name}", "until": {"$gt": now()}})
        return None if found is None else str(found["holder"])

    @property
    def connections(self) -> int:
        return connection.made

    def report(self, notes: Collection[str] = ()) -> Report:
        wrapper: Any = connections[ALIAS]
        with failing_fast(times=2):
            hello = wrapper.database.command("hello")
            ids = {"$or": [{"_id": {"$in": [*notes, _DATASET]}}, {"_id": {"$gte": _HEARTBEAT, "$lt": _PAST}}]}
            found = {document["_id"]: document for document in documents(NOTES).find(ids)}
        time = _seconds(hello["localTime"])
        return Report(
            _dataset(found.get(_DATASET)),
            str(hello.get("topologyVersion", {}).get("processId", "")),
            time,
            {
                name.removeprefix(_HEARTBEAT): max(time - _seconds(document["at"]), 0.0)
                for name, document in found.items()
                if name.startswith(_HEARTBEAT)
            },
            {name: str(found[name]["text"]) for name in notes if name in found},
        )

    def beat(self, process: str, dataset: Dataset) -> int | None:
        with failing_fast(times=3):
            found = documents(NOTES).find_one_and_update(
                {"_id": _DATASET, "dataset": dataset.id}, {"$inc": {"epoch": 1}}, return_document=ReturnDocument.AFTER
            )
            if found is None:
                return None
            name = {"_id": f"{_HEARTBEAT}{process}"}
            documents(NOTES).update_one(name, {"$currentDate": {"at": True}}, upsert=True)
            silent = {"$expr": {"$lt": ["$at", {"$subtract": ["$$NOW", int(SILENT * 1000)]}]}}
            documents(NOTES).delete_many({"_id": {"$gte": _HEARTBEAT, "$lt": _PAST}} | silent)
        return int(found["epoch"])

    def identify(self, dataset: Dataset, before: Dataset | None) -> bool:
        fields = {"dataset": dataset.id, "epoch": dataset.epoch, "instance": dataset.instance}
        where = {"_id": _DATASET, "dataset": before.id if before else None}
        with failing_fast():
            try:
                done = documents(NOTES).update_one(where, {"$set": fields}, upsert=before is None)
            except DuplicateKeyError:
                return False
        return bool(done.matched_count or done.upserted_id)

    def prepare(self) -> None:
        with patient(_INDEXING):
            indexes.create()

    def remove_heartbeat(self, process: str) -> None:
        with failing_fast():
            documents(NOTES).delete_one({"_id": f"{_HEARTBEAT}{process}"})


def _dataset(document: dict[str, Any] | None) -> Dataset | None:
    return Dataset(document["dataset"], document["epoch"], document["instance"]) if document else None


def _seconds(time: datetime) -> float:
    """Return Unix time; the driver gives UTC, perhaps without saying so."""
    return time.replace(tzinfo=UTC).timestamp()
