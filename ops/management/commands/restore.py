"""Bring conversations back from a backup."""

from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser

from conversations.clock import now
from conversations.ids import stamp
from conversations.stores import ALIASES, other, reachable
from ops.backup import deletions, restore
from ops.backup.archive import Archive
from ops.errors import BadBackup
from ops.ledger import Period
from ops.management.base import COULD_NOT_RUN, OperatorCommand, Result, tenant_named

DELETED_STAYS = "What was deleted since the backup stays deleted; what the backup does not have stays as it is."


class Command(OperatorCommand):
    help = (
        "Give the stores what a backup has, whichever store it was in. By default turns are merged by id; with "
        f"--replace each conversation that the backup has becomes what the backup has. {DELETED_STAYS}"
    )

    def options(self, parser: CommandParser) -> None:
        parser.add_argument("file", type=Path, metavar="FILE")
        parser.add_argument("--into", required=True, choices=[*ALIASES, "both"])
        parser.add_argument("--tenant", type=tenant_named, help="only this tenant's conversations; '': those of none")
        parser.add_argument("--replace", action="store_true", help="lose the turns that the backup does not have")
        parser.add_argument("--noinput", "--no-input", action="store_true", help="do not ask before --replace")

    def run(self, *, file: Path, into: str, tenant: str | None, replace: bool, noinput: bool, **options: Any) -> Result:
        aliases = ALIASES if into == "both" else (into,)
        reached = reachable()
        if missing := [alias for alias in aliases if alias not in reached]:
            raise CommandError(f"{missing[0]} cannot be reached; nothing was changed", returncode=COULD_NOT_RUN)
        try:
            with Archive(file) as archive:
                self.say(f"{file}: made {stamp(archive.manifest.created)}, {archive.lines:,} entries")
                if replace:
                    whose = "" if tenant is None else f" of the tenant {tenant or '(none)'}"
                    self.confirm(
                        f"Conversations{whose} in {into} lose turns that are not in this backup.", "yes", noinput
                    )
                ledger = deletions.gather(file.parent)
                gaps = restore.gaps(archive, ledger)
                with self.progress("Restoring") as advance:
                    restored = restore.restore(
                        archive, aliases, ledger, replaces=replace, advance=advance, tenant=tenant
                    )
                age = archive.age(now())
        except BadBackup as error:
            raise CommandError(f"{file}: {error}; nothing was changed", returncode=COULD_NOT_RUN) from error
        report = {
            "file": str(file),
            "tenant": tenant,
            "age_seconds": age,
            "stores": {name: one.as_dict() for name, one in restored.items()},
            "may_come_back": [[stamp(since), stamp(until)] for since, until in gaps],
        }
        lines = [f"  {alias}: {_in_words(one)}" for alias, one in restored.items()]
        promise = [] if gaps else [f"  {DELETED_STAYS}"]
        return Result(report, [*lines, *promise, *self._advice(into, replace, reached)], _may_come_back(gaps, restored))

    def _advice(self, into: str, replace: bool, reached: tuple[str, ...]) -> list[str]:
        if into == "both":
            return []
        advice = []
        if other(into) not in reached:
            advice.append(f"  {other(into)} is out: what only it knows to be deleted may have come back.")
        if replace:
            advice.append(f"  {other(into)} keeps its turns; where the two are compared they are merged again.")
        return advice


_WORDS = {
    "expired": "expired since",
    "deleted": "deleted since",
    "left_out": "turns left out by deletions",
    "other_tenants": "of other tenants, not restored",
    "corrupt": "corrupt, quarantined",
}


def _may_come_back(gaps: list[Period], restored: dict[str, restore.Restored]) -> str:
    """Return what is wrong where deletions may be undone: "" where all are known, or nothing was restored."""
    counts = (one.put for one in restored.values())
    most = max((put.created + put.merged + put.replaced for put in counts), default=0)
    if not gaps or not most:
        return ""
    periods = ", ".join(f"{stamp(since)} to {stamp(until)}" for since, until in gaps)
    return (
        f"what was deleted may come back: nothing here tells of the deletions of {periods}. They can be of any of the"
        f" {most:,} restored conversations. Delete those again with `manage.py conversation delete`, or put the"
        f" {deletions.NAME} of that time beside the backup and restore again"
    )


def _in_words(restored: restore.Restored) -> str:
    counts = restored.as_dict().items()
    each = (f"{number:,} {_WORDS.get(name, name)}" for name, number in counts if number)
    return ", ".join(each) or "nothing to restore"
