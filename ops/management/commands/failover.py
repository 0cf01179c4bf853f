"""Move traffic to the other store; the runbook's procedure in one command."""

from dataclasses import asdict
from typing import Any

from django.core.management.base import CommandParser

from conversations.stores import ALIASES
from ops import audit
from ops.failover.move import Failover, Request
from ops.management.base import OperatorCommand, Result
from ops.status.render import in_words


class Command(OperatorCommand):
    help = (
        "Make a store the primary: check both, write to both, copy what it is missing, compare everything, switch, "
        "look again, and leave dual write as it was. Run again it finishes what was interrupted, or changes nothing."
    )

    def options(self, parser: CommandParser) -> None:
        parser.add_argument("--to", required=True, choices=ALIASES, help="the store that is to be the primary")
        self.more_options(parser)

    def more_options(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--force", action="store_true", help="switch even if the other store is out, or conversations differ"
        )
        parser.add_argument("--dry-run", action="store_true", help="say what would be done, and change nothing")

    def would_change(self, options: dict[str, Any]) -> bool:
        return not options["dry_run"]

    def run(self, *, to: str, force: bool, dry_run: bool, reason: str, **options: Any) -> Result:
        request = Request(to, audit.operator(), force, dry_run, reason)
        failover = Failover(request, self.say, self.progress)
        self.before = asdict(failover.before)
        done = failover.run()
        lines = [] if dry_run else [in_words(done.after)]
        return Result(done.as_dict(), lines, done.trouble)
