"""Appending turns to a document in one atomic update.

All that the update needs of the document is in its filter, so that the common case is one round trip. A document
that does not match makes the upsert a duplicate key. Only then is the document read, to find out why.

A tombstone is in the document too and lives as long as that. So an append shortens the life of a document only where
that has no tombstone: it has to be read first. Documents that live longer than a turn's TTL are rare: those of a
deletion in the last MARGIN, which are left to live so much longer, and of a time when the TTL was longer.
"""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from pymongo import UpdateOne
from pymongo.errors import DuplicateKeyError

from conversations import expiry, merge
from conversations.clock import now
from conversations.errors import StoreUnavailable
from conversations.models import ALIAS
from conversations.stores.base import Receipt, tombstone_in
from conversations.stores.mongo.faults import ATTEMPTS
from conversations.stores.mongo.filters import expired, expiry_in, unexpired
from conversations.stores.mongo.format import TOMBSTONE, parse
from conversations.stores.mongo.keys import keys_in, keys_pushed, retried_without_wrong
from conversations.stores.mongo.patient import Document, documents
from conversations.stores.mongo.places import place_of
from conversations.stores.sessions import make_key
from conversations.turns import History, Limits, Turn, question_named
from conversations.used_keys import Keys, of_turns, oldest

_NEARLY = timedelta(seconds=expiry.MARGIN + 60)  # by which a document may outlive its turns unread
_IDS = {"$map": {"input": "$messages", "as": "one", "in": "$$one.id"}}


class Append:
    """One append to one session: the turns still to add, and the receipt as far as it is known."""

    def __init__(self, session: str, turn: Turn | None, missing: Sequence[Turn], flag: bool, limits: Limits) -> None:
        self._session = session
        self._key = make_key(session)
        self._turn = turn
        self._missing = list(missing)
        self._flag = flag
        self._limits = limits
        self._stored = turn is not None
        self._empty = False
        self._tombstone: str | None = None
        self._expired: int | None = None
        self._longest = datetime.min.replace(tzinfo=UTC)
        """When the document expires, as it was read."""
        self._shorten = False
        """Whether the document, as it was read, has no tombstone."""

    def run(self) -> Receipt:
        """Add the turns; raise CorruptHistory, StoreUnavailable or a driver's error."""
        for _ in range(ATTEMPTS):
            try:
                # Making room raises CorruptHistory if what is there is no history: then nothing is changed.
                created = retried_without_wrong(self._push, documents(), [self._key], check=self._make_room)
            except DuplicateKeyError:
                self._make_room()
            else:
                created = created or (self._empty and not self._tombstone)
                return Receipt(self._stored, created, self._tombstone, self._expired)
        raise StoreUnavailable(ALIAS, "contended")

    def as_update(self) -> UpdateOne:
        """Return the update that adds all the turns and shortens no life; it is a duplicate key where anything is in
        the way."""
        turns = self._turns()
        return UpdateOne(self._where(turns), self._update(turns), upsert=True)

    def _push(self) -> bool:
        """Add the turns that are left; return whether the document was new. Raise DuplicateKeyError, changing
        nothing, when any of them is there or tombstoned, when it would be too much, or when the document has
        expired or lives longer than was known."""
        turns = self._turns()
        if not turns and not self._flag:
            return False
        where = self._where(turns)
        where["expires_at"]["$lte"] = max(self._expiry() + _NEARLY, self._longest)
        result = documents().update_one(where, self._update(turns), upsert=True)
        return result.upserted_id is not None

    def _where(self, turns: list[Turn]) -> Document:
        """Return the filter of a document that can take all these turns."""
        where: Document = {"_id": self._key} | unexpired()
        if turns:
            ids = [turn.id for turn in turns]
            where["messages.id"] = _none_of({*ids, *self._named()})
            where["tombstone"] = {"$not": {"$gte": min(ids), "$regex": TOMBSTONE}}
            where["bytes"] = {"$lte": max(self._limits.max_bytes - _size(turns), 0)}
            if self._turn:
                where["messages.key"] = _none_of(self._turn.keys)
            if self._turn and (key := self._turn.question.key):
                where["keys"] = {"$not": {"$elemMatch": {"key": key, "at": {"$gte": oldest()}}}}
        if self._shorten:
            where["tombstone"] = {"$not": {"$regex": TOMBSTONE}}
        return where

    def _named(self) -> set[str]:
        """Return the id of the turn that this one's key names, as a set."""
        named = question_named(self._turn.key) if self._turn else None
        return {named} if named else set()

    def _update(self, turns: list[Turn]) -> Document:
        """Return the update that adds these turns in the places of their ids."""
        messages = [message.as_dict() for turn in turns for message in turn.messages()]
        later = place_of(self._session, max(turn.answer.at for turn in turns)) if turns else place_of(self._session)
        fields: Document = {"mark": uuid4().hex} if self._flag else {}
        expires: Document = {"expires_at": self._expiry()}
        push = {"$each": messages, "$sort": {"id": 1}, "$slice": -2 * self._limits.max_turns}
        pushes = {"messages": push} | keys_pushed(of_turns(turns))
        update: Document = {"$push": pushes, "$inc": {"bytes": _size(turns)}}
        if self._shorten:
            fields |= expires
        update["$max"] = later if self._shorten else later | expires
        return update | ({"$set": fields} if fields else {})

    def _expiry(self) -> datetime:
        return now() + timedelta(seconds=self._limits.ttl)

    def _make_room(self) -> None:
        """Remove the cause for which the turns could not be added; leave only turns that still can be."""
        documents().delete_one({"_id": self._key} | expired())
        document = documents().find_one({"_id": self._key})
        if document is None:
            return
        history = parse(document.get("messages")) or History()
        self._leave_out_expired(history, keys_in(document))
        tombstone = tombstone_in(ALIAS, self._session, document.get("tombstone"))
        self._longest, self._shorten = expiry_in(document), tombstone is None
        self._leave_out_known(history, tombstone or "")
        kept = merge.stored([*history.turns(), *self._turns()], self._limits).turns()
        self._leave_out_trimmed(kept)
        self._trim(history, [turn for turn in kept if turn not in self._turns()])

    def _trim(self, history: History, stay: list[Turn]) -> None:
        """Remove the turns before those that stay, if the document still has the history that was read."""
        ids: list[Any] = [message.id for message in history]
        documents().update_one(
            # Equal `bytes` do not show that the history is unchanged: another append may have added a turn and
            # dropped one of the same size.
            {"_id": self._key, "$expr": {"$eq": [_IDS, ids]}},
            {
                "$pull": {"messages": {"id": {"$lt": stay[0].id if stay else "~"}}},
                # An upper bound in between, since the size of the messages that $slice dropped is unknown.
                "$set": {"bytes": _size(stay)},
            },
        )

    def _turns(self) -> list[Turn]:
        return [*self._missing, self._turn] if self._turn else self._missing

    def _leave_out_expired(self, history: History, keys: Keys) -> None:
        """Leave out the turn whose key is kept although its turn is not there."""
        if self._turn and not history.knows(self._turn):
            self._expired = keys.get(self._turn.question.key or "")
        if self._expired is not None:
            self._turn, self._stored = None, False

    def _leave_out_known(self, history: History, tombstone: str) -> None:
        """Leave out the turns that are there or tombstoned."""
        self._empty = not history.messages
        there = {turn.id for turn in history.turns()}
        self._missing = [turn for turn in self._missing if turn.id not in there and turn.id > tombstone]
        if self._turn and self._turn.id <= tombstone:
            self._turn, self._stored, self._tombstone = None, False, tombstone
        elif self._turn and history.knows(self._turn):
            self._turn, self._stored = None, False

    def _leave_out_trimmed(self, kept: Sequence[Turn]) -> None:
        """Leave out the turns that would be trimmed as soon as they were there."""
        self._missing = [turn for turn in self._missing if turn in kept]
        if self._turn not in kept:
            self._turn = None


def _none_of(values: Collection[str]) -> Document:
    return {"$nin": list(values)} if len(values) > 1 else {"$ne": next(iter(values))}


def _size(turns: list[Turn]) -> int:
    return sum(len(turn.lines()) for turn in turns)
