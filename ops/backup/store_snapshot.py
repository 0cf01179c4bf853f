"""Redis' own snapshot, which a backup has beside the conversations."""

import subprocess
from pathlib import Path

from redis.exceptions import RedisError

from conversations.stores.redis import rdb, snapshot
from ops.backup.archive import DUMP, Archive, Writer


def add(writer: Writer) -> str:
    """Add Redis' own snapshot and return how it was come by; without one, why. A backup is worth having all the
    same: the conversations are in it."""
    try:
        with snapshot.opened(writer.path.parent) as (dump, how):
            writer.add(DUMP, dump)
            return how
    except (RedisError, OSError, subprocess.SubprocessError) as error:
        reason = str(error) if isinstance(error, snapshot.NoSnapshot) else type(error).__name__
        return f"none: {reason}; the archive has every conversation all the same"


def count_keys(archive: Archive, folder: Path) -> int | None:
    """Return how many keys the snapshot of a backup has, as `rdb.count_keys` does. Raise BadSnapshot."""
    dump = folder / DUMP
    try:
        with dump.open("wb") as target:
            archive.copy_dump(target)
        return rdb.count_keys(dump)
    finally:
        dump.unlink(missing_ok=True)
