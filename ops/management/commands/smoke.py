"""Try a running service from end to end, as the runbook's two curls do."""

from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser

from ops import smoke
from ops.errors import NoServer
from ops.management.base import COULD_NOT_RUN, OperatorCommand, Result
from ops.service import without_secrets
from ops.status.served import server_url


class Command(OperatorCommand):
    help = "Ask, ask about what was asked, read, delete: the runbook's end-to-end test, cleaning up after itself."
    changes = False

    def options(self, parser: CommandParser) -> None:
        parser.add_argument("--url", help="where the service answers (this machine's, on PORT)")
        parser.add_argument("--token-file", type=Path, help="holds a token; on a command line everybody sees it")

    def run(self, *, url: str | None, token_file: Path | None, **options: Any) -> Result:
        url = url or server_url()
        token = token_file.read_text().strip() if token_file else ""
        shown = without_secrets(url)
        try:
            steps = smoke.check(url, token)
        except NoServer as error:
            raise CommandError(f"no server answers on {shown}: {error.reason}", returncode=COULD_NOT_RUN) from None
        lines = [f"{'ok' if step.ok else 'FAILED':<8}{step.name:<18}{step.said}" for step in steps]
        failed = [step.name for step in steps if not step.ok]
        report = {"url": shown, "ok": not failed, "steps": steps}
        return Result(report, lines, f"{shown} failed at: {', '.join(failed)}" if failed else "")
