"""What was removed from one store alone, to make room: the other has it still, so it is not missing."""

from collections.abc import Collection
from contextlib import suppress

from conversations.errors import StoreUnavailable
from conversations.ids import tombstone_for
from conversations.runtime.datasets import last_id_in, trimmed_as
from conversations.stores import ALIASES, bulk, control, other


def removed(alias: str, last_id: str) -> None:
    """Note, in every store that can be reached, that conversations without a message after this one are removed from
    the store."""
    _note(trimmed_as(alias), last_id)


def shortened(alias: str) -> None:
    """Note, in every store that can be reached, that conversations of up to now are shortened in the store."""
    _note(_shortened_as(alias), tombstone_for())


def upto(alias: str) -> str:
    """Return the last id of what was removed from the store, or shortened there, "" where nothing was. Raise
    StoreUnavailable."""
    return max(_noted(trimmed_as(alias)), _noted(_shortened_as(alias)))


def removed_from(alias: str, absent: Collection[str]) -> set[str]:
    """Return which of the sessions that are not in the store may have been removed from it. Raise StoreUnavailable."""
    last = _noted(trimmed_as(alias)) if absent else ""
    if not last:
        return set()
    return {session for session, last_id in bulk(other(alias)).last_ids(absent).items() if last_id <= last}


def _note(name: str, last_id: str) -> None:
    for one in ALIASES:
        with suppress(StoreUnavailable):
            if last_id > last_id_in(control(one).note(name)):
                control(one).write_note(name, last_id)


def _noted(name: str) -> str:
    return max(last_id_in(control(one).note(name)) for one in ALIASES)


def _shortened_as(alias: str) -> str:
    return f"shortened:{alias}"
