"""What was removed from one store alone, to make room: the other has it still, so it is not missing."""

from contextlib import suppress

from conversations.errors import StoreUnavailable
from conversations.ids import MESSAGE_ID
from conversations.stores import ALIASES, control


def note(alias: str, last_id: str) -> None:
    """Note, in every store that can be reached, that conversations without a message after this one are removed from
    the store, or shortened there."""
    for one in ALIASES:
        with suppress(StoreUnavailable):
            if last_id > _noted(one, alias):
                control(one).write_note(_name(alias), last_id)


def upto(alias: str) -> str:
    """Return the last id of what was removed from the store, "" where nothing was. Raise StoreUnavailable."""
    return max(_noted(one, alias) for one in ALIASES)


def _noted(where: str, alias: str) -> str:
    text = control(where).note(_name(alias)) or ""
    return text if MESSAGE_ID.fullmatch(text) else ""  # another program may have written it


def _name(alias: str) -> str:
    return f"trimmed:{alias}"
