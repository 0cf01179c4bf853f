"""All conversations of one user: found, exported as one archive, and deleted with one receipt.

They are found by a walk over both stores, and by no list of them: a list may be missing one. A store that is out may
have some that no other has, so nothing is exported or deleted then.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import IO, Any
from zipfile import ZIP_DEFLATED, ZipFile

import orjson

from conversations import history
from conversations.clock import now
from conversations.errors import NoStore, StoreUnavailable
from conversations.ids import stamp
from conversations.stores import ALIASES, bulk, reachable, store
from conversations.stores.batches import batches
from conversations.stores.bulk_reader import Found
from conversations.stores.sessions import id_of
from conversations.transcript import markdown
from ops import transcript
from ops.errors import OutOfReach
from ops.long_work import Advance
from ops.transcript import Shown, State
from telemetry.logs import hashed

_PAGE = 200


@dataclass(frozen=True, slots=True)
class User:
    """A user of a tenant, "" for none: the same name in two tenants is two users."""

    name: str
    tenant: str = ""

    def __str__(self) -> str:
        return f"{self.name} of the tenant {self.tenant}" if self.tenant else self.name

    def logged(self) -> dict[str, str]:
        """Return what the audit log has of the user: a name is personal data, and outlives there what was deleted."""
        return {"user": hashed(f"user:{self.tenant}:{self.name}"), "tenant": self.tenant}


@dataclass
class Theirs:
    """What the stores hold of a user."""

    user: User
    sessions: list[str] = field(default_factory=list)
    messages: int = 0
    bytes: int = 0
    corrupt: list[str] = field(default_factory=list)
    """Those of the sessions of which something is no history: in its place, or in a quarantined copy."""
    shared: list[str] = field(default_factory=list)
    """Those that have questions of another user too: asked at the same moment, or while stores did not see each
    other."""

    def as_dict(self) -> dict[str, Any]:
        """Return it for machines, without names of sessions."""
        counts = {"conversations": len(self.sessions), "messages": self.messages, "bytes": self.bytes}
        counts |= {"corrupt": len(self.corrupt), "shared": len(self.shared)}
        return {"user": self.user.name, "tenant": self.user.tenant, **counts}

    def logged(self) -> dict[str, Any]:
        """Return what the audit log has of it."""
        return self.as_dict() | self.user.logged()


def find(user: User, advance: Advance) -> Theirs:
    """Return what both stores hold of the user. Raise OutOfReach or StoreUnavailable, where one cannot be read to its
    end: it may have what no other has."""
    _require_all()
    found, copied, looked = set[str](), set[str](), 0
    for alias in ALIASES:
        for page in bulk(alias).of_user(user.name, user.tenant, _PAGE):
            found |= page.sessions
            copied |= page.sessions if page.quarantined else frozenset()
            looked += page.looked
            advance(looked, looked)
    theirs = Theirs(user, sorted(found))
    for shown in _shown(theirs.sessions):
        _count(theirs, shown, shown.session in copied)
    return theirs


def _require_all() -> None:
    there = reachable()
    if out := [alias for alias in ALIASES if alias not in there]:
        raise OutOfReach(" and ".join(out))


def _shown(sessions: list[str]) -> Iterator[Shown]:
    """Yield what both stores hold of each; raise OutOfReach."""
    for session in sessions:
        shown = transcript.look(session)
        if shown.unseen:
            raise OutOfReach(" and ".join(shown.unseen))
        yield shown


def _count(theirs: Theirs, shown: Shown, is_copied: bool) -> None:
    said = shown.history
    theirs.messages += len(said)
    theirs.bytes += len(said.lines())
    if is_copied or any(copy.state is State.CORRUPT for copy in shown.stores.values()):
        theirs.corrupt.append(shown.session)
    if {message.user for message in said} - {None, theirs.user.name}:
        theirs.shared.append(shown.session)


def export(theirs: Theirs, file: IO[bytes], advance: Advance) -> None:
    """Write one ZIP: each conversation as `conversation export` gives it, as JSON and as Markdown, and an index of
    them. Raise OutOfReach: the file is then not whole."""
    index: list[dict[str, Any]] = []
    with ZipFile(file, "w", ZIP_DEFLATED) as archive:
        for number, shown in enumerate(_shown(theirs.sessions), 1):
            conversation = transcript.document(shown)
            name = id_of(shown.session)
            archive.writestr(f"{name}.json", orjson.dumps(conversation, option=orjson.OPT_INDENT_2))
            archive.writestr(f"{name}.md", markdown(conversation) if shown.history else "")
            flags = {"corrupt": shown.session in theirs.corrupt, "shared": shown.session in theirs.shared}
            index.append({"session_id": name, "messages": len(shown.history), **flags})
            advance(number, len(theirs.sessions))
        whole = {"user": theirs.user.name, "tenant": theirs.user.tenant, "at": stamp(now()), "conversations": index}
        archive.writestr("index.json", orjson.dumps(whole, option=orjson.OPT_INDENT_2))


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a user's conversations."""

    theirs: Theirs
    """What there was before."""
    at: datetime
    until: datetime
    """When no copy of what was deleted can live any more, in a backup neither: so long its tombstones live."""
    deleted: int
    """How many conversations."""
    tombstones: dict[str, int]
    """How many of them each store has as deleted."""
    later: tuple[str, ...]
    """Stores that have not deleted all of these, or could not be asked: they do when they are back."""
    left: tuple[str, ...]
    """The sessions of which there is something: they were not deleted, or have gone on since."""

    def as_dict(self) -> dict[str, Any]:
        """Return it for machines."""
        return {
            **self.theirs.as_dict(),
            "deleted": self.deleted,
            "tombstones": self.tombstones,
            "later": list(self.later),
            "left": list(self.left),
            "at": stamp(self.at),
            "until": stamp(self.until),
            "audited_as": self.theirs.user.logged()["user"],
        }

    def logged(self) -> dict[str, Any]:
        """Return what the audit log has of it: names of sessions are counted."""
        return self.as_dict() | self.theirs.user.logged() | {"left": len(self.left)}


def delete(theirs: Theirs, advance: Advance) -> Receipt:
    """Delete these conversations, one after another, as one alone is deleted; return what the stores say of them then.
    Where no store can be reached any more, the rest is left."""
    _drop_lists(theirs.user)
    gone = list[str]()
    for session in theirs.sessions:
        try:
            history.delete(session)
        except NoStore:
            break
        gone.append(session)
        advance(len(gone), len(theirs.sessions))
    with suppress(StoreUnavailable):
        _drop_lists(theirs.user)  # what went on meanwhile may have begun one again
    found = {alias: _held(alias, gone) for alias in ALIASES}
    left = {session for held in found.values() for session, one in held.items() if _holds(one)}
    tombstones = {alias: sum(_is_deleted(one) for one in held.values()) for alias, held in found.items()}
    return Receipt(
        theirs,
        at=now(),
        until=now() + timedelta(seconds=max(store(alias).tombstone_ttl for alias in ALIASES)),
        deleted=len(gone),
        tombstones=tombstones,
        later=tuple(alias for alias, number in tombstones.items() if number < len(gone)),
        left=(*sorted(left), *theirs.sessions[len(gone) :]),
    )


def _drop_lists(user: User) -> None:
    for alias in ALIASES:
        bulk(alias).drop_list_of(user.name, user.tenant)


def _held(alias: str, sessions: list[str]) -> dict[str, Found]:
    """Return what the store holds of them; nothing of those that it could not be asked for."""
    held: dict[str, Found] = {}
    try:
        for batch in batches(sessions, _PAGE):
            held |= bulk(alias).contents(batch)
    except StoreUnavailable:
        pass
    return held


def _holds(found: Found) -> bool:
    return isinstance(found, Exception) or bool(found.history)


def _is_deleted(found: Found) -> bool:
    return not isinstance(found, Exception) and found.tombstone is not None


def trouble(receipt: Receipt) -> str:
    """Return what is not done yet, "" where all is."""
    rest = []
    if receipt.later:
        stores = " and ".join(receipt.later)
        rest.append(f"{stores} could not be reached for all of them, and deletes them when it is back")
    if receipt.left:
        number = len(receipt.left)
        what = "conversation is left, or has" if number == 1 else "conversations are left, or have"
        rest.append(f"{number:,} {what} gone on since: run it again")
    return "; ".join(rest)
