"""The note that a failover leaves in both stores while it runs: what dual write was before.

It counts until another switch is made, so that a failover which was interrupted, even by kill -9, is finished by the
next run.
"""

import time
from dataclasses import asdict, dataclass, replace
from uuid import uuid4

import orjson

from conversations.errors import StoreUnavailable
from conversations.policy import Routing, Switch
from conversations.runtime import switching
from conversations.stores import ALIASES, store, write_note

NAME = "failover"


@dataclass(frozen=True, slots=True)
class Note:
    """What one failover has to restore at its end."""

    id: str
    dual_write: bool
    since: float
    """When the switch was made that was the newest before; 0.0 for none."""
    done: bool = False
    at: float = 0.0

    def counts_after(self, newest: Switch | None) -> bool:
        """Return whether the newest switch is of this failover, or was there before it."""
        if newest is None:
            return self.since == 0.0
        return newest.at == self.since or newest.reason.endswith(f"[{self.id}]")


def resume(routing: Routing) -> tuple[Note, bool]:
    """Return the note of an interrupted failover and True, without another switch since; else a new one and False."""
    newest, note = switching.newest_of(switching.read()), _newest_note()
    if note and not note.done and note.counts_after(newest):
        return note, True
    return Note(uuid4().hex[:8], routing.dual_write, newest.at if newest else 0.0), False


def write(note: Note, *, done: bool) -> None:
    """Write the note to every store that can be reached."""
    text = orjson.dumps(asdict(replace(note, done=done, at=time.time()))).decode()
    write_note(NAME, text)


def _newest_note() -> Note | None:
    notes = []
    for alias in ALIASES:
        try:
            notes.append(_parse(store(alias).note(NAME)))
        except StoreUnavailable:
            continue
    return max(filter(None, notes), key=lambda note: note.at, default=None)


def _parse(text: str | None) -> Note | None:
    """Return the note; None where there is none or it cannot be read."""
    try:
        fields = orjson.loads(text or "null")
        return Note(str(fields["id"]), bool(fields["dual_write"]), float(fields["since"]), bool(fields["done"]),
                    float(fields["at"]))  # fmt: skip
    except (ValueError, TypeError, KeyError):
        return None
