"""What a backup would do, before one is made."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conversations.errors import NoStore
from conversations.stores import ALIASES, reachable
from ops.backup import keys
from ops.backup.create import about, backups, surplus


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What would be written where, and what would be removed for it."""

    folder: Path
    conversations: dict[str, int]
    """About how many each store that can be reached has; 0 where counting them takes long."""
    missing: tuple[str, ...]
    """The stores that cannot be reached, and would not be in it."""
    newest: str
    """The newest backup of the folder, "" for none."""
    newest_bytes: int
    free: int
    removed: tuple[str, ...]
    key: str | None
    """The id of the key that it would be encrypted with."""

    def as_dict(self) -> dict[str, Any]:
        """Return it for machines."""
        return {
            "folder": str(self.folder), "conversations": self.conversations, "missing": list(self.missing),
            "newest": self.newest, "newest_bytes": self.newest_bytes, "free": self.free, "removed": list(self.removed),
            "key": self.key,
        }  # fmt: skip


def foresee(folder: Path, keep: int, tenant: str | None = None) -> Foreseen:
    """Return what a backup to the folder would do, and change nothing; raise BadKeys, NoStore or OSError. For that of a
    tenant nothing is removed; the conversations are those of all tenants, since counting one's takes as long as the
    backup."""
    known = keys.known()
    aliases = reachable()
    if not aliases:
        raise NoStore
    missing = tuple(alias for alias in ALIASES if alias not in aliases)
    there = backups(folder) if folder.exists() else []
    newest = there[-1] if there else None
    removed = () if missing or tenant is not None else surplus(there, keep)
    return Foreseen(
        folder,
        {alias: about(alias) for alias in aliases},
        missing,
        newest.name if newest else "",
        newest.stat().st_size if newest else 0,
        shutil.disk_usage(_existing(folder)).free,
        tuple(path.name for path in removed),
        next(iter(known), None),
    )


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that is there."""
    return next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
