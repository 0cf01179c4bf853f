"""A store's own snapshot, which a backup has beside the conversations."""

from collections.abc import Collection
from pathlib import Path

from conversations.errors import NoSnapshot
from conversations.stores import BACKENDS, open_snapshots, snapshot_store
from conversations.stores import count_keys as keys_in
from ops.backup.archive import Archive
from ops.backup.container import DUMP, dump_named
from ops.backup.writer import Writer


def add(writer: Writer, reached: Collection[str]) -> str:
    """Add the snapshot of the store that has one and return how it was reached; without one, why. A backup is worth
    having all the same: the conversations are in it."""
    alias = snapshot_store()
    if alias is None:
        return "none: no store in use has one"
    if alias not in reached:
        return f"none: {BACKENDS[alias].label} could not be reached"
    hows: list[str] = []
    try:
        every = open_snapshots(alias, writer.path.parent)
        for number, opened in enumerate(every, 1):
            with opened as (dump, how):
                writer.add(dump_named(number), dump)
                hows.append(how)
    except NoSnapshot as error:
        of = f"{len(hows)} of {len(every)} masters, then none" if hows else "none"
        return f"{of}: {error.reason}; the archive has every conversation all the same"
    how = " or ".join(sorted(set(hows)))
    return how if len(every) == 1 else f"{len(every)} masters, each at a moment of its own: {how}"


def count_keys(archive: Archive, folder: Path) -> int | None:
    """Return how many keys the snapshots of a backup have, None where only a later server can read one, or no store in
    use has any. Raise BadSnapshot."""
    alias = snapshot_store()
    if alias is None:
        return None
    each = [_count_keys(archive, name, alias, folder) for name in archive.dumps]
    return None if None in each else sum(filter(None, each))


def _count_keys(archive: Archive, name: str, alias: str, folder: Path) -> int | None:
    dump = folder / DUMP
    try:
        with dump.open("wb") as target:
            archive.copy_dump(name, target)
        return keys_in(alias, dump)
    finally:
        dump.unlink(missing_ok=True)
