"""Show how things stand: routing, stores, figures."""

import os
import sys
from time import sleep
from typing import Any

import orjson
from django.core.management.base import CommandParser
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ops.management.base import COULD_NOT_RUN, FINE, TROUBLE, OperatorCommand, Result
from ops.status import collect
from telemetry.escaping import visible

EVERY = 2.0  # seconds


class Command(OperatorCommand):
    help = "Show routing, both stores, what is not in step, and the runbook's normal figures against their limits."
    changes = False

    def options(self, parser: CommandParser) -> None:
        parser.add_argument("--watch", action="store_true", help="look again every two seconds, until Ctrl-C")

    def run_from_argv(self, argv: list[str]) -> None:
        """End the process itself: Python would wait half a second more for the driver's threads, and every look in an
        emergency with it."""
        code: Any = FINE
        try:
            super().run_from_argv(argv)
        except SystemExit as end:
            code = end.code
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    def run(self, *, watch: bool, **options: Any) -> Result:
        if watch:
            return self._watch()
        seen = collect.look()
        if self.stdout.isatty() and not self.as_json:
            out: Any = self.stdout
            Console(file=out._out).print(on_a_terminal(seen))
            return result(seen, [])
        return result(seen, in_a_pipe(seen))

    def _watch(self) -> Result:
        """Show one after the other; the last one's trouble is the command's."""
        seen = collect.look()
        try:
            if self.stdout.isatty() and not self.as_json:
                with Live(on_a_terminal(seen), auto_refresh=False, screen=True) as live:
                    while True:
                        sleep(EVERY)
                        seen = collect.look()
                        live.update(on_a_terminal(seen), refresh=True)
            while True:
                lines = [orjson.dumps(seen.facts()).decode()] if self.as_json else [*in_a_pipe(seen), ""]
                self.stdout.write(visible("\n".join(lines)))
                self.stdout.flush()
                sleep(EVERY)
                seen = collect.look()
        except KeyboardInterrupt:
            self.as_json = False  # each look has been printed
            return result(seen, [])


def result(seen: collect.Status, lines: list[str]) -> Result:
    return Result(seen.facts(), lines, seen.trouble, code=COULD_NOT_RUN if seen.blind else TROUBLE)


def in_a_pipe(seen: collect.Status) -> list[str]:
    """Return plain lines, their columns aligned."""
    lines: list[str] = []
    for head, rows in collect.tables(seen):
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        for row in (head, *rows):
            lines.append("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        lines.append("")
    return lines[:-1]


def on_a_terminal(seen: collect.Status) -> Group:
    """Return tables; what is wrong is red. Every cell is visible text, never markup: a reason may hold anything."""
    shown: list[Any] = [Text(visible(f"onesource at {seen.at}: {seen.trouble or 'all is well'}"), style="bold")]
    for head, rows in collect.tables(seen):
        table = Table(*head, title_justify="left")
        for row in rows:
            table.add_row(*map(_cell, row))
        shown.append(table)
    return Group(*shown)


def _cell(text: str) -> Text:
    return Text(visible(text), style="bold red" if text.startswith(("OUT", "OVER")) else "")
