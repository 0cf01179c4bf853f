"""Redis' own snapshot, which a backup has beside the conversations."""

from pathlib import Path

from conversations.errors import NoSnapshot
from conversations.stores import REDIS, open_snapshot
from conversations.stores import count_keys as keys_in
from ops.backup.archive import Archive
from ops.backup.container import DUMP
from ops.backup.writer import Writer


def add(writer: Writer) -> str:
    """Add Redis' own snapshot and return how it was reached; without one, why. A backup is worth having all the
    same: the conversations are in it."""
    try:
        with open_snapshot(REDIS, writer.path.parent) as (dump, how):
            writer.add(DUMP, dump)
            return how
    except NoSnapshot as error:
        return f"none: {error.reason}; the archive has every conversation all the same"


def count_keys(archive: Archive, folder: Path) -> int | None:
    """Return how many keys the snapshot of a backup has, None where only a later Redis can read them. Raise
    BadSnapshot."""
    dump = folder / DUMP
    try:
        with dump.open("wb") as target:
            archive.copy_dump(target)
        return keys_in(REDIS, dump)
    finally:
        dump.unlink(missing_ok=True)
