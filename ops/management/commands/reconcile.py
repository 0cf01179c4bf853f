"""Compare every conversation of both stores; repair what differs with --apply."""

from typing import Any

from django.core.management.base import CommandParser

from conversations.runtime import switching
from ops.consistency import reconcile
from ops.management.base import OperatorCommand, Result


class Command(OperatorCommand):
    help = "Compare every conversation of both stores and say what is not in step; with --apply repair it."

    def options(self, parser: CommandParser) -> None:
        parser.add_argument("--apply", action="store_true", help="give each store what it is missing, tombstones first")

    def would_change(self, options: dict[str, Any]) -> bool:
        return bool(options["apply"])

    def run(self, *, apply: bool, **options: Any) -> Result:
        with self.progress("reconcile") as advance:
            found = reconcile.reconcile(switching.current(), apply=apply, advance=advance)
        hint = "" if apply else "; --apply repairs them"
        trouble = f"{found.left} conversations are not in step{hint}" if found.left else ""
        return Result(found.as_dict(), reconcile.in_words(found), trouble, unlogged=("examples",))
