"""One line of a backup, which is one conversation of one store."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import TypeVar

import orjson

from conversations.ids import MESSAGE_ID
from conversations.stores import ALIASES
from conversations.stores.bulk_reader import Entry
from conversations.turns import SESSION, History

MAX_LINE = 16 * 2**20  # what MongoDB holds in one document
_USUAL = 5000  # bytes
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Record:
    """One conversation of one store; its TTL in seconds as of the manifest's `created`, None for the usual one."""

    store: str
    session: str
    ttl: int | None
    tombstone: str | None
    history: History
    size: int
    """How many bytes its line has."""

    @classmethod
    def parse(cls, line: bytes, *, known: bool = False) -> "Record":
        """Return the record of a line; raise ValueError, quoting nothing of it, if it is none. Messages that are
        `known` from another record are left out."""
        fields = orjson.loads(line.partition(b',"messages":')[0] + b',"messages":[]}' if known else line)
        if not isinstance(fields, dict) or set(fields) != {"store", "session", "ttl", "tombstone", "messages"}:
            raise ValueError("other fields than a conversation has")
        store, session, ttl, tombstone = (fields[name] for name in ("store", "session", "ttl", "tombstone"))
        if store not in ALIASES or not isinstance(session, str) or not SESSION.fullmatch(session):
            raise ValueError("no such store or session can be")
        if ttl is not None and (type(ttl) is not int or not 0 <= ttl < 2**40):
            raise ValueError("no such TTL can be")
        if tombstone is not None and not (isinstance(tombstone, str) and MESSAGE_ID.fullmatch(tombstone)):
            raise ValueError("no such tombstone can be")
        if not isinstance(fields["messages"], list) or not (fields["messages"] or tombstone or known):
            raise ValueError("no messages")
        history = History.parse(fields["messages"]) if fields["messages"] else History()
        return cls(store, session, ttl, tombstone, history, len(line))


def line_of(store: str, entry: Entry, created: datetime) -> bytes:
    """Return the line of what a store has of a conversation."""
    ttl = None if entry.expires_at is None else int((entry.expires_at - created).total_seconds())
    head = orjson.dumps({"store": store, "session": entry.session, "ttl": ttl, "tombstone": entry.tombstone})
    # In content every newline is escaped: those that are left end a message.
    return b'%s,"messages":[%s]}\n' % (head[:-1], entry.lines[:-1].replace(b"\n", b","))


def is_of(line: bytes, store: str) -> bool:
    """Return whether a line is of that store, without parsing it."""
    return line.startswith(b'{"store":"%s",' % store.encode())


def likeness(line: bytes) -> bytes:
    """Return a digest that two lines have in common if they have the same session and turns, and about the same TTL."""
    head, _, rest = line.partition(b',"ttl":')
    ttl, _, messages = rest.partition(b",")
    digest = sha256(b"%s\n%s\n" % (head.partition(b',"session":')[2], ttl[:-4]))
    digest.update(messages)
    return digest.digest()[:16]


def counted(records: Iterable[T], advance: Callable[[int, int], None], total: int) -> Iterator[T]:
    """Pass records on and say how many have passed."""
    for number, record in enumerate(records, 1):
        if number % 500 == 0:
            advance(number, total)
        yield record


def in_batches(records: Iterable[Record], most: int) -> Iterator[list[Record]]:
    """Return the records in lists of so many, or fewer where they are long: a list needs about the same memory."""
    batch, size = list[Record](), 0
    for record in records:
        batch.append(record)
        size += record.size
        if len(batch) >= most or size >= most * _USUAL:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
