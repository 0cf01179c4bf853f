"""A store's own snapshot, which a backup has beside the conversations."""

from collections.abc import Collection
from pathlib import Path

from conversations.errors import NoSnapshot
from conversations.stores import BACKENDS, open_snapshot, snapshot_store
from conversations.stores import count_keys as keys_in
from ops.backup.archive import Archive
from ops.backup.container import DUMP
from ops.backup.writer import Writer


def add(writer: Writer, reached: Collection[str]) -> str:
    """Add the snapshot of the store that has one and return how it was reached; without one, why. A backup is worth
    having all the same: the conversations are in it."""
    alias = snapshot_store()
    if alias is None:
        return "none: no store in use has one"
    if alias not in reached:
        return f"none: {BACKENDS[alias].label} could not be reached"
    try:
        with open_snapshot(alias, writer.path.parent) as (dump, how):
            writer.add(DUMP, dump)
            return how
    except NoSnapshot as error:
        return f"none: {error.reason}; the archive has every conversation all the same"


def count_keys(archive: Archive, folder: Path) -> int | None:
    """Return how many keys the snapshot of a backup has, None where only a later server can read them, or no store in
    use has one. Raise BadSnapshot."""
    alias = snapshot_store()
    if alias is None:
        return None
    dump = folder / DUMP
    try:
        with dump.open("wb") as target:
            archive.copy_dump(target)
        return keys_in(alias, dump)
    finally:
        dump.unlink(missing_ok=True)
