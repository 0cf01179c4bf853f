"""Back both stores up into one file, or try such a file out."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser

from conversations.stores import BACKENDS, snapshot_store
from ops.backup import create, foreseen, verify
from ops.backup.verify import SnapshotState, Verified
from ops.errors import BadBackup
from ops.management.base import COULD_NOT_RUN, OperatorCommand, Result, tenant_named


class Command(OperatorCommand):
    help = (
        "Write both stores into one file in a folder (--to DIR), or restore such a file into throwaway servers and "
        "compare every conversation (verify FILE)."
    )
    changes = False  # it takes no lease: a failover must not wait for a backup. A folder has one backup at a time

    def options(self, parser: CommandParser) -> None:
        parser.add_argument("action", nargs="?", choices=["verify"], help="try out the FILE instead")
        parser.add_argument("file", nargs="?", type=Path, metavar="FILE")
        parser.add_argument("--to", type=Path, metavar="DIR", help="the folder to write a backup to")
        parser.add_argument("--dry-run", action="store_true", help="with --to: say what would be done, and do nothing")
        parser.add_argument("--keep", type=int, default=14, metavar="N", help="complete backups kept in it (14)")
        parser.add_argument("--tenant", type=tenant_named, help="only this tenant's conversations; '': those of none")

    def is_audited(self, options: dict[str, Any]) -> bool:
        return bool(options["to"]) and not (options["action"] or options["dry_run"])

    def run(
        self,
        *,
        action: str | None,
        file: Path | None,
        to: Path | None,
        keep: int,
        tenant: str | None,
        dry_run: bool,
        **options: Any,
    ) -> Result:
        if action and file and not to and tenant is None:
            return self.verify(file)
        if action or file or not to:
            raise CommandError("say either --to DIR or verify FILE", returncode=COULD_NOT_RUN)
        if keep < 1:
            raise CommandError("--keep must be at least 1", returncode=COULD_NOT_RUN)
        return self.foresee(to, keep, tenant) if dry_run else self.create(to, keep, tenant)

    def foresee(self, folder: Path, keep: int, tenant: str | None) -> Result:
        found = foreseen.foresee(folder, keep, tenant)
        lines = [f"would write a backup to {folder}, where {found.free:,} bytes are free"]
        lines += [f"  {alias}: about {number:,} conversations" for alias, number in found.conversations.items()]
        newest = f"{found.newest}, {found.newest_bytes:,} bytes" if found.newest else "none"
        lines.append(f"  the newest one there: {newest}")
        lines.append(
            f"  encrypted with the key {found.key}" if found.key else "  not encrypted: BACKUP_KEY_FILE is not set"
        )
        lines += [f"  would remove: {name}" for name in found.removed]
        out = [f"{alias} cannot be reached and would not be in the backup" for alias in found.missing]
        return Result(found.as_dict(), lines, trouble="; ".join(out))

    def create(self, folder: Path, keep: int, tenant: str | None) -> Result:
        with self.progress("Reading conversations") as advance:
            made = create.create(folder, keep, advance, tenant)
        manifest = made.manifest
        counts = {alias: asdict(count) for alias, count in manifest.counts.items()}
        report = {
            "file": str(made.path),
            "bytes": made.bytes,
            "counts": counts,
            "snapshot": manifest.snapshot,
            "key": made.key,
            "tenant": manifest.tenant,
            "removed": list(made.removed),
        }
        lines = [f"{made.path}: {made.bytes:,} bytes"]
        lines += [f"  {alias}: {_counted(count)}" for alias, count in counts.items()]
        lines.append(f"  {_snapshot()}: {manifest.snapshot}")
        lines += [f"  encrypted with the key {made.key}"] if made.key else []
        lines += [f"  removed: {name}" for name in made.removed]
        trouble = [f"{alias} could not be reached and is not in the backup" for alias in made.missing]
        corrupt = sum(count["corrupt"] for count in counts.values())
        trouble += [f"{corrupt} corrupt conversations are not in the archive"] if corrupt else []
        return Result(report, lines, trouble="; ".join(trouble))

    def verify(self, path: Path) -> Result:
        try:
            with self.progress("Restoring and comparing") as advance:
                found = verify.verify(path, advance)
        except BadBackup as error:
            return Result({"file": str(path), "error": str(error)}, trouble=f"{path}: {error}")
        there = ", ".join(f"{number:,} in {alias}" for alias, number in found.conversations.items())
        lines = [f"{path}: restored and compared: {there}; {found.differing} differ"]
        lines.append(f"  {_snapshot()}: {_snapshot_in_words(found)}")
        trouble = [f"{found.differing} differ"] if found.differing else []
        trouble += [f"{path}: {found.snapshot_error}"] if found.snapshot_error else []
        return Result(found.as_dict(), lines, trouble="; ".join(trouble))


def _snapshot() -> str:
    alias = snapshot_store()
    return f"{BACKENDS[alias].label} snapshot" if alias else "snapshot"


def _snapshot_in_words(found: Verified) -> str:
    match found.snapshot_state:
        case SnapshotState.NONE:
            return found.snapshot
        case SnapshotState.WHOLE:
            return f"whole, {found.snapshot_keys:,} keys read"
        case SnapshotState.CHECKSUM:
            return "its checksums are right; the redis-server here is too old to read it"
        case SnapshotState.UNVERIFIED:
            return "NOT VERIFIED; the conversations can be restored without it"
        case SnapshotState.DAMAGED:
            return "DAMAGED; the conversations can be restored without it"


def _counted(count: dict[str, int]) -> str:
    return f"{count['conversations']:,} conversations, {count['turns']:,} turns, {count['tombstones']:,} tombstones"
